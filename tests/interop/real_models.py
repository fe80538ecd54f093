#!/usr/bin/env python3
"""A real GGUF model in limbeckd against transformers on the same, widened weights, and, for the record, against llama.cpp.

usage: real_models.py BUILD TEXT MODEL.gguf...     (needs requirements.txt beside this file, and accelerate)
2,000 tokens of TEXT as the model's own tokenizer cuts them, in rows of 250 that begin as it says: the largest difference of
log-probabilities over the whole vocabulary (where a row's is too large, from transformers in FP64: rounding grows in some rows),
the mean KL, bits per byte, the daemon's memory and the time from its start to its first answer, the first time and again. Exit
status 0 only when the differences are below 0.005 and 1e-5.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import llama_cpp
import numpy
import torch
import transformers

TOKENS, ROW = 2000, 250
LOG_PROBABILITY, KL = 0.005, 1e-5


class Daemon:
    """limbeckd with one model; seconds: from its start to the answer to a question of one row."""

    def __init__(self, limbeckd, model, cache, ids):
        self.folder = tempfile.TemporaryDirectory(prefix='limbeck-real-')
        port = pathlib.Path(self.folder.name) / 'port'
        began = time.monotonic()
        with open(pathlib.Path(self.folder.name) / 'log', 'w') as log:
            self.process = subprocess.Popen([limbeckd, f'm={model}', '--listen=127.0.0.1:0', f'--port-file={port}'],
                                            stderr=log, env=dict(os.environ, XDG_CACHE_HOME=cache))
        while not port.exists() or not port.read_text().strip():
            time.sleep(0.01)
        self.base = f'http://127.0.0.1:{port.read_text().strip()}/v2/models/m'
        while True:
            try:
                self.logits(ids, last_only=True)
                break
            except urllib.error.HTTPError as error:
                if error.code != 503 or self.process.poll() is not None:
                    raise
                time.sleep(0.02)
        self.seconds = time.monotonic() - began

    def logits(self, ids, last_only=False):
        outputs = [{'name': 'logits.topk_ids'}] if last_only else [{'name': 'logits', 'parameters': {'binary_data': True}}]
        question = {'inputs': [{'name': 'input_ids', 'datatype': 'INT32', 'shape': [1, len(ids)], 'data': ids}], 'outputs': outputs}
        with urllib.request.urlopen(self.base + '/infer', json.dumps(question).encode()) as answer:
            header = answer.headers.get('Inference-Header-Content-Length')
            body = answer.read()
        if last_only:
            return None
        told = json.loads(body[:int(header)])['outputs'][0]
        at, count = int(header), int(numpy.prod(told['shape']))
        return numpy.frombuffer(body, dtype='<f4', count=count, offset=at).reshape(told['shape'])[0]

    def memory(self):
        status = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
        return {k: int(v.split()[0]) // 1024 for k, v in (line.split(':', 1) for line in status.splitlines()
                                                          if line.startswith(('VmHWM', 'RssAnon', 'RssFile')))}

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def ids_of(limbeck, model, text):
    """By the model's own tokenizer, with what it puts around a text."""
    told = subprocess.run([limbeck, 'tokenize', '--json', '--special', model, text], stdout=subprocess.PIPE, check=True).stdout
    return json.loads(told)['ids']


def log_softmax(z):
    z = z.astype(numpy.float64)
    z -= z.max(axis=-1, keepdims=True)
    return z - numpy.log(numpy.exp(z).sum(axis=-1, keepdims=True))


def logits(model, row):
    with torch.no_grad():
        return model(torch.tensor([row])).logits[0].numpy()


def farthest(a, b):
    """Where there is any probability; all of it is in the KL."""
    return float(numpy.abs(a - b)[b > -25].max())


def check(limbeck, limbeckd, text, path):
    path = pathlib.Path(path).resolve()
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ids = ids_of(limbeck, str(path), text)
    bos = ids[0] if ids and ids[0] == tokenizer.bos_token_id else None
    ids = ids[1:] if bos is not None else ids
    each = ROW - (bos is not None)
    rows = [([bos] if bos is not None else []) + ids[i:i + each] for i in range(0, TOKENS, each)][:TOKENS // ROW]
    llama = llama_cpp.Llama(model_path=str(path), logits_all=True, n_ctx=512, n_batch=512, verbose=False)
    with tempfile.TemporaryDirectory() as cache:
        first = Daemon(limbeckd, path, cache, rows[0])
        first.stop()
        daemon = Daemon(limbeckd, path, cache, rows[0])
        apart = kl = theirs = 0.0
        nats = labels = 0
        spelt = 0
        for row in rows:
            ours = log_softmax(daemon.logits(row))
            want = theirs_32 = log_softmax(logits(model, row))
            here = farthest(ours, want)
            if here >= LOG_PROBABILITY:  # there are rows in which rounding grows: whose?
                want = log_softmax(logits(torch.nn.Module.double(model), row))
                torch.nn.Module.float(model)
                print(f'{path.name}: {here:.5f} apart in one row; from FP64 {farthest(ours, want):.5f}, transformers in FP32 '
                      f'{farthest(theirs_32, want):.5f}', flush=True)
                here = farthest(ours, want)
            apart = max(apart, here)
            kl += float((numpy.exp(want) * (want - ours)).sum()) / (len(row) * len(rows))
            llama.reset()
            llama.eval(row)
            other = log_softmax(numpy.array(llama.scores[:len(row)]))
            theirs += float((numpy.exp(want) * (want - other)).sum()) / (len(row) * len(rows))
            nats -= float(ours[numpy.arange(len(row) - 1), row[1:]].sum())
            labels += len(row) - 1
            spelt += len(tokenizer.decode(row[1:]).encode())
        memory = daemon.memory()
        daemon.stop()
    good = apart < LOG_PROBABILITY and kl < KL
    print(f'{"ok  " if good else "FAIL"} {path.name}: {sum(map(len, rows))} tokens, largest difference of log-probabilities {apart:.5f}, '
          f'mean KL {kl:.2e} (llama.cpp: {theirs:.2e}), {nats / numpy.log(2) / spelt:.3f} bits a byte; peak memory '
          f'{memory["VmHWM"]} MiB ({memory["RssAnon"]} its own, {memory["RssFile"]} the file; {path.stat().st_size >> 20} stored); first answer '
          f'{first.seconds:.1f} s after the first start, {daemon.seconds:.1f} s after the second', flush=True)
    return good


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    limbeck, limbeckd = (str(pathlib.Path(sys.argv[1]).resolve() / p) for p in ('trainer/limbeck', 'server/limbeckd'))
    text = ' '.join(pathlib.Path(sys.argv[2]).read_text().split())[:20000]
    transformers.utils.logging.disable_progress_bar()
    sys.exit(not all([check(limbeck, limbeckd, text, path) for path in sys.argv[3:]]))


if __name__ == '__main__':
    main()
