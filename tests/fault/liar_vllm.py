#!/usr/bin/env python3
"""The real trainer, asking by protocol: vllm, and a real daemon with a proxy between that lies as only a server without
digests can: told once, the run's student has exactly the bits of an honest run; told for ever, the run ends in one clear
line that says what is wrong. And servers that have less than limbeckd.

    liar_vllm.py BUILD [NAME...]    NAME: only these lies; servers: only what servers have less
"""
import http.client
import http.server
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import children

build = os.path.abspath(sys.argv[1])
only = sys.argv[2:]
limbeck = os.path.join(build, 'trainer', 'limbeck')
limbeckd = os.path.join(build, 'server', 'limbeckd')
source = os.environ.get('LB_SOURCE_ROOT') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
tokenizer = os.path.join(source, 'examples', 'wordnet', 'tokenizer.json')
folder = tempfile.mkdtemp(prefix='limbeck-liar-', dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None)
environment = dict(os.environ, OMP_WAIT_POLICY='passive', OMP_NUM_THREADS='1', TMPDIR=folder)
os.chdir(folder)

student = '''student: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
  num_key_value_heads: 1, max_position_embeddings: 32}
tokenizer: %s
max_length: 16
per_device_train_batch_size: 4
learning_rate: 0.01
max_steps: 4
logging_steps: 1
seed: 3
''' % tokenizer


# ---- lies: what is done to the answer's JSON, or to its header and body, and what the line says then ----

def entries(told):
    """The first text's entries that say something."""
    return told['choices'][0]['prompt_logprobs']


def each(what):
    """Of each entry of the first text, in place: what(i, entry, ids)."""
    def lie(told):
        ids = told['choices'][0]['prompt_token_ids']
        for i, entry in enumerate(entries(told)[1:], 1):
            what(i, entry, ids)
    return lie


def first_key(entry):
    return next(iter(entry))


def shift(told):
    del entries(told)[1]
    entries(told).append(entries(told)[-1])


def swap(told):
    a, b = told['choices'][0], told['choices'][1]
    a['index'], b['index'] = b['index'], a['index']


def swap_quietly(told):
    a, b = told['choices'][0], told['choices'][1]
    a['prompt_logprobs'], b['prompt_logprobs'] = b['prompt_logprobs'], a['prompt_logprobs']


def another_model(told):
    for entry in told['choices'][-1]['prompt_logprobs'][1:]:
        for value in entry.values():
            value['logprob'] -= 1


def set_all(key, value):
    def lie(i, entry, ids):
        for v in entry.values():
            v[key] = value(v[key])
    return each(lie)


def drop_own(i, entry, ids):
    if len(entry) > 1:
        entry.pop(str(ids[i]), None)


# name: (what is done to the JSON, what the line says)
scores = {
    'no choices': (lambda told: told.pop('choices'), 'choices'),
    'a choice less': (lambda told: told['choices'].pop(), 'choices'),
    'swapped indexes': (swap, 'other prompts|prompt_logprobs of choice|listed'),
    'swapped lists': (swap_quietly, 'entries, the prompt|listed'),
    'another question': (lambda told: told['choices'][0]['prompt_token_ids'].__setitem__(0, 1), 'other prompts'),
    'no list': (lambda told: told['choices'][0].pop('prompt_logprobs', None), 'no prompt_logprobs'),
    'an entry less': (lambda told: entries(told).pop(), 'entries, the prompt'),
    'the first is not null': (lambda told: entries(told).__setitem__(0, {}), 'not null'),
    'one position later': (shift, 'listed'),
    'fewer ids': (each(lambda i, entry, ids: [entry.popitem() for _ in range(3) if len(entry) > 3]), 'listed'),
    'own token missing': (each(drop_own), 'listed'),
    'logits': (set_all('logprob', lambda x: x + 20), 'logits'),
    'probabilities too large': (set_all('logprob', lambda x: min(x + 8, 0)), 'sum up to'),
    'NaN': (set_all('logprob', lambda x: math.nan), ''),
    'texts for numbers': (set_all('logprob', str), 'no logprob that is a number'),
    'null for a number': (set_all('logprob', lambda x: None), 'no logprob that is a number'),
    'ids beyond the vocabulary': (each(lambda i, entry, ids: entry.__setitem__('99999', entry.pop(first_key(entry)))),
                                  'the vocabulary ends at|not among those listed'),
    'ids that are none': (each(lambda i, entry, ids: entry.__setitem__('x', entry.pop(first_key(entry)))), 'no token id'),
    'another model': (another_model, 'another model answers now'),
}


def meta(what):
    def lie(header, body):
        told = json.loads(header)
        what(told)
        return json.dumps(told), body
    return lie


def normalised(header, body):
    """As vLLM does unless it is told not to."""
    told, out = json.loads(header), bytearray()
    for entry in told['data']:
        rows, width = entry['shape']
        code = 'e' if entry['embed_dtype'] == 'float16' else 'f'
        numbers = struct.unpack('<%d%s' % (rows * width, code), body[entry['start']:entry['end']])
        for r in range(rows):
            row = numbers[r * width:(r + 1) * width]
            norm = math.sqrt(sum(x * x for x in row))
            out += struct.pack('<%d%s' % (width, code), *(x / norm for x in row))
    return header, bytes(out)


states = {
    'no header': (lambda header, body: (None, body), 'no header metadata'),
    'a header that is no JSON': (lambda header, body: (header[:-2], body), 'metadata'),
    'cut': (lambda header, body: (header, body[:-6]), 'bytes'),
    'longer': (lambda header, body: (header, body + b'123456'), 'bytes, its metadata tell'),
    'an input less': (meta(lambda told: told['data'].pop()), 'inputs'),
    'swapped inputs': (meta(lambda told: told['data'].reverse()), 'is input'),
    'sentences': (meta(lambda told: [e.update(shape=e['shape'][1:]) for e in told['data']]), 'one vector a text'),
    'another width': (meta(lambda told: [e.update(shape=[e['shape'][0], e['shape'][1] + 1]) for e in told['data']]), 'shape'),
    'another type': (meta(lambda told: [e.update(embed_dtype='float64') for e in told['data']]), 'float64'),
    'NaN': (lambda header, body: (header, b'\xff' * 64 + body[64:]), 'not finite'),
    'normalised': (normalised, 'another model answers now'),
}


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True  # the header and the body are two writes: 40 ms an answer otherwise
    upstream, lie, left, told, spare = None, None, 0, 0, 0
    lock = threading.Condition()
    busy = 0   # connections; some outlive the run that asked
    gone = ()  # paths that this server has not

    def log_message(self, *args):
        pass

    def setup(self):
        with Proxy.lock:
            Proxy.busy += 1
        super().setup()

    def finish(self):
        try:
            super().finish()
        finally:
            with Proxy.lock:
                Proxy.busy -= 1
                Proxy.lock.notify_all()

    def do_GET(self):
        self.answer(b'')

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get('Content-Length', 0))))

    def answer(self, body):
        if self.path in Proxy.gone:
            self.send_response(404)
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        try:
            connection = http.client.HTTPConnection('127.0.0.1', Proxy.upstream, timeout=60)
            connection.request(self.command, self.path, body, {'Content-Type': 'application/json'})
            got = connection.getresponse()
            out, header = got.read(), got.getheader('metadata')
            connection.close()
        except OSError as error:
            raise RuntimeError('limbeckd gave no answer') from error  # else it would pass for a trainer that hung up
        status = got.status
        if status == 200 and self.path in ('/v1/completions', '/pooling'):
            status, header, out = self.perhaps(status, header, out)
        self.send_response(status)
        for name, value in got.getheaders():
            if name.lower() not in ('content-length', 'connection', 'date', 'server', 'metadata'):
                self.send_header(name, value)
        if header is not None:
            self.send_header('metadata', header)
        self.send_header('Content-Length', str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def perhaps(self, status, header, out):
        with Proxy.lock:
            if Proxy.spare > 0:
                Proxy.spare -= 1
                return status, header, out
            if Proxy.left == 0 or Proxy.lie is None:
                return status, header, out
            Proxy.left -= 1
            Proxy.told += 1
            lie = Proxy.lie
        return lie(status, header, out, self.path)


def of_scores(what):
    def lie(status, header, out, path):
        if path != '/v1/completions':
            return status, header, out
        told = json.loads(out)
        what(told)
        return status, header, json.dumps(told).encode()
    return lie


def of_states(what):
    def lie(status, header, out, path):
        header, out = what(header, out)
        return status, header, out
    return lie


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # such is a trainer that has read enough
            traceback.print_exc()


# Whatever the answer is about.
any_answer = {
    'half of it': (lambda s, h, out, p: (s, h, out[:len(out) // 2]), ''),
    'nothing': (lambda s, h, out, p: (s, h, b''), ''),
    'a page of HTML': (lambda s, h, out, p: (s, h, b'<html>busy</html>'), ''),
    '400': (lambda s, h, out, p: (400, None, b'{"error":{"message":"no such thing"}}'), 'no such thing'),
    '500': (lambda s, h, out, p: (500, None, b'{"error":{"message":"it broke"}}'), 'it broke'),
}


# Of a teacher whose lie has no end. Elsewhere a try more costs nothing, and a busy machine has time for it.
soon = ('--set', 'give_up_after=0.3')


def run(name, recipe, *more):
    if '--resume' not in more:
        shutil.rmtree(name, ignore_errors=True)
    p = subprocess.run([limbeck, 'train', recipe, '--output-dir', name] + list(more), env=environment, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, timeout=120)
    with Proxy.lock:
        assert Proxy.lock.wait_for(lambda: Proxy.busy == 0, 60)
    return p.returncode, p.stdout.decode(errors='replace')


def weights(name):
    with open(os.path.join(name, 'student', 'model.safetensors'), 'rb') as f:
        return f.read()


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


def fits(line, words):
    return any(word in line for word in words.split('|'))


def try_lie(lane, name, lie, words, honest, first):
    """first: the answers at the start, which are about the fixed question, are honest."""
    wrong = []
    Proxy.lie, Proxy.left, Proxy.told, Proxy.spare = lie, 1, 0, first
    status, text = run('once', lane + '.yaml')
    if Proxy.told != 1:
        wrong.append('it was never told')
    elif name != '400' and (status != 0 or weights('once') != honest):
        wrong.append('told once: status %s\n%s' % (status, text[-600:]))
    Proxy.lie, Proxy.left, Proxy.told, Proxy.spare = lie, -1, 0, first
    status, text = run('always', lane + '.yaml', *soon)
    lines = [line for line in text.splitlines() if line.startswith('limbeck: ')]
    if status != 1 or len(lines) != 1 or not fits(lines[0], words) or 'teacher t' not in lines[0]:
        wrong.append('told for ever: status %s\n%s' % (status, text[-600:]))
    Proxy.lie = None
    return wrong


def only_pools(honest):
    """A stock vLLM either scores or pools."""
    wrong = []
    Proxy.gone = ('/v1/completions', '/inference/v1/generate')
    status, text = run('pools', 'states.yaml')
    if status != 0 or 'head_not_compared' not in text or weights('pools') != honest:
        wrong.append('only pools: status %s\n%s' % (status, text[-600:]))
    Proxy.lie, Proxy.left, Proxy.spare = of_states(normalised), -1, 0
    status, text = run('pools', 'states.yaml', *soon)
    if status != 1 or 'all have length 1' not in text or 'use_activation' not in text:
        wrong.append('only pools, normalised: status %s\n%s' % (status, text[-600:]))
    Proxy.lie = None
    status, text = run('pools', 'scores.yaml')
    if status != 1 or 'Of the ladder' not in text or 'it has final state; this needs top-k' not in text:
        wrong.append('lists of one that pools: status %s\n%s' % (status, text[-600:]))
    Proxy.gone = ('/v1/completions', '/inference/v1/generate', '/pooling')
    status, text = run('pools', 'scores.yaml')
    if status != 1 or 'scores no prompts' not in text:
        wrong.append('one that gives nothing: status %s\n%s' % (status, text[-600:]))
    Proxy.gone = ('/v1/completions', '/inference/v1/generate', '/tokenize', '/version', '/tokenizer_info')
    status, text = run('pools', 'states.yaml')
    if status != 0 or 'tokenizer_not_compared' not in text or weights('pools') != honest:
        wrong.append('one that says little: status %s\n%s' % (status, text[-600:]))
    Proxy.gone = ()
    for line in wrong:
        print(line)
    return len(wrong)


def nudge(told):
    """As a server rounds otherwise at another time: the fixed question's answers, a little."""
    for entry in told['choices'][-1]['prompt_logprobs'][1:]:
        for value in entry.values():
            value['logprob'] -= 0.01


def resumes():
    """A run without a cache that was cut off goes on with the same teacher, though that rounds otherwise."""
    with open('scores.yaml') as f:
        write('long.yaml', f.read().replace('max_steps: 4', 'max_steps: 40\nsave_steps: 1'))
    status, text = run('whole', 'long.yaml')
    Proxy.lie, Proxy.left, Proxy.spare = any_answer['400'][0], -1, 12
    cut, text = run('cut', 'long.yaml')
    steps = [name for name in os.listdir('cut') if name.startswith('checkpoint-')]
    Proxy.lie, Proxy.spare = of_scores(nudge), 0
    again, more = run('cut', 'long.yaml', '--resume')
    Proxy.lie = None
    if status != 0 or cut != 1 or not steps or again != 0 or weights('cut') != weights('whole'):
        print('resumed: status %s, %s, %s, %s\n%s\n%s' % (status, cut, steps, again, text[-400:], more[-600:]))
        return 1
    return 0


def main():
    rows = ['a %s bird that can sing %s' % (x, y) for x in ('small', 'red', 'old', 'big') for y in ('well', 'often', 'now')]
    write('train.txt', '\n'.join(rows * 3) + '\n')
    write('teacher.yaml', student + 'datasets: [{path: train.txt}]\nloss_functions: [{function: cross_entropy}]\n')
    status, text = run('teacher', 'teacher.yaml')
    assert status == 0, text
    daemon = subprocess.Popen([limbeckd, 't=teacher/student', '--listen', '127.0.0.1:0', '--port-file', 'port'], env=environment,
                              stderr=open('limbeckd.log', 'wb'), preexec_fn=children.die_with_parent)
    until = time.time() + 60
    while not os.path.exists('port') or not open('port').read():
        assert time.time() < until and daemon.poll() is None, open('limbeckd.log').read()
        time.sleep(0.02)
    Proxy.upstream = int(open('port').read())
    server = Server(('127.0.0.1', 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lanes = {'scores': ('targets: topk\nloss_top_k: 8\n', ''),
             'states': ('targets: final_hidden\n', ', head: teacher/student')}
    bad = told = 0
    kept = {}
    for lane, (target, head) in lanes.items():
        write(lane + '.yaml', student + target +
              'datasets: [{path: train.txt}]\nloss_functions: [{function: kl}]\nteacher_timeout: 5\ngive_up_after: 60\n'
              'on_lost_teacher: stop\nteachers: [{name: t, url: "http://127.0.0.1:%d", protocol: vllm%s}]\n'
              % (server.server_port, head))
        status, text = run('honest', lane + '.yaml')
        assert status == 0, text
        honest = kept[lane] = weights('honest')
        lies = dict(any_answer)
        lies.update({k: (of_scores(f), w) for k, (f, w) in scores.items()} if lane == 'scores' else
                    {k: (of_states(f), w) for k, (f, w) in states.items()})
        # At the start: the fixed question by both ways, and once more by states where they are held against the head.
        first = 2 if lane == 'scores' else 3
        for name, (lie, words) in lies.items():
            if only and name not in only:
                continue
            wrong = try_lie(lane, name, lie, words, honest, first)
            told += 1
            bad += bool(wrong)
            for line in wrong:
                print('%s, %s: %s' % (lane, name, line))
    if not only or only == ['servers']:
        bad += only_pools(kept['states']) + resumes()
    daemon.terminate()
    daemon.wait()
    print('%d lies, %d were believed or not told clearly' % (told, bad))
    return 1 if bad else 0


try:
    code = main()
finally:
    os.chdir('/')
    shutil.rmtree(folder, ignore_errors=True)
sys.exit(code)
