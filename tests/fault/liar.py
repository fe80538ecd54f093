#!/usr/bin/env python3
"""The real trainer and real daemons with a proxy between that lies in every way that lies.py knows: the run's student has
exactly the bits of an honest run, or, when every replica lies for ever, the run ends in one clear line, keeps its steps and
goes on to those bits with honest teachers. Nothing false is trained on or stays in the cache.

    liar.py BUILD              every lie once (part of the fault suite)
    liar.py BUILD --all        every lie told at first, now and then, by one replica for ever, by all for ever: a table
    liar.py BUILD --only TEXT  those whose name holds TEXT, as --all does
"""
import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import children
import lies
from lying_proxy import Liar, Proxy

arguments = argparse.ArgumentParser()
arguments.add_argument('build')
arguments.add_argument('--all', action='store_true')
arguments.add_argument('--only')
arguments.add_argument('--of', help='infer, info, head or tokenizer')
arguments.add_argument('--keep', action='store_true')
a = arguments.parse_args()

build = os.path.abspath(a.build)
limbeck = os.path.join(build, 'trainer', 'limbeck')
limbeckd = os.path.join(build, 'server', 'limbeckd')
source = os.environ.get('LB_SOURCE_ROOT') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
tokenizer = os.path.join(source, 'examples', 'wordnet', 'tokenizer.json')
folder = tempfile.mkdtemp(prefix='limbeck-liar-', dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None)
environment = dict(os.environ, OMP_WAIT_POLICY='passive', OMP_NUM_THREADS='1', TMPDIR=folder)
patience = 60
daemons = []
os.chdir(folder)

lanes = ('final_hidden', 'topk', 'logits')
steps = 16
untold = 'it was never told'


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


def run(command, log):
    """(status, text); status None: still running when patience was over."""
    with open(log, 'wb') as out:
        p = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
                             preexec_fn=children.die_with_parent)
        try:
            status = p.wait(patience)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
    with open(log, 'rb') as f:
        return status, f.read().decode(errors='replace')


def bits(output):
    try:
        with open(os.path.join(output, 'student', 'model.safetensors'), 'rb') as f:
            return f.read()
    except FileNotFoundError:
        return None


def text(lines, seed):
    words, x, made = 'the bird that sings by a river and house of wood in small rain'.split(), seed, []
    for _ in range(lines):
        line = []
        for _ in range(5 + x % 6):
            x = x * 16807 % 2147483647
            line.append(words[x // 7 % len(words)])
        made.append(' '.join(line))
    return '\n'.join(made) + '\n'


def recipe(name, student, data='text.txt', **keys):
    made = dict(student=dict(dict(model_type='llama', hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                  num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                  tie_word_embeddings=True), **student),
                tokenizer=tokenizer, datasets=[{'path': data}], max_length=16, per_device_train_batch_size=4,
                learning_rate=0.01, logging_steps=1, **keys)
    write(name, ''.join('%s: %s\n' % (k, json.dumps(v)) for k, v in made.items()))


def host(name, models):
    log = open(name + '.log', 'wb')
    daemons.append(subprocess.Popen([limbeckd] + ['%s=%s/student' % (m, m) for m in models] +
                                    ['--listen', '127.0.0.1:0', '--port-file', name, '--threads', '1'],
                                    stdout=log, stderr=subprocess.STDOUT, env=environment,
                                    preexec_fn=children.die_with_parent))
    until = time.monotonic() + patience
    while not (os.path.exists(name) and os.path.getsize(name)):
        if daemons[-1].poll() is not None or time.monotonic() > until:
            sys.exit('FAILED: limbeckd does not start: ' + open(name + '.log').read())
        time.sleep(0.02)
    return '127.0.0.1', int(open(name).read())


class Scene:
    """Two teachers, of which one has two replicas behind the liar; what an honest run makes of them in each lane."""

    def __init__(self):
        write('text.txt', text(64, 17))
        write('long.txt', text(1600, 18))
        for name, width in (('nouns', 48), ('others', 32)):
            recipe(name + '.yaml', {'hidden_size': width}, loss_functions=[{'function': 'cross_entropy'}], max_steps=3,
                   seed=width, output_dir=name)
            status, said = run([limbeck, 'train', name + '.yaml'], 'teacher.log')
            if status != 0:
                sys.exit('FAILED: no teacher: ' + said)
        first, second = host('first', ['nouns', 'others']), host('second', ['others'])
        self.liar = Liar()
        self.proxies = {n: Proxy(n, u, self.liar) for n, u in (('n', first), ('a', first), ('b', second))}
        with urllib.request.urlopen(self.proxies['n'].url + '/v2/models/nouns') as answer:
            self.liar.other_info = answer.read()
        self.honest = {}
        losses = {'final_hidden': [{'function': 'kl'}, {'function': 'hs_mse', 'normalize': True, 'layer_mapping': [
                      {'student': 1, 'teacher': 1}]}],
                  'topk': [{'function': 'kl'}, {'function': 'attention_mse', 'layer_mapping': [
                      {'student': 1, 'teacher': 1}]}],
                  'logits': [{'function': 'kl'}]}
        for name in lanes if a.all or a.only or a.of else [*lanes, *('long-' + lane for lane in lanes)]:
            lane, is_long = name.replace('long-', ''), name.startswith('long-')
            recipe(name + '.yaml', {}, targets=lane, loss_functions=losses[lane], loss_top_k=8, mixture='mean_probs',
                   data='long.txt' if is_long else 'text.txt',
                   teachers=[dict(name='nouns', url=self.proxies['n'].url, model='nouns'),
                             dict(name='others', url=self.proxies['a'].url, model='others',
                                  replicas=[self.proxies['b'].url])],
                   cache_dir='cache', prefetch=2, on_lost_teacher='stop', teacher_timeout=0.4 if is_long else 1,
                   give_up_after=30, max_steps=(300 if lane == 'topk' else 60) if is_long else steps, save_steps=0,
                   seed=3, output_dir='run')
            status, said = self.train(name, 'honest-' + name)
            self.honest[name] = bits('honest-' + name)
            if status != 0 or self.honest[name] is None:
                sys.exit('FAILED: no honest run: ' + said)

        status, said = run([limbeck, 'eval', '--json', self.proxies['a'].url + '#others', 'text.txt'], 'eval.log')
        self.evaluated = parts_of(said) if status == 0 else sys.exit('FAILED: no evaluation: ' + said)

    def train(self, lane, output, *options):
        return run([limbeck, 'train', lane + '.yaml', '-o', output] + list(options), output + '.log')

    def clean(self):
        for left in ('cache', 'out', 'alone'):
            shutil.rmtree(left, ignore_errors=True)


def errors_of(said):
    return [line for line in said.splitlines() if line.startswith('limbeck: ')]


def parts_of(said):
    return json.loads(said[said.index('{'):])['models'][0]['parts']


def check_cache(scene, lane, right):
    """Nothing false stays: what the cache holds passes, and gives the honest bits with nobody there."""
    status, said = run([limbeck, 'cache', 'verify', 'cache'], 'verify.log')
    if status != 0 or ' 0 bad' not in said:
        return ['cache verify: ' + said.strip()[-300:]]
    scene.liar.off = True
    status, said = scene.train(lane, 'alone', '--set', 'give_up_after=1')
    scene.liar.off = False
    if status != 0:
        return ['from the cache alone: status %s: %s' % (status, said.strip()[-300:])]
    return [] if bits('alone') == right else ['from the cache alone: other bits']


def check_ended(scene, lane, status, said):
    """All lied for ever: one line, all steps kept, and an honest teacher brings it to the same bits."""
    wrong, errors = [], errors_of(said)
    if status != 1 or len(errors) != 1:
        return ['status %s with %d lines: %s' % (status, len(errors), said.strip()[-600:])]
    if 'others' not in errors[0] and 'http://127.0.0.1:' not in errors[0]:
        wrong.append('the line names no teacher or address: ' + errors[0])
    made = 0
    if os.path.exists('out/metrics.jsonl'):
        made = sum('"loss"' in line for line in open('out/metrics.jsonl'))
    if made and not os.path.isdir('out/checkpoint-%d' % made):
        wrong.append('%d steps were made, kept is %s' % (made, sorted(os.listdir('out'))))
    scene.liar.be('honest')
    if not made:
        shutil.rmtree('out', ignore_errors=True)
    status, said = scene.train(lane, 'out', *(['--resume'] if made else []))
    if status != 0:
        wrong.append('resumed: status %s: %s' % (status, said.strip()[-300:]))
    elif bits('out') != scene.honest[lane]:
        wrong.append('resumed: other bits')
    return wrong


def attempt(scene, lane, schedule, kinds):
    """As once, but again where it depends on what happens at the same time whether there is anything to lie about."""
    for _ in range(8):
        did, wrong, seconds = once(scene, lane, schedule, kinds)
        if wrong != [untold]:
            break
    for d in daemons:
        if d.poll() is not None:
            sys.exit('FAILED: limbeckd ended with status %s' % d.returncode)
    if scene.liar.broken:
        sys.exit('FAILED: a lie that fell over was not told: ' + '; '.join(scene.liar.broken))
    return did, wrong, seconds


def once(scene, lane, schedule, kinds):
    """One run under lies: what it did, what is wrong, how long it took."""
    scene.untold = []
    if kinds[0].of == 'tokenizer':
        return evaluate(scene, schedule, kinds[0])
    scene.clean()
    liar = scene.liar
    of = kinds[0].of
    mid_run = schedule in ('often', 'one') and of == 'info'
    refuses = any(k.refuses for k in kinds) and schedule not in ('all', 'each')
    liar.be(schedule, kinds, spare=3 if of == 'infer' and schedule == 'all' else 0, mid_run=mid_run, one_only=refuses,
            also_500=3 if mid_run or (schedule == 'each' and any(k.of == 'info' for k in kinds)) else 0)
    began = time.monotonic()
    status, said = scene.train(lane, 'out', *(['--set', 'give_up_after=0.5'] if schedule == 'all' else []))
    seconds = time.monotonic() - began
    told, names, again = liar.told, list(liar.told_kinds), liar.rows_lied <= liar.rows_again
    scene.untold = list(liar.kinds) if schedule == 'each' else []
    wrong, right, found = [], scene.honest[lane], kinds[0].found
    if schedule == 'all' and seconds > 15:  # give_up_after, twice teacher_timeout, and a busy machine
        wrong.append('took %.1f s' % seconds)
    if status is None:
        wrong.append('did not end: ' + said.strip()[-300:])
    elif status < 0 or status > 3 or 'internal' in said:
        wrong.append('fell over, status %s: %s' % (status, said.strip()[-600:]))
    if not told:
        wrong.append(untold)
    if wrong:
        liar.be('honest')
        return 'failed', wrong, seconds
    if found is None:
        did = 'trained on it' if status == 0 and bits('out') != right else 'same bits' if status == 0 else 'ended'
        liar.be('honest')
        if did == 'ended':
            wrong = ['status %s: %s' % (status, said.strip()[-300:])]
        elif did == 'same bits' and schedule == 'all':
            wrong = ['it changes nothing: no lie that cannot be found']
        return did, wrong, seconds
    if status == 0:
        did = 'same bits'
        if bits('out') != right:
            wrong.append('other bits')
        if of == 'infer' and found and not again:
            wrong.append('not asked again')
        liar.be('honest')
        if schedule == 'all' and found is True:
            wrong.append('went on with lies for ever')
        wrong += check_cache(scene, lane, right) if not wrong else []
    else:
        did = 'ended; resumed: same bits'
        if schedule != 'all' and found != 'ends':
            wrong.append('ended, status %s: %s' % (status, said.strip()[-600:]))
        wrong += check_ended(scene, lane, status, said) if not wrong else []
        wrong += check_cache(scene, lane, right) if not wrong else []
    return did if not wrong else 'FAILED', wrong, seconds


def evaluate(scene, schedule, kind):
    """`limbeck eval` of a hosted model, whose tokenizer is lied about."""
    liar = scene.liar
    liar.be(schedule, [kind])
    status, said = run([limbeck, 'eval', '--json', scene.proxies['a'].url + '#others', 'text.txt'], 'eval.log')
    told = liar.told
    liar.be('honest')
    errors = errors_of(said)
    if not told:
        return 'failed', ['never told'], 0
    if status == 0 and schedule == 'first':
        return ('same answer', [], 0) if parts_of(said) == scene.evaluated else ('FAILED', [said[-600:]], 0)
    if status == 1 and len(errors) == 1 and schedule != 'first' and scene.proxies['a'].url in errors[0]:
        return 'ended', [], 0
    return 'FAILED', ['status %s: %s' % (status, said.strip()[-600:])], 0


def every_way(scene):
    """Each lie by itself, on each schedule."""
    bad, counts, longest = 0, collections.Counter(), 0
    kinds = [k for k in lies.kinds if (not a.only or a.only in k.name) and (not a.of or a.of == k.of)]
    print('| %-9s | %-58s | %-9s | at first | now and then | one replica | all replicas |' % ('lies in', 'way', 'found'))
    for kind in kinds:
        lane = kind.lane or ('topk' if kind.of == 'infer' else 'final_hidden')
        cells, wrongs = [], []
        for schedule in ('first', 'often', 'one', 'all'):
            if kind.only and schedule not in kind.only or kind.of in ('head', 'tokenizer') and schedule == 'often':
                cells.append('-')
                continue
            did, wrong, seconds = attempt(scene, lane, schedule, [kind])
            counts[did] += 1
            longest = max(longest, seconds)
            cells.append(did)
            wrongs += ['%s: %s' % (schedule, w) for w in wrong]
        found = {True: 'yes', False: 'no matter', 'ends': 'in part', None: 'cannot be'}[kind.found]
        print('| %-9s | %-58s | %-9s | %s |' % (kind.of, kind.name, found, ' | '.join(cells)), flush=True)
        for w in wrongs:
            print('    WRONG', w, flush=True)
        bad += bool(wrongs)
    print('%d ways, %d bad; runs: %s; the longest %.1f s' % (
        len(kinds), bad, ', '.join('%d %s' % (n, did) for did, n in counts.most_common()), longest))
    return bad


def each_once(scene):
    """All that can be found, each told once to one of three long runs; then some at the start, and some for ever."""
    def chosen(of, name):
        return next(k for k in lies.kinds if k.of == of and k.name == name)

    tries = []
    for lane in lanes:
        # A billion seconds would leave one replica for the rest of the run.
        told = [k for k in lies.kinds if k.found in (True, False) and not k.only and 'billion' not in k.name and
                '999999' not in k.name and
                (k.of == 'infer' and (k.lane or 'topk') == lane or k.of == 'info' and lane == 'topk')]
        tries.append(('long-' + lane, 'each', told))
    tries += [(lane, 'first', [chosen(*which)]) for lane, *which in (
        ('topk', 'infer', 'answers of two requests swapped'), ('topk', 'infer', 'bodies of two requests swapped'),
        ('topk', 'infer', '503, Retry-After: a billion seconds'), ('topk', 'info', 'HTML'),
        ('topk', 'info', 'metadata: another fingerprint'), ('topk', 'info', '503'),
        ('final_hidden', 'head', 'a bit at 30 % of the head'), ('final_hidden', 'head', 'head: NaN'))]
    tries += [('topk', 'all', [chosen(*which)]) for which in (
        ('infer', 'a bit of logits.topk_values'), ('infer', 'NaN in logits.topk_values'), ('infer', '400'),
        ('infer', '413'), ('infer', '302 to itself'), ('infer', '503, Retry-After: a billion seconds'),
        ('infer', 'close in the body'), ('infer', 'hang in the body'), ('infer', 'another model_version'),
        ('info', 'metadata: a vocabulary larger by one'))]
    tries += [('', schedule, [chosen('tokenizer', 'tokenizer: two words changed places')]) for schedule in ('first', 'all')]
    bad, n, runs, began = 0, 0, 0, time.monotonic()
    while tries:
        lane, schedule, kinds = tries.pop(0)
        did, wrong, seconds = attempt(scene, lane, schedule, kinds)
        told = len(kinds) - len(scene.untold)
        n, runs, bad = n + told, runs + 1, bad + bool(wrong)
        print('%-17s %-6s %5.1f s  %-48s %s' % (lane, schedule, seconds,
              kinds[0].name if len(kinds) == 1 else '%d lies' % told, did), flush=True)
        for w in wrong:
            print('    WRONG', w, flush=True)
        if scene.untold and not wrong: # those that the run was too short for
            tries.insert(0, (lane, schedule, scene.untold))
    print('%d lies in %d runs, %d bad, %.0f s' % (n, runs, bad, time.monotonic() - began))
    return bad


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a time-out leaves no daemon and no folder
try:
    failed = (every_way if a.all or a.only or a.of else each_once)(Scene())
finally:
    for d in daemons:
        d.kill()
        d.wait()
    os.chdir('/')
    if not a.keep:
        shutil.rmtree(folder, ignore_errors=True)
sys.exit(1 if failed else 0)
