#!/usr/bin/env python3
"""Limbeck, llama.cpp and transformers on the same weights: do all give the same logits?

usage: check.py BUILD [FAMILY...]     (BUILD: the build folder with limbeckd and limbeck; needs requirements.txt beside this file)
For each family a small random model is made by transformers; then, at all positions:
  exported      `limbeck export --format gguf`, opened by llama.cpp and by limbeckd
  hosted        the Hugging Face folder, by limbeckd
  theirs        a GGUF made without Limbeck, opened by llama.cpp and by limbeckd
  back          `limbeck export --format hf` of that GGUF, opened by transformers
are held against transformers' logits of the model. One line a comparison; exit status 0 only when all are close.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy
import transformers

import families

VOCABULARY = 290
CLOSE = {'f32': 1e-4, 'f16': 1e-2}  # of the largest logit
CLOSE_BY_TABLE = 2e-3
PATIENCE = 60


class Daemon:
    """limbeckd on a port of its own with these models."""

    def __init__(self, program, folder, models):
        port_file = folder / 'port'
        self.log = open(folder / 'limbeckd.log', 'w+')
        self.process = subprocess.Popen([program, '--listen=127.0.0.1:0', f'--port-file={port_file}', '--threads=1']
                                        + [f'{name}={path}' for name, path in models.items()], stderr=self.log)
        until = time.monotonic() + PATIENCE
        while not port_file.exists() or not port_file.read_text().strip():
            if self.process.poll() is not None or time.monotonic() > until:
                self.log.seek(0)
                raise SystemExit('limbeckd does not start:\n' + self.log.read())
            time.sleep(0.02)
        self.base = f'http://127.0.0.1:{port_file.read_text().strip()}'

    def logits(self, model, ids):
        question = {'inputs': [{'name': 'input_ids', 'datatype': 'INT32', 'shape': [1, len(ids)], 'data': ids.tolist()}],
                    'outputs': [{'name': 'logits'}]}
        with urllib.request.urlopen(f'{self.base}/v2/models/{model}/infer', json.dumps(question).encode()) as answer:
            output = json.load(answer)['outputs'][0]
        return numpy.array(output['data'], dtype=numpy.float32).reshape(output['shape'])[0]

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


def export(program, model, kind, out, tokenizer, dtype='f32'):
    run = subprocess.run([program, 'export', model, f'--format={kind}', f'--dtype={dtype}', f'--tokenizer={tokenizer}',
                          f'--out={out}'],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        raise RuntimeError(f'limbeck export {model.name}: {run.stdout.strip()}')


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    limbeck, limbeckd = (str(pathlib.Path(sys.argv[1]).resolve() / p) for p in ('trainer/limbeck', 'server/limbeckd'))
    transformers.utils.logging.disable_progress_bar()
    ids, bad, n = families.token_ids(VOCABULARY), 0, 0

    def compare(family, what, have, want, dtype='f32'):
        nonlocal bad, n
        apart = families.difference(have, want)
        table = 'llama.cpp' in what and families.FAMILIES[family][2] in families.BY_TABLE
        close = apart < max(CLOSE[dtype], CLOSE_BY_TABLE if table else 0)
        n += 1
        bad += not close
        print(f'{"ok  " if close else "FAIL"} {family:15} {what:38} {apart:.1e}', flush=True)

    with tempfile.TemporaryDirectory(prefix='limbeck-interop-') as name:
        folder, models, want = pathlib.Path(name), {}, {}
        for family in sys.argv[2:] or families.FAMILIES:
            at = {kind: folder / f'{family}.{kind}' for kind in ('hf', 'f32', 'f16', 'theirs', 'back')}
            model = families.make(family, VOCABULARY)
            model.save_pretrained(at['hf'])
            (at['hf'] / 'tokenizer.json').write_text(families.byte_tokenizer(VOCABULARY))
            want[family] = families.by_transformers(model, ids)
            for dtype in CLOSE:
                export(limbeck, at['hf'], 'gguf', at[dtype], at['hf'], dtype)
                compare(family, f'exported {dtype} by llama.cpp', families.by_llama_cpp(at[dtype], ids), want[family], dtype)
            families.write_gguf(family, model, at['theirs'])
            compare(family, 'theirs by llama.cpp', families.by_llama_cpp(at['theirs'], ids), want[family])
            export(limbeck, at['theirs'], 'hf', at['back'], at['hf'])
            back = transformers.AutoModelForCausalLM.from_pretrained(at['back'], attn_implementation='eager').float().eval()
            compare(family, 'theirs, exported back, by transformers', families.by_transformers(back, ids), want[family])
            models |= {f'{family}.{kind}': at[kind] for kind in ('hf', 'f32', 'theirs')}
        daemon = Daemon(limbeckd, folder, models)
        try:
            for model in models:
                family, kind = model.rsplit('.', 1)
                what = {'hf': 'hosted', 'f32': 'exported f32', 'theirs': 'theirs'}[kind]
                compare(family, f'{what} by limbeckd', daemon.logits(model, ids), want[family])
        finally:
            daemon.stop()
    print(f'{n - bad} of {n} comparisons are close')
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
