#!/usr/bin/env python3
"""Limbeck and Hugging Face's tokenizers on the same tokenizer.json: are the ids the same, and how long does each take?

usage: check_tokenizers.py BUILD TEXT TOKENIZER...
BUILD: the build folder with limbeck; TEXT: a file of lines, UTF-8 (some MB of real text); TOKENIZER: a tokenizer.json, or a
.gguf file that transformers can read the vocabulary of. Each sees the lines of TEXT, every code point of Unicode in two
surroundings, and lines of a million bytes without a space. One line for each; exit status 0 only when no line differs.
Needs tokenizers and, for .gguf files, transformers (requirements.txt). Times are seconds of one thread's work.
"""
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

os.environ['TOKENIZERS_PARALLELISM'] = 'false'
import tokenizers  # noqa: E402

MILLION = 1_000_000
SHOWN = 3


def points():
    return [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000 and c != 0x0A]


def torture():
    """Lines that are hard: all code points in a row and between letters and marks, and long ones."""
    every = points()
    rows = [''.join(every[i:i + 40]) for i in range(0, len(every), 40)]
    alone = [f'x{c}x {c}\u0301a' for c in every if ord(c) < 0x3000 or 0xA000 <= ord(c) < 0xAC00 or 0xF900 <= ord(c) < 0x20000]
    odd = ['', ' ', 'a\x00b\x00', 'a\r', '  a\t b \u00a0c\u3000d ', '👩‍👩‍👧‍👦🇫🇷🇩🇪👍🏽❤️', 'e\u0301\u0323\u0302 \u0301', '▁a▁▁ b ▁', '<0x41> <s>x</s>',
           'don\'t DON\'T he\'s', '0123456789' * 40, '\u1112\u1161\u11ab', '\u0301' * 50]
    long = [unit * (MILLION // len(unit.encode())) for unit in ('a', '7', '\u0301\u0323', 'ab', '\u8336', '.', 'é')]
    return odd + rows + alone + ['x' + line for line in long]


def open_tokenizer(path, folder):
    """tokenizers' object and a path for Limbeck."""
    if path.suffix == '.gguf':
        import transformers
        loaded = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        path = pathlib.Path(folder) / (path.stem + '.json')
        loaded.backend_tokenizer.save(str(path))
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, path


def limbeck(program, path, lines, *options):
    """The output, and the seconds of work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    run = subprocess.run([program, 'tokenize', *options, path], input=''.join(f'{line}\n' for line in lines).encode(), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    if run.returncode:
        raise SystemExit(f'limbeck tokenize {path}: {run.stderr.decode().strip()}')
    return run.stdout.decode(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def compare(tokenizer, have, lines):
    """How many lines differ; the first few are shown."""
    differ = 0
    for line, text in zip(lines, have, strict=True):
        want = tokenizer.encode(line, add_special_tokens=False).ids
        ids = [int(i) for i in text.split()]
        if ids != want:
            differ += 1
            at = next((i for i, (a, b) in enumerate(zip(ids, want)) if a != b), min(len(ids), len(want)))
            if differ <= SHOWN:
                print(f'  {line[:60]!r}: at {at} {ids[at:at + 4]}, not {want[at:at + 4]}')
    return differ


def seconds_of(tokenizer, lines):
    before = time.process_time()
    for i in range(0, len(lines), 1000):
        tokenizer.encode_batch_fast(lines[i:i + 1000], add_special_tokens=False)
    return time.process_time() - before


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    program = str(pathlib.Path(sys.argv[1]) / 'trainer' / 'limbeck')
    text = [line for line in pathlib.Path(sys.argv[2]).read_text(encoding='utf-8').split('\n') if line]
    size, hard, bad = sum(len(line.encode()) + 1 for line in text), torture(), 0
    with tempfile.TemporaryDirectory(prefix='limbeck-tokenizers-') as folder:
        for path in map(pathlib.Path, sys.argv[3:]):
            tokenizer, path = open_tokenizer(path, folder)
            lines = text + hard
            differ = compare(tokenizer, limbeck(program, path, lines)[0].split('\n')[:-1], lines)
            ours = limbeck(program, path, text, '--count')[1] - limbeck(program, path, [''], '--count')[1]
            theirs = seconds_of(tokenizer, text)
            bad += differ
            print(f'{"FAIL" if differ else "ok  "} {path.name:24} {differ} of {len(lines)} lines differ; {size / ours / 1e6:.1f} MB/s, '
                  f'{theirs / ours:.1f} times theirs', flush=True)
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
