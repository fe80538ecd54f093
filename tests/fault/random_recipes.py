#!/usr/bin/env python3
"""Random recipes x data x lanes x mixtures x losses x models, with the real programs: each makes a step, or is refused
in one clear line (a line for each mistake of the recipe). Nothing crashes, hangs, or ends without a word.

    random_recipes.py BUILD [--n N] [--seed SEED] [--keep]

A recipe that fails is left in the working folder with what was said; --keep leaves all.
"""
import argparse
import collections
import gzip
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import children

arguments = argparse.ArgumentParser()
arguments.add_argument('build')
arguments.add_argument('--n', type=int, default=150)
arguments.add_argument('--seed', type=int, default=1)
arguments.add_argument('--keep', action='store_true')
a = arguments.parse_args()

build = os.path.abspath(a.build)
limbeck = os.path.join(build, 'trainer', 'limbeck')
limbeckd = os.path.join(build, 'server', 'limbeckd')
source = os.environ.get('LB_SOURCE_ROOT') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
tokenizer = os.path.join(source, 'examples', 'wordnet', 'tokenizer.json')
folder = tempfile.mkdtemp(prefix='limbeck-recipes-', dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None)
environment = dict(os.environ, OMP_WAIT_POLICY='passive', OMP_NUM_THREADS='1', TMPDIR=folder)
patience = 60
daemons = []
os.chdir(folder)


def fail(text):
    print('FAILED:', text)
    sys.exit(1)


# ---- data ----

def write(path, data):
    with open(path, 'wb') as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def idx(path, dims, values, packed=False):
    data = struct.pack('>BBBB', 0, 0, 8, len(dims)) + b''.join(struct.pack('>I', d) for d in dims) + bytes(values)
    write(path, gzip.compress(data) if packed else data)


def make_data(r):
    words = 'the bird that sings by a river and house of wood in small rain'.split()
    lines = [' '.join(r.choice(words) for _ in range(r.randint(3, 12))) for _ in range(80)]
    write('text.txt', '\n'.join(lines) + '\n')
    write('crlf.txt', '\r\n'.join(lines) + '\r\n')
    write('bom.txt', '\ufeff' + '\n'.join(lines) + '\n')
    write('one.txt', 'the bird sings')
    write('empty.txt', '')
    write('blank.txt', '\n\n   \n')
    write('latin1.txt', 'caf\xe9\n'.encode('latin-1') * 40)
    write('odd.txt', 'a\u0000b \u200d \U0001f468\u200d\U0001f469\n' * 30)
    write('text.jsonl', ''.join(json.dumps({'text': l, 'n': i}) + '\n' for i, l in enumerate(lines)))
    write('odd.jsonl', ''.join('{"text": "%s", "x": NaN, "y": 123456789012345678901234567890}\n' % l for l in lines))
    write('broken.jsonl', '{"text": "a b c"}\n{"text": \n')
    write('other.jsonl', ''.join(json.dumps({'body': l}) + '\n' for l in lines))
    write('table.csv', 'a,b,c\n1,2,3\n')
    write('list.json', json.dumps([{'text': l} for l in lines]))
    ids = [r.randrange(500) for _ in range(600)]
    write('ids.bin', struct.pack('<600H', *ids))
    write('llmc.bin', struct.pack('<256i', 20240520, 1, 600, *[0] * 253) + struct.pack('<600H', *ids))
    write('mega.bin', struct.pack('<600i', *ids))
    write('mega.idx', b'MMIDIDX\0\0' + struct.pack('<QBQQiiqqqqq', 1, 4, 2, 3, 200, 400, 0, 800, 0, 1, 2))
    write('odd.bin', b'\1\0\2')
    write('large.bin', struct.pack('<600H', *[65535] * 600))
    write('cut.bin', struct.pack('<256i', 20240520, 1, 700, *[0] * 253) + struct.pack('<600H', *ids))
    write('prompts.jsonl', ''.join(json.dumps({'prompt': l[:20] + ' ', 'completion': l[20:] + ' .', 'hint': l}) + '\n' for l in lines))
    row = lambda: ['%.3f' % r.random() for _ in range(12)] + [str(r.randrange(5))]
    names = ['f%d' % i for i in range(12)] + ['label']
    write('table12.csv', '\n'.join(','.join(x) for x in [names] + [row() for _ in range(60)]) + '\n')
    write('kinds.csv', '\n'.join(','.join(x) for x in [names] + [row()[:12] + ['oak'] for _ in range(9)]) + '\n')
    n = 60
    idx('images-idx3-ubyte', [n, 3, 4], [r.randrange(256) for _ in range(n * 12)])
    idx('labels-idx1-ubyte', [n], [r.randrange(5) for _ in range(n)])
    idx('images-idx3-ubyte.gz', [n, 3, 4], [r.randrange(256) for _ in range(n * 12)], True)
    idx('wild-idx1-ubyte', [n], [r.randrange(256) for _ in range(n)])
    idx('few-idx1-ubyte', [7], [0] * 7)
    idx('wide-idx3-ubyte', [n, 5, 5], [1] * (n * 25))
    write('cut-idx3-ubyte', struct.pack('>BBBBIII', 0, 0, 8, 3, n, 3, 4) + b'\1' * 100)
    os.mkdir('folder.txt')


good_texts = ['text.txt', 'text.txt', 'text.jsonl', 'crlf.txt', 'bom.txt', 'odd.txt', 'odd.jsonl', 'ids.bin', 'llmc.bin', 'mega.bin',
              'prompts.jsonl', 'prompts.jsonl']
odd_texts = ['one.txt', 'empty.txt', 'blank.txt', 'latin1.txt', 'broken.jsonl', 'other.jsonl', 'table.csv', 'list.json',
             'folder.txt', 'absent.txt', 'odd.bin', 'large.bin', 'cut.bin', 'absent.bin']
good_images = ['images-idx3-ubyte', 'images-idx3-ubyte.gz']
odd_images = ['wide-idx3-ubyte', 'cut-idx3-ubyte', 'labels-idx1-ubyte']
odd_labels = ['wild-idx1-ubyte', 'few-idx1-ubyte', 'images-idx3-ubyte', None]

# ---- models ----

llama = dict(model_type='llama', hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True)
mlp = dict(model_type='limbeck_mlp', input_size=12, hidden_sizes=[16, 8], num_labels=5)


def run(command, log):
    """(status, text); status None: still running when patience was over."""
    with open(log, 'wb') as out:
        p = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
                             preexec_fn=children.die_with_parent)
        try:
            status = p.wait(patience)
        except BaseException as e:  # SIGTERM and Ctrl-C too: what was begun is not left behind
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            if not isinstance(e, subprocess.TimeoutExpired):
                raise
            status = None
    with open(log, 'rb') as f:
        return status, f.read().decode(errors='replace')


def recipe_text(recipe):
    return '\n'.join('%s: %s' % (k, json.dumps(v)) for k, v in recipe.items()) + '\n'


def make_teacher(name, student, data, **keys):
    recipe = dict(student=student, datasets=[data], loss_functions=[{'function': 'cross_entropy'}], max_steps=2,
                  max_length=16, per_device_train_batch_size=2, output_dir=name, **keys)
    write(name + '.yaml', recipe_text(recipe))
    status, said = run([limbeck, 'train', name + '.yaml'], name + '.log')
    if status != 0:
        fail('no teacher %s: %s' % (name, said))
    return os.path.join(name, 'student')


def host(models):
    command = [limbeckd] + ['%s=%s' % (n, p) for n, p in models.items()] + ['--port-file', 'port', '--threads', '1',
               '--listen', '127.0.0.1:0']
    daemons.append(subprocess.Popen(command, stdout=open('daemon.log', 'wb'), stderr=subprocess.STDOUT, env=environment,
                                    preexec_fn=children.die_with_parent))
    until = time.monotonic() + patience
    while not os.path.exists('port'):
        if daemons[-1].poll() is not None or time.monotonic() > until:
            fail('limbeckd does not start: ' + open('daemon.log').read())
        time.sleep(0.02)
    return 'http://127.0.0.1:' + open('port').read().strip()


# ---- random recipes ----

def sometimes(r, share):
    return r.random() < share


def pick(r, good, odd):
    """One of the good ones, or, as often as this recipe is odd, of the odd ones."""
    return r.choice(odd if odd and sometimes(r, r.odd) else good)


def random_student(r, is_image):
    if sometimes(r, r.odd / 2):
        is_image = not is_image
    if sometimes(r, 0.15):
        return {'model': pick(r, ['classes/student'] if is_image else ['small/student', 'wide/student'],
                              ['classes/student', 'small/student', 'text.txt', 'absent'])}
    s = dict(mlp if is_image else llama)
    if is_image:
        s['hidden_sizes'] = pick(r, [[16, 8], [8], [3, 3, 3], [6]], [[], [0], [70000], 7])
        s['num_labels'] = pick(r, [5], [4, 6, 1, 0, 300])
        s['input_size'] = pick(r, [12], [25, 11, 0])
    else:
        s['hidden_size'] = pick(r, [32, 48, 16], [4, 30, 0])
        s['num_attention_heads'] = pick(r, [4, 2], [1, 3, 0])
        s['num_key_value_heads'] = pick(r, [2, 1], [4, 3])
        s['num_hidden_layers'] = pick(r, [2, 1, 3], [0])
        if sometimes(r, r.odd):
            s['head_dim'] = r.choice([8, 16, 300, 1, 3])
    if sometimes(r, r.odd):
        s['model_type'] = r.choice(['gpt2', '', 'llama', 'limbeck_mlp', 7])
    return s


def random_entry(r, is_image):
    if sometimes(r, r.odd):
        is_image = not is_image
    if is_image:
        if sometimes(r, 0.25):
            e = {'path': pick(r, ['table12.csv'], ['kinds.csv', 'table.csv', 'absent.csv'])}
            if sometimes(r, 0.3):
                e.update({'type': pick(r, ['csv'], ['tokens', 'idx'])})
            if sometimes(r, 0.2):
                e['label_field'] = pick(r, ['label'], ['f3', 'none'])
        else:
            e = {'path': pick(r, good_images, odd_images), 'type': pick(r, ['idx'], ['text', 'jsonl', 'csv'])}
            label = pick(r, ['labels-idx1-ubyte'], odd_labels)
            if label:
                e['labels'] = label
        if sometimes(r, 0.2):
            e['exclude_labels'] = pick(r, [[1], [7]], [[0, 1, 2, 3, 4], [-1]])
        if sometimes(r, 0.2):
            e['max_samples'] = pick(r, [1, 10, 60], [1000])
    else:
        e = {'path': pick(r, good_texts, odd_texts)}
        if sometimes(r, 0.2):
            e['max_tokens'] = pick(r, [300, 1000], [10, 1])
    if sometimes(r, 0.6):
        e['tag'] = pick(r, ['x', 'y'], [''])
    return e


DIVERGENCES = ('kl', 'reverse_kl', 'jsd', 'skew_kl', 'skew_reverse_kl', 'tvd', 'akl', 'abkd', 'dkd', 'logit_standardization', 'dist')


def random_loss(r, names):
    l = {'function': r.choice(names)}
    if sometimes(r, 0.3):
        l['weight'] = pick(r, [0.5, 2, 0], [-1, 1e30, 1e6])
    if l['function'] in DIVERGENCES or sometimes(r, r.odd):
        l['temperature'] = pick(r, [1, 2, 0.5, 0], [0.0001, 1000, -1])
    of_layers = l['function'].startswith(('hs_', 'pkd', 'similarity', 'minilm')) or l['function'] == 'attention_transfer'
    if l['function'] in ('attention_mse', 'attention_kl') or sometimes(r, 0.35 if of_layers else r.odd):
        l['layer_mapping'] = [{'student': pick(r, [0, 1], [2, -1, 3, 9]), 'teacher': pick(r, [0, 1], [2, -1, 3, 9])}
                              for _ in range(r.randint(1, 2))]
        if sometimes(r, 0.3):
            l['layer_mapping'] = pick(r, ['uniform', 'last', 'skip'], ['first', 1])
    if l['function'] == 'alm' or sometimes(r, r.odd):
        l['bce_temp'] = pick(r, [1, 100], [0, -1, 1e9])
    if l['function'] == 'cross_entropy' and sometimes(r, 0.4) or sometimes(r, r.odd):
        l[r.choice(['label_smoothing', 'z_loss'])] = pick(r, [0, 0.1, 1], [-1, 1.5, 'x'])
    if (l['function'] in DIVERGENCES or l['function'] == 'cross_entropy') and sometimes(r, 0.2) or sometimes(r, r.odd):
        l['clamp'] = pick(r, [0.01, 10], [0, -1])
    for key, of in (('alpha', ('skew_kl', 'skew_reverse_kl', 'abkd', 'dkd', 'uld_hybrid')), ('beta', ('jsd', 'abkd', 'dkd', 'uld_hybrid'))):
        if l['function'] in of and sometimes(r, 0.4) or sometimes(r, r.odd):
            l[key] = pick(r, [0, 0.1, 0.9], [1, 1.5, -1, 1e9])
    if sometimes(r, 0.15):
        l['anneal'] = pick(r, ['linear', 'cosine'], ['off', 1])
        l[pick(r, ['weight_end'], ['temperature_end', 'anneal_steps'])] = pick(r, [2, 3], [-1, 0])
        if sometimes(r, 0.3):
            l['anneal_steps'] = 2
    if sometimes(r, 0.1):
        l['teachers'] = pick(r, [['t0'], ['t0', 't1'], []], [['t9'], ['t0', 't0'], 't0', [3]])
    if 'minilm' in l['function'] and sometimes(r, 0.4) or sometimes(r, r.odd):
        l['relation_heads'] = pick(r, [1, 2], [0, 3, -1, 10000])
    if 'contrastive' in l['function'] and sometimes(r, 0.4) or sometimes(r, r.odd):
        l['contrast_temp'] = pick(r, [0.05, 1], [0, -1])
    if l['function'] == 'pkd' and sometimes(r, 0.3) or sometimes(r, r.odd):
        l['first_token'] = sometimes(r, 0.5)
    if l['function'] == 'hs_mse' or sometimes(r, r.odd):
        l['normalize'] = sometimes(r, 0.5)
    return l


def random_optimisation(r, recipe, known):
    """How the student learns, and when it is done."""
    keys = {}
    if sometimes(r, 0.4):
        keys['optim'] = r.choice(known['optims'])
        if keys['optim'] == 'sgd' and sometimes(r, 0.6) or sometimes(r, r.odd):
            keys['optim_args'] = pick(r, ['momentum=0.9', 'momentum=0.5, nesterov=True'],
                                      ['nesterov=true', 'momentum=2', 'momentum', '', 'dampening=1', 3])
    if sometimes(r, 0.4):
        keys['lr_scheduler_type'] = r.choice(known['schedules'])
        kwargs = {'cosine': {'num_cycles': 1}, 'cosine_with_min_lr': {'min_lr': 1e-5, 'num_cycles': 0.5},
                  'warmup_stable_decay': {'num_decay_steps': 1, 'decay_type': '1-sqrt'}}.get(keys['lr_scheduler_type'], {})
        kwargs = pick(r, [kwargs], [{}, {'min_lr': -1}, {'min_lr': 1, 'min_lr_rate': 1}, {'num_decay_steps': 10**18}, 'x'])
        if kwargs:
            keys['lr_scheduler_kwargs'] = kwargs
        keys['warmup_from_zero'] = sometimes(r, 0.5)
        if sometimes(r, 0.5):
            keys['warmup_steps'] = pick(r, [0, 1], [-1, 9])
    if sometimes(r, 0.2):
        keys['ema_decay'] = pick(r, [0.5, 0.999], [1, -1])
        if sometimes(r, 0.3):
            keys['ema_for'] = pick(r, ['student', 'evaluation'], ['both'])
    if sometimes(r, 0.5 if 'model' in recipe['student'] else r.odd):
        keys['use_peft'] = True
        if sometimes(r, 0.6):
            keys['lora_r'] = pick(r, [1, 3], [0, 5000])
            keys['lora_target_modules'] = pick(r, [['q_proj'], ['all-linear'], ['mlp.up_proj', 'v_proj']], [['lm_head'], 'x'])
    if 'use_peft' not in keys and sometimes(r, 0.15) or sometimes(r, r.odd):
        keys['frozen_parameters'] = pick(r, [['layers.0.*' if 'hidden_sizes' in recipe['student'] else 'model.layers.[0-9].*'], ['*.0.*']],
                                         [['*'], ['nobody'], [''], 'x'])
    if sometimes(r, 0.1):
        keys['disable_dropout'] = sometimes(r, 0.5)
    if sometimes(r, 0.7 if 'eval_datasets' in recipe else r.odd):
        keys['eval_steps'] = 1
        keys['load_best_model_at_end'] = sometimes(r, 0.5)
        if sometimes(r, 0.5):
            keys['early_stopping_patience'] = pick(r, [1, 3], [0, -1])
        if sometimes(r, 0.5):
            keys['metric_for_best_model'] = r.choice(known['metrics'])
    return keys


# Texts that student and teachers write, and prompts of the teachers' own.
def random_writing(r, recipe):
    for e in recipe['datasets']:
        e['path'] = 'prompts.jsonl'
        e.pop('max_tokens', None)
        if sometimes(r, 0.2):
            e.update(path='text.txt', prompt_length=pick(r, [1, 3], [0, 60, -1]))
    if sometimes(r, 0.7):
        recipe['lmbda'] = pick(r, [1, 1, 0.5], [0, 1.5, -1, 'x'])
    if sometimes(r, 0.4):
        recipe['seq_kd'] = pick(r, [True], [False, 3])
        if sometimes(r, 0.3):
            recipe['seq_kd_ratio'] = pick(r, [0.5, 0], [2, -1])
    for key, good, odd in (('max_new_tokens', [1, 5], [0, -1]), ('generation_temperature', [0, 0.5, 2], [-1]),
                           ('top_p', [0.1, 0.9], [0, 2]), ('off_policy_steps', [1], [0]), ('lmbda_ramp_steps', [1, 3], [-1]),
                           ('log_completions', [True], [7])):
        if sometimes(r, 0.15):
            recipe[key] = pick(r, good, odd)
    for l in recipe['loss_functions']:
        if l['function'] == 'cross_entropy' or sometimes(r, 0.2):
            l['on'] = pick(r, ['given', 'given', 'dataset', 'student', 'teacher'], ['nobody', 1])
    for t in recipe.get('teachers', []):
        if sometimes(r, 0.3):
            t['teacher_prompt'] = pick(r, ['hint'], ['', 'absent', 3])


def random_recipe(r, url, known):
    r.odd = r.choice([0, 0, 0.03, 0.2])
    is_image = sometimes(r, 0.4)
    names = ['classes', 'classes2'] if is_image else ['small', 'wide']
    odd_names = ['small', 'classes', 'absent']
    recipe = dict(student=random_student(r, is_image))
    if not is_image or sometimes(r, r.odd):
        recipe['tokenizer'] = tokenizer
    recipe['datasets'] = [random_entry(r, is_image) for _ in range(r.choice([1, 1, 2]))]
    if sometimes(r, 0.3):
        recipe['eval_datasets'] = [random_entry(r, is_image)]
    if sometimes(r, 0.2):
        for e in recipe['datasets']:
            if not sometimes(r, r.odd):
                e['weight'] = pick(r, [1, 3, 0.25], [0, -1, 'x'])
    recipe['loss_functions'] = [random_loss(r, known['losses']) for _ in range(r.choice([1, 1, 2, 3]))]
    needed = any(l['function'] != 'cross_entropy' for l in recipe['loss_functions'])
    teachers = []
    for i in range(pick(r, [1, 1, 2, 2, 3] if needed else [0, 1], [0])):
        t = {'name': 't%d' % i, 'url': url, 'model': pick(r, names, odd_names)}
        if sometimes(r, 0.3):
            t['tags'] = r.choice([['x'], ['y'], ['x', 'y']])
        if sometimes(r, 0.3):
            t['weight'] = pick(r, [0.5, 2], [0, -1])
        if sometimes(r, 0.1):
            t['anneal'] = r.choice(['linear', 'cosine'])
            t[r.choice(['weight_end', 'weight_end', 'anneal_steps'])] = pick(r, [2, 3], [-1, 0])
        teachers.append(t)
    if teachers:
        recipe['teachers'] = teachers
    recipe['mixture'] = r.choice(known['mixtures'])
    reads = {'dynamic': ['by', 'temperature', 'per'], 'select': ['by', 'per']}
    for key in reads.get(recipe['mixture'], ['per'] if recipe['mixture'] in ('entropy', 'ca_mkd', 'aekd', 'random') else []):
        if sometimes(r, 0.5):
            recipe['mixture_' + key] = r.choice(
                {'by': ['ce', 'entropy', 'max_prob'], 'temperature': [0.01, 1, 3],
                 'per': ['sequence', 'batch' if recipe['mixture'] == 'random' else 'token']}[key])
    if sometimes(r, 0.6):
        recipe['targets'] = r.choice(known['targets'])
    if sometimes(r, 0.6):
        recipe['loss_top_k'] = pick(r, [1, 2, 3, 5, 16, 64], [5000, 0])
    if sometimes(r, 0.3):
        recipe['loss_add_tail'] = sometimes(r, 0.5)
    if sometimes(r, 0.4):
        recipe['temperature'] = pick(r, [0.5, 2, 4, 1], [0.001, 1e6])
    if sometimes(r, 0.3):
        recipe['fp16_targets'] = False
    if sometimes(r, 0.3):
        recipe['cache_dir'] = 'cache'
    if not is_image and sometimes(r, 0.2):  # the student writes
        recipe['lmbda'] = pick(r, [0.5, 1], [1.5, -1])
        recipe['max_new_tokens'] = pick(r, [4, 8], [0, 100000])
        for e in recipe['datasets']:
            if sometimes(r, 0.5):
                e['prompt_length'] = pick(r, [3, 5], [16, 64])
        for l in recipe['loss_functions']:
            if sometimes(r, 0.5) or (l['function'] == 'cross_entropy' and not sometimes(r, r.odd)):
                l['on'] = pick(r, ['given', 'student', 'dataset'] if l['function'] != 'cross_entropy' else ['given', 'dataset'],
                               ['teacher', 'nobody'])
        if teachers and sometimes(r, 0.2):
            teachers[0]['teacher_prompt'] = pick(r, ['hint'], ['absent', ''])
    recipe.update(max_steps=r.choice([1, 1, 1, 2]), max_length=pick(r, [8, 16, 16], [1, 64, 65, 4096]),
                  per_device_train_batch_size=r.choice([1, 2, 4]), gradient_accumulation_steps=r.choice([1, 1, 2]),
                  on_lost_teacher='stop', teacher_timeout=20, give_up_after=2)
    recipe.update(random_optimisation(r, recipe, known))
    if not is_image and sometimes(r, 0.25) or sometimes(r, r.odd / 4):
        random_writing(r, recipe)
    if not is_image and 'model' not in recipe['student'] and sometimes(r, 0.1):
        recipe['student']['attention_dropout'] = pick(r, [0.1, 0.5], [1, -1, 'x'])
    if sometimes(r, r.odd):  # something odd anywhere
        key = r.choice(known['keys'])
        value = r.choice([0, -1, 1e300, '', None, [], {}, True, 'x' * 300, 'no', 2**63 - 1, [1, 'a'], 0.5])
        if '.' not in key:
            recipe[key] = value
        elif key.count('.') == 1 and isinstance(recipe.get(key.split('.')[0]), dict):
            recipe[key.split('.')[0]][key.split('.')[1]] = value
    recipe['output_dir'] = 'run'
    return recipe


def choices(table, key):
    for line in table.splitlines():  # names that grow with other rooms' tables stand below
        if line.startswith(key + ': '):
            return line.split(': ')[1].replace(' ', '').split(',')
    for line in table.splitlines():
        if line.startswith('| `%s` |' % key):
            return [part for part in line.split('|')[3].split('`')[1::2]]
    fail('limbeck train --help-recipe says nothing of ' + key)


def clear(errors):
    """One line, or of a recipe with several mistakes a line for each, with its place."""
    placed = [l for l in errors if re.match(r'limbeck: (recipe\.yaml:\d+: |recipe.yaml: and \d+ more)', l)]
    return (len(errors) == 1 or 0 < len(errors) == len(placed) == len(set(errors))) and \
        all(len(l) > 20 and 'internal' not in l for l in errors)


def main():
    r = random.Random(a.seed)
    make_data(r)
    small = make_teacher('small', dict(llama), {'path': 'text.txt'}, tokenizer=tokenizer)
    wide = make_teacher('wide', dict(llama, hidden_size=48, num_attention_heads=3, num_key_value_heads=3,
                                     num_hidden_layers=3), {'path': 'text.txt'}, tokenizer=tokenizer)
    data = {'path': 'images-idx3-ubyte', 'type': 'idx', 'labels': 'labels-idx1-ubyte'}
    classes = make_teacher('classes', dict(mlp), data)
    classes2 = make_teacher('classes2', dict(mlp, hidden_sizes=[6]), data)
    url = host({'small': small, 'wide': wide, 'classes': classes, 'classes2': classes2})
    table = run([limbeck, 'train', '--help-recipe'], 'help.log')[1]
    known = dict(mixtures=choices(table, 'mixture'), targets=choices(table, 'targets'),
                 keys=[l.split('`')[1] for l in table.splitlines() if l.startswith('| `')],
                 losses=choices(table, 'loss_functions.N.function'), optims=choices(table, 'optim'),
                 schedules=choices(table, 'lr_scheduler_type'), metrics=choices(table, 'metric_for_best_model'))
    counts, refusals, bad = collections.Counter(), collections.Counter(), 0
    for i in range(a.n):
        shutil.rmtree('run', ignore_errors=True)
        recipe = random_recipe(random.Random(a.seed * 1000003 + i), url, known)
        write('recipe.yaml', recipe_text(recipe))
        status, said = run([limbeck, 'train', 'recipe.yaml'], 'said.log')
        errors = [l for l in said.splitlines() if l.startswith('limbeck: ')]
        if status == 0 and not errors:
            counts['made a step'] += 1
        elif status in (1, 2) and clear(errors):
            counts['refused'] += 1
            refusals[errors[0][:110]] += 1
        else:
            what = 'did not end' if status is None else 'status %s, %d lines' % (status, len(errors))
            bad += 1
            print('--- seed %d, recipe %d: %s' % (a.seed, i, what))
            print(recipe_text(recipe) + '\n'.join(said.splitlines()[-12:]))
            shutil.copy('recipe.yaml', 'bad-%d.yaml' % i)
        if daemons[0].poll() is not None:
            fail('limbeckd ended with status %s after recipe %d' % (daemons[0].returncode, i))
    print('%d recipes (seed %d): %d made a step, %d were refused in clear lines (%d kinds), %d bad'
          % (a.n, a.seed, counts['made a step'], counts['refused'], len(refusals), bad))
    if a.keep:
        for text, n in refusals.most_common(40):
            print(n, text)
    if counts['made a step'] < a.n // 12:
        fail('hardly any recipe made a step: they try nothing')
    return bad


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a time-out leaves no daemon and no folder
try:
    failed = main()
finally:
    for d in daemons:
        d.kill()
        d.wait()
    os.chdir('/')
    if not a.keep:
        shutil.rmtree(folder, ignore_errors=True)
sys.exit(1 if failed else 0)
