#!/usr/bin/env python3
"""A real vLLM beside limbeckd, with the same weights: limbeck learns from either, and either is asked the same in vLLM's dialect.

usage: vllm_beside.py BUILD VLLM [MODEL] [--record]
VLLM is vLLM's command (vllm.txt beside this file says how to install one that needs no GPU); where it is not there the whole is skipped.
MODEL is a folder with weights in safetensors (default: tests/golden/vllm/model). Four vLLMs are started in turn: stock, wide (what
one has to ask for), one with its second model runner, which alone scores chosen ids and needs Triton (here interpreted), and pooling. Every key of an answer is compared, numbers to 2e-5; what differs must stand in KNOWN, with the reason.
--record writes tests/golden/vllm/recorded.json, what vLLM says, for the tests that need no Python.
"""
import argparse
import array
import base64
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

import requests

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / 'golden' / 'vllm'
NAME = '/models/tiny'  # a path, as vllm serve names a model when nobody names it
TOLERANCE = 2e-5
IDS, MORE = [0, 259, 222, 68, 66, 85], [9, 9, 42]
WIDE = ['--enable-scale-out', '--enable-tokenizer-info-endpoint', '--max-logprobs', '-1']
POOLING = ['--runner', 'pooling', '--convert', 'embed', '--pooler-config', '{"task":"token_embed","use_activation":false}']


# ---- servers ----

class Server:
    def __init__(self, command, folder, name, ready, environment=None):
        self.log = pathlib.Path(folder) / f'{name}.log'
        self.process = subprocess.Popen(command, stdout=open(self.log, 'w'), stderr=subprocess.STDOUT, cwd=folder,
                                        env={**os.environ, **(environment or {})}, start_new_session=True)
        for _ in range(6000):
            if self.process.poll() is not None:
                sys.exit(f'{name} ended: {self.log.read_text()[-4000:]}')
            if ready():
                return
            time.sleep(0.1)
        sys.exit(f'{name} does not get ready: {self.log.read_text()[-4000:]}')

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def answers(url):
    try:
        return requests.get(url + '/health', timeout=5).status_code == 200
    except requests.exceptions.RequestException:
        return False


# Triton has no compiler for CPUs; its interpreter does, when vLLM is told that there is a driver.
INTERPRETED = '''from triton.backends import Backend, backends


class Driver:
    @staticmethod
    def is_active():
        return True


backends['cpu'] = Backend(compiler=None, driver=Driver)
'''


def start_vllm(vllm, model, folder, name, options, interpreted=False):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    url = f'http://127.0.0.1:{port}'
    environment = {'HF_HUB_OFFLINE': '1', 'VLLM_NO_USAGE_STATS': '1', 'VLLM_CPU_KVCACHE_SPACE': '1',
                   'VLLM_CPU_OMP_THREADS_BIND': 'nobind', 'OMP_NUM_THREADS': '2', 'CUDA_VISIBLE_DEVICES': ''}
    if interpreted:
        site = pathlib.Path(folder) / 'site'
        site.mkdir(exist_ok=True)
        (site / 'sitecustomize.py').write_text(INTERPRETED)
        environment |= {'PYTHONPATH': str(site), 'TRITON_INTERPRET': '1', 'VLLM_USE_V2_MODEL_RUNNER': '1'}
    command = [vllm, 'serve', str(model), '--host', '127.0.0.1', '--port', str(port), '--dtype', 'float32', '--enforce-eager',
               '--max-model-len', '128', '--served-model-name', NAME, *options]
    return Server(command, folder, name, lambda: answers(url), environment), url


def start_limbeckd(build, model, folder):
    port = pathlib.Path(folder) / 'port'
    server = Server([str(build / 'server' / 'limbeckd'), f'tiny={model}', '--listen=127.0.0.1:0', f'--port-file={port}'], folder,
                    'limbeckd', lambda: port.exists() and port.read_text().strip())
    return server, f'http://127.0.0.1:{port.read_text().strip()}'


# ---- what is asked ----

def complete(**keys):
    return '/v1/completions', {'model': NAME, 'max_tokens': 1, 'temperature': 0, **keys}


def generate(sampling, **keys):
    return '/inference/v1/generate', {'model': NAME, 'token_ids': IDS, 'sampling_params': {'max_tokens': 1, **sampling}, **keys}


def pool(**keys):
    return '/pooling', {'model': NAME, 'input': [IDS, MORE], 'use_activation': False, **keys}


ASKED = {
    'ids': complete(prompt=IDS),
    'lists of ids': complete(prompt=[IDS, MORE]),
    'text': complete(prompt='the cat sat'),
    'texts': complete(prompt=['the cat', 'in a man'], max_tokens=8),
    'no special tokens': complete(prompt='the cat sat', add_special_tokens=False, return_token_ids=True),
    'max_tokens 0': complete(prompt=IDS, max_tokens=0),
    'max_tokens 0, echo': complete(prompt=IDS, max_tokens=0, echo=True, logprobs=1),
    'max_tokens 8': complete(prompt=IDS, max_tokens=8, logprobs=1),
    'max_tokens by default': ('/v1/completions', {'model': NAME, 'prompt': IDS, 'temperature': 0}),
    'echo': complete(prompt=IDS, echo=True),
    'echo, a text': complete(prompt='the cat sat', max_tokens=2, echo=True, logprobs=0),
    'echo, logprobs 5': complete(prompt=IDS, echo=True, logprobs=5),
    'logprobs 0': complete(prompt=IDS, max_tokens=2, logprobs=0),
    'logprobs 20': complete(prompt=IDS, max_tokens=2, logprobs=20),
    'tokens as ids': complete(prompt=IDS, max_tokens=2, logprobs=3, echo=True, return_tokens_as_token_ids=True),
    'prompt_logprobs 0': complete(prompt=IDS, prompt_logprobs=0),
    'prompt_logprobs 1': complete(prompt=IDS, prompt_logprobs=1),
    'prompt_logprobs 5': complete(prompt=[IDS, MORE], prompt_logprobs=5),
    'prompt_logprobs 20': complete(prompt=IDS, prompt_logprobs=20),
    'prompt_logprobs -1': complete(prompt=IDS[:2], prompt_logprobs=-1),
    'prompt_logprobs of one token': complete(prompt=[7], prompt_logprobs=2),
    'return_token_ids': complete(prompt=[IDS], prompt_logprobs=1, return_token_ids=True),
    'stop': complete(prompt=IDS, max_tokens=24, stop=['Z']),
    'stop in the output': complete(prompt=IDS, max_tokens=24, stop='W', include_stop_str_in_output=True),
    'stop_token_ids': complete(prompt=IDS, max_tokens=24, stop_token_ids=list(range(20, 40)), return_token_ids=True),
    'ignore_eos': complete(prompt=IDS, max_tokens=24, ignore_eos=True, return_token_ids=True),
    'stream false': complete(prompt=IDS, stream=False),
    'seed, top_p, top_k': complete(prompt=IDS, seed=1, top_p=0.5, top_k=3),
    'keys that nobody knows': complete(prompt=IDS, no_such_key=1, user='x', request_id='abc', priority=0),
    'no model': ('/v1/completions', {'prompt': IDS, 'max_tokens': 1, 'temperature': 0}),
    'special tokens shown': complete(prompt=[0, 1], max_tokens=4, skip_special_tokens=False, ignore_eos=True, echo=True),
    'TRL': complete(prompt=[IDS, MORE], temperature=1, top_k=1, prompt_logprobs=1, seed=1),
    'lm-evaluation-harness': complete(prompt=[IDS], logprobs=1, seed=1234, echo=True),
    'Axolotl': ('/v1/completions', {'prompt': [IDS], 'echo': True, 'logprobs': True, 'prompt_logprobs': 4, 'top_logprobs': 4,
                                    'max_new_tokens': 0, 'temperature': 1, 'sampling_params': {'max_tokens': 0}}),
    'n 2': complete(prompt=IDS, n=2, temperature=1),
    'best_of': complete(prompt=IDS, best_of=2, temperature=1),
    'truncate_prompt_tokens': complete(prompt=IDS, truncate_prompt_tokens=3),
    'min_p': complete(prompt=IDS, min_p=0.1),
    'min_tokens': complete(prompt=IDS, max_tokens=4, min_tokens=2),
    'frequency_penalty': complete(prompt=IDS, frequency_penalty=0.5),
    'logit_bias': complete(prompt=IDS, logit_bias={'5': 100}),
    'suffix': complete(prompt=IDS, suffix='x'),
    'error: model': complete(model='nobody', prompt=IDS),
    'error: id': complete(prompt=[0, 272]),
    'error: id below 0': complete(prompt=[0, -1]),
    'error: prompt too long': complete(prompt=[5] * 150),
    'error: prompt and more too long': complete(prompt=[5] * 120, max_tokens=20),
    'error: no room for a token': complete(prompt=[5] * 128),
    'error: prompt_logprobs': complete(prompt=IDS, prompt_logprobs=100000),
    'error: prompt_logprobs -2': complete(prompt=IDS, prompt_logprobs=-2),
    'error: logprobs': complete(prompt=IDS, logprobs=100000),
    'error: max_tokens': complete(prompt=IDS, max_tokens='many'),
    'error: prompt': complete(prompt={'a': 1}),
    'error: temperature': complete(prompt=IDS, temperature='hot'),
    'error: temperature below 0': complete(prompt=IDS, temperature=-1),
    'error: top_p': complete(prompt=IDS, top_p=0),
    'error: empty text': complete(prompt=''),
    'error: no prompts': complete(prompt=[]),
    'error: an empty prompt': complete(prompt=[[]]),
    'error: no prompt': complete(),
    'error: no JSON': ('/v1/completions', '{"model": '),
    'error: a list': ('/v1/completions', [1, 2]),
    'error: GET': ('/v1/completions', None),
    'error: path': ('/v1/nothing', None),
    'generate': generate({'temperature': 0}),
    'generate, logprobs': generate({'temperature': 0, 'logprobs': 2}),
    'generate, prompt_logprobs': generate({'temperature': 0, 'prompt_logprobs': 1}),
    'generate, two tokens': generate({'temperature': 0, 'max_tokens': 2}),
    'generate, no sampling_params': ('/inference/v1/generate', {'model': NAME, 'token_ids': IDS}),
    'generate, error: model': generate({}, model='nobody'),
    'generate, error: id': generate({}, token_ids=[0, 272]),
    'tokenize': ('/tokenize', {'model': NAME, 'prompt': 'the cat'}),
    'tokenize, strings': ('/tokenize', {'model': NAME, 'prompt': 'the cat', 'return_token_strs': True, 'add_special_tokens': False}),
    'tokenize, messages': ('/tokenize', {'model': NAME, 'messages': [{'role': 'user', 'content': 'hi'}]}),
    'tokenize, nothing': ('/tokenize', {'model': NAME, 'prompt': ''}),
    'tokenize, error': ('/tokenize', {'model': NAME}),
    'detokenize': ('/detokenize', {'model': NAME, 'tokens': IDS}),
    'detokenize, error': ('/detokenize', {'model': NAME, 'tokens': [9999]}),
    'tokenizer_info': ('/tokenizer_info', None),
    'models': ('/v1/models', None),
    'version': ('/version', None),
    'health': ('/health', None),
    'ping': ('/ping', None),
}
CHOSEN = {
    'chosen ids': generate({'temperature': 0, 'prompt_logprob_start': 2, 'prompt_logprob_token_ids': [[5, 6], [7], [8, 9]]}),
    'chosen ids, all rows': generate({'temperature': 0, 'prompt_logprob_token_ids': [[i, i + 1, i + 2] for i in range(5)]}),
    'chosen ids, beside prompt_logprobs': generate({'temperature': 0, 'prompt_logprobs': 1, 'prompt_logprob_start': 3,
                                                    'prompt_logprob_token_ids': [[5], [6]]}),
    'chosen ids, error: rows': generate({'temperature': 0, 'prompt_logprob_token_ids': [[5], [6]]}),
    'chosen ids, error: id': generate({'temperature': 0, 'prompt_logprob_start': 4, 'prompt_logprob_token_ids': [[272]]}),
}
POOLED = {
    'pooling': pool(),
    'pooling, task': pool(task='token_embed'),
    'pooling, a text': pool(input='the cat'),
    'pooling, base64': pool(encoding_format='base64', embed_dtype='float32'),
    'pooling, bytes': pool(encoding_format='bytes', embed_dtype='float16', endianness='little', add_special_tokens=False),
    'pooling, bytes float32': pool(encoding_format='bytes', embed_dtype='float32'),
    'pooling, bytes_only': pool(encoding_format='bytes_only', embed_dtype='bfloat16'),
    'pooling, normalised': pool(use_activation=True),
    'pooling, normalize': pool(normalize=False),
    'pooling, error: encoding_format': pool(encoding_format='x'),
    'pooling, error: model': pool(model='nobody'),
    'pooling, error: id': pool(input=[[272]]),
    'embeddings': ('/v1/embeddings', {'model': NAME, 'input': [IDS]}),
}

NOT_RECORDED = ('prompt_logprobs -1', 'pooling', 'pooling, task', 'pooling, base64', 'chosen ids', 'chosen ids, all rows',
                'chosen ids, beside prompt_logprobs')  # long, or text that stands for numbers

# What differs, and why it stays: question, place in the answer, reason.
REFUSED = 'what would change the answer and is not computed is refused by its name'
KNOWN = [
    ('.*', r'/(id|created|model|request_id|system_fingerprint)', 'names and times'),
    ('.*', r'.*/null', 'keys whose value is null always are left out: clients read them as absent'),
    ('.*', r'.*/(prompt_tokens_details|completion_tokens_details)', 'null, of caches that an answer here does not depend on'),
    ('.*', r'.*/order', 'the order of keys: lists of ids come by rank, vLLM puts the token itself first; no reader may rely on either'),
    ('.*', r'.*/decoded_token', "an id that is no whole character: the replacement character, vLLM says ''"),
    ('.*', r'/choices/\d+/(text|logprobs/tokens/\d+|logprobs/text_offset/\d+)',
     'what is no whole character stands as the replacement character, as in tokens; vLLM leaves it out at the end of a text'),
    ('.*', r'/choices/\d+/logprobs/top_logprobs/\d+/.*', 'ids with one text: the likeliest counts, with vLLM the last'),
    ('.*echo.*|tokens as ids|lm-.*', r'/choices/\d+/prompt_logprobs', 'vLLM adds them to echo with logprobs, unasked'),
    ('max_tokens 0', r'.*', 'nothing is generated where nothing is asked for; vLLM wants 1 at least'),
    ('max_tokens 0, echo', r'/usage/.*', 'as asked, nothing is generated; vLLM generates one and hides it'),
    ('Axolotl', r'.*', 'max_new_tokens 0 and sampling_params are heeded; vLLM ignores both and goes on for 16 tokens'),
    ('n 2|best_of|truncate_prompt_tokens|min_p|min_tokens|frequency_penalty|logit_bias', r'.*', REFUSED),
    ('error: prompt and more too long', r'.*', 'refused; vLLM generates less than was asked for'),
    ('error: no room for a token', r'.*', 'the last token is generated; nothing needs its place'),
    ('error: prompt_logprobs|error: logprobs', r'.*/(message|code|status)', 'a limit of its own'),
    ('.*error.*|suffix|.*, no sampling_params|pooling, normalize', r'/error/(message|type|param)',
     'words of its own; the key is named without "body."'),
    ('error: (GET|path)', r'.*', 'one form of errors, also for paths'),
    ('(generate|chosen).*', r'/choices/\d+/(weight_versions|logprobs/content/.*/(token|bytes))', 'names from before vLLM 0.32 beside; one version'),
    ('(generate|chosen).*', r'/output_mode', 'there is one mode'),
    ('generate, two tokens', r'.*', REFUSED),
    ('detokenize, error', r'.*', 'an id that is none is refused'),
    ('tokenizer_info', r'.*', 'the tokenizer_config.json as it is'),
    ('models', r'/data/\d+/.*', 'names'),
    ('version|health|ping', r'.*', 'words of its own; /health has a body; /ping is SageMaker\'s'),
    ('pooling.*', r'metadata/(id|created|model|data/\d+/endianness)', 'names; the bytes are little-endian either way'),
    ('pooling.*', r'/usage/completion_tokens', '0 always'),
    ('pooling, normalised', r'.*', REFUSED),
    ('embeddings', r'.*', 'neither has embeddings of a decoder; 501 there, 400 here'),
]


# ---- comparing ----

class Answer:
    def __init__(self, url, asked, name):
        path, body = asked
        if isinstance(body, dict) and body.get('model') == NAME:
            body = {**body, 'model': name}
        if body is None:
            reply = requests.get(url + path, timeout=300)
        elif isinstance(body, str):
            reply = requests.post(url + path, data=body, headers={'Content-Type': 'application/json'}, timeout=300)
        else:
            reply = requests.post(url + path, json=body, timeout=300)
        self.status, self.content = reply.status_code, reply.content
        self.metadata = json.loads(reply.headers['metadata']) if 'metadata' in reply.headers else None
        self.json = json.loads(reply.content) if 'json' in reply.headers.get('Content-Type', '') else None


def near(a, b):
    return a == b or abs(a - b) <= TOLERANCE * max(1, abs(a))


def differences(theirs, ours, at):
    """(place, theirs, ours) of each; largest is kept in differences.far."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs:
            if key not in ours:
                yield f'{at}/{key}' + ('/null' if theirs[key] is None else ''), theirs[key], 'absent'
            else:
                yield from differences(theirs[key], ours[key], f'{at}/{key}')
        for key in ours:
            if key not in theirs:
                yield f'{at}/{key}', 'absent', ours[key]
        if [k for k in theirs if k in ours] != [k for k in ours if k in theirs]:
            yield f'{at}/order', list(theirs), list(ours)
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield at, f'{len(theirs)} entries', f'{len(ours)} entries'
        for i, (a, b) in enumerate(zip(theirs, ours)):
            yield from differences(a, b, f'{at}/{i}')
    elif isinstance(theirs, float) and isinstance(ours, float):
        differences.far = max(differences.far, abs(theirs - ours)) if near(theirs, ours) and theirs != ours else differences.far
        if not near(theirs, ours):
            yield at, theirs, ours
    elif re.fullmatch(r'/data/\d+/data', at) and isinstance(theirs, str):
        yield from differences(list(array.array('f', base64.b64decode(theirs))), list(array.array('f', base64.b64decode(ours))), at)
    elif at == '/prompt_token_id_logprobs' and isinstance(theirs, str) and isinstance(ours, str):
        a, b = base64.b64decode(theirs), base64.b64decode(ours)  # .npy files
        if a[:128] != b[:128] or len(a) != len(b):
            yield at, a[:128], b[:128]
        else:
            yield from differences(list(array.array('f', a[128:])), list(array.array('f', b[128:])), at)
    elif theirs != ours or type(theirs) is not type(ours):
        yield at, theirs, ours


differences.far = 0.0


def compare(theirs, ours):
    if theirs.status != ours.status:
        yield 'status', theirs.status, ours.status
    if (theirs.json is None) != (ours.json is None):
        yield 'body', theirs.content[:60], ours.content[:60]
    elif theirs.json is not None:
        yield from differences(theirs.json, ours.json, '')
    elif len(theirs.content) != len(ours.content):
        yield 'bytes', len(theirs.content), len(ours.content)
    elif (theirs.metadata or {}).get('data', [{}])[0].get('embed_dtype') == 'float32':
        yield from differences(list(array.array('f', theirs.content)), list(array.array('f', ours.content)), 'bytes')
    if (theirs.metadata is None) != (ours.metadata is None):
        yield 'metadata', theirs.metadata, ours.metadata
    elif theirs.metadata is not None:
        yield from differences(theirs.metadata, ours.metadata, 'metadata')


def reason_for(name, place):
    return next((why for asked, where, why in KNOWN if re.fullmatch(asked, name) and re.fullmatch(where, place)), None)


def number(why):
    """What a reason is called in the table."""
    return '!' if why is None else str(1 + [reason for _, _, reason in KNOWN].index(why))


ANY = '*'  # in a recorded list: whatever stands there


def prune(value, places, at=''):
    """Without what differs: all that is left is found in limbeckd's answer."""
    if isinstance(value, dict):
        return {k: prune(v, places, f'{at}/{k}') for k, v in value.items() if f'{at}/{k}' not in places and v is not None
                and not re.fullmatch(KNOWN[0][1], f'{at}/{k}')}
    if isinstance(value, list):
        return [ANY if f'{at}/{i}' in places else prune(v, places, f'{at}/{i}') for i, v in enumerate(value)]
    return value


class Table:
    def __init__(self):
        self.same = self.known = 0
        self.unknown, self.reasons, self.recorded = [], {}, []

    def ask(self, url, own, questions):
        for name, asked in questions.items():
            theirs, ours = Answer(url, asked, NAME), Answer(own, asked, 'tiny')
            found = list(compare(theirs, ours))
            whys = {place: reason_for(name, place) for place, _, _ in found}
            for place, a, b in found:
                if whys[place] is None:
                    self.unknown.append(f'{name}: {place}: {str(a)[:150]} there, {str(b)[:150]} here')
                else:
                    self.reasons.setdefault(whys[place], set()).add(name)
            real = {why for place, why in whys.items() if not re.fullmatch(KNOWN[0][1] + '|.*/null|.*/order', place)}
            self.same += not real
            self.known += bool(real)
            print(f'  {name:36} {theirs.status} {ours.status}  ' + (' '.join(sorted(map(number, real), key=lambda n: n.zfill(2))) or 'same'))
            if not any('/' not in place or why == REFUSED for place, why in whys.items()) and theirs.json is not None and name not in NOT_RECORDED:
                self.recorded.append({'name': name, 'path': asked[0], 'request': asked[1], 'status': theirs.status,
                                      'answer': prune(theirs.json, set(whys))})


# ---- limbeck learns from it ----

def run(build, *arguments):
    command = [str(build / 'trainer' / 'limbeck'), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f'FAILED: {" ".join(command)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}')
    return done.stdout


def losses(build, folder, model, name, teacher, more):
    texts = pathlib.Path(folder) / 'texts'
    if not texts.exists():
        texts.write_text(''.join(f'the man in a hat {i} then thin ink {i * 7 % 13} and an ant\n' for i in range(120)))
    recipe = pathlib.Path(folder) / f'{name}.yaml'
    recipe.write_text(f'''output_dir: {folder}/{name}
datasets: [{{path: {texts}}}]
tokenizer: {model}
max_length: 48
student: {{model_type: llama, hidden_size: 24, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
  max_position_embeddings: 64}}
teachers: [{{name: t, {teacher}}}]
fp16_targets: false
loss_functions: [{{function: kl}}]
per_device_train_batch_size: 4
learning_rate: 4.0e-3
max_steps: 20
logging_steps: 1
seed: 5
{more}
''')
    run(build, 'train', recipe)
    lines = (json.loads(line) for line in open(f'{folder}/{name}/metrics.jsonl'))
    return [line['loss'] for line in lines if line.get('loss') is not None]


def learn(build, folder, model, label, own, teacher, more):
    a = losses(build, folder, model, f'{label}-oip', f'url: "{own}"', more)
    b = losses(build, folder, model, label, f'{teacher}, head: {model}, tokenizer: {model}', more)
    far = max(abs(x - y) for x, y in zip(a, b))
    print(f'  {label:36} {len(b)} steps, loss {b[0]:.4f} to {b[-1]:.4f}, at most {far:.1e} from oip')
    if len(a) != 20 or len(b) != 20 or far > 2e-4 or b[-1] >= b[0]:
        sys.exit(f'FAILED: {label}: {a} {b}')


def probe(build, url, label, ladder):
    told = json.loads(run(build, 'probe', '--json', url))['teachers'][0]
    print(f'  {label:36} gives {", ".join(told["ladder"])}; most top_k {told["most_top_k"]}; {told["kernels"] or "not told how it computes"}')
    if told['ladder'] != ladder or not told['answers']:
        sys.exit(f'FAILED: {label}: {told}')


# ---- recording what limbeck's adapter is told ----

class Recorder:
    """A proxy that keeps what goes through it."""

    def __init__(self, target):
        kept = self.kept = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def forward(self):
                body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
                reply = requests.request(self.command, target + self.path, data=body or None, timeout=300,
                                         headers={'Content-Type': 'application/json'})
                said = {'method': self.command, 'path': self.path, 'request': body.decode(), 'status': reply.status_code}
                if 'metadata' in reply.headers:
                    said |= {'metadata': reply.headers['metadata'], 'base64': base64.b64encode(reply.content).decode()}
                else:
                    said['body'] = reply.content.decode()
                if said not in kept:
                    kept.append(said)
                self.send_response(reply.status_code)
                for key, value in (('Content-Length', str(len(reply.content))), ('metadata', reply.headers.get('metadata'))):
                    if value is not None:
                        self.send_header(key, value)
                self.end_headers()
                self.wfile.write(reply.content)

            do_GET = do_POST = forward

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def record(build, variable, url):
    recorder = Recorder(url)
    root = HERE.parent.parent
    environment = {**os.environ, 'LB_SOURCE_ROOT': str(root), 'LB_BUILD_ROOT': str(build), variable: recorder.url}
    subprocess.run([str(build / 'tests' / 'e2e' / 'test_e2e_recorded')], check=True, env=environment)
    return recorder.kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('build', type=pathlib.Path)
    parser.add_argument('vllm')
    parser.add_argument('model', nargs='?', type=pathlib.Path, default=GOLDEN / 'model')
    parser.add_argument('--record', action='store_true')
    a = parser.parse_args()
    build, model = a.build.resolve(), a.model.resolve()
    if not os.access(a.vllm, os.X_OK):
        print(f'skipped: a real vLLM beside limbeckd: there is no {a.vllm} (tests/interop/vllm.txt)')
        return
    table, kept = Table(), {}
    with tempfile.TemporaryDirectory(prefix='limbeck-vllm-') as folder:
        daemon, own = start_limbeckd(build, model, folder)
        server, url = start_vllm(a.vllm, model, folder, 'stock', [])
        print('stock vLLM, limbeck is its client')
        probe(build, url, 'stock', ['own token', 'top-20'])
        learn(build, folder, model, 'vllm, lists of 20', own, f'url: "{url}", protocol: vllm', 'targets: topk\nloss_top_k: 20')
        if a.record:
            kept['stock'] = record(build, 'LB_VLLM_STOCK', url)
        server.stop()
        server, url = start_vllm(a.vllm, model, folder, 'wide', WIDE)
        print('vLLM with ' + ' '.join(WIDE))
        probe(build, url, 'wide', ['own token', 'top-20', 'top-k'])
        learn(build, folder, model, 'vllm, lists of 100', own, f'url: "{url}", protocol: vllm', 'targets: topk\nloss_top_k: 100')
        learn(build, folder, model, 'openai, lists of 5', own, f'url: "{url}", protocol: openai', 'targets: topk\nloss_top_k: 5')
        print('the same questions to it and to limbeckd')
        table.ask(url, own, ASKED)
        server.stop()
        server, url = start_vllm(a.vllm, model, folder, 'chosen', WIDE[:1], interpreted=True)
        print('vLLM with its second model runner')
        probe(build, url, 'second runner', ['own token', 'top-20', 'chosen ids'])
        table.ask(url, own, CHOSEN)
        if a.record:
            kept['chosen'] = record(build, 'LB_VLLM_CHOSEN', url)
        server.stop()
        server, url = start_vllm(a.vllm, model, folder, 'pooling', POOLING)
        print('vLLM that pools')
        probe(build, url, 'pooling', ['final state'])
        learn(build, folder, model, 'vllm, final states', own, f'url: "{url}", protocol: vllm', 'targets: final_hidden')
        table.ask(url, own, POOLED)
        if a.record:
            kept['pooling'] = record(build, 'LB_VLLM_POOLING', url)
        server.stop()
        daemon.stop()
    print('what differs, and why it stays')
    for _, _, why in KNOWN:
        if why in table.reasons:
            print(f'  {number(why):>2} {len(table.reasons.pop(why)):3} answers: {why}')
    print(f'{table.same} answers the same, {table.known} that differ as is known, {len(table.unknown)} differences that are not; numbers at most '
          f'{differences.far:.1e} apart')
    if a.record:
        out = {'facade': table.recorded, **kept}
        text = json.dumps(out, ensure_ascii=False, separators=(',', ':')).replace(str(model), '/models/model')
        (GOLDEN / 'recorded.json').write_text(text + '\n')
    if table.unknown:
        sys.exit('FAILED: ' + '\nFAILED: '.join(table.unknown))


if __name__ == '__main__':
    main()
