#!/usr/bin/env python3
"""Files of every format, changed in thousands of ways, opened as both programs open them: each is taken or refused in one
line that names a file; nothing crashes, takes more than two seconds, or more memory than the file's size and 64 MB.

    mutants.py BUILD [--n N] [--seed SEED] [--format NAME]... [--gguf FILE]... [--folder FOLDER]... [--show N] [--keep]

--n       how many of each format (2000)
--gguf    a further GGUF file; of a large one the header is changed, its weights are a hole
--folder  a further Hugging Face folder; each file of it that is known by its name is changed
--show    prints so many different refusals of each format
--keep    what fails is kept in the folder that is named, and how to open it
Ends with status 1 when anything failed. In a build with sanitizers memory and time have no limit but theirs.
"""
import argparse
import collections
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import children
import mutate
import specimens

MEMORY_MIB, SECONDS = 64, 2
UNSOUND = ('gguf vocabulary', 'chat template')  # some of them are of other kinds, or about other data
HASHED = 64 << 20  # so much may take a second more: the fingerprint is over all of it
LARGE = 4 << 20  # of a larger binary file only the front is written, the rest is a hole
BESIDE_HEADER = 4096

arguments = argparse.ArgumentParser()
arguments.add_argument('build', type=pathlib.Path)
arguments.add_argument('--n', type=int, default=2000)
arguments.add_argument('--seed', type=int, default=1)
arguments.add_argument('--format', action='append', default=[])
arguments.add_argument('--gguf', action='append', default=[], type=pathlib.Path)
arguments.add_argument('--folder', action='append', default=[], type=pathlib.Path)
arguments.add_argument('--show', type=int, default=0)
arguments.add_argument('--keep', action='store_true')
a = arguments.parse_args()

source = os.environ.get('LB_SOURCE_ROOT') or pathlib.Path(__file__).resolve().parents[2]
folder = pathlib.Path(tempfile.mkdtemp(prefix='limbeck-mutants-', dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None))
kept = folder / 'failed'


class Opener:
    """open_each, which is started anew should it end."""

    def __init__(self):
        program = (a.build / 'tests' / 'fault' / 'open_each').read_bytes()
        self.sanitized = b'__asan_init' in program or b'__tsan_init' in program
        self.process = None

    def open(self, size, way, path):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [str(a.build / 'tests' / 'fault' / 'open_each'), str(MEMORY_MIB)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=children.die_with_parent,
                env=dict(os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', XDG_CACHE_HOME=str(folder / 'cache')))
        seconds = 0 if self.sanitized else SECONDS + size // HASHED
        self.process.stdin.write(f'{size} {seconds} {way} {path}\n'.encode())
        self.process.stdin.flush()
        what, ms, said = self.process.stdout.readline().rstrip(b'\n').split(b' ', 2)
        return what.decode(), float(ms), said


class Large:
    """The front of a large binary file, and how long it is as a whole: data beyond the header is a hole."""

    def __init__(self, front, total):
        self.front, self.total = front, total


def sound(specimen):
    data = specimen.files[specimen.name]
    return data.front if isinstance(data, Large) else data


def write(path, data, hole=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as f:
        f.write(data)
        if hole:
            f.truncate(len(data) + hole)


def lay_out(specimen):
    shutil.rmtree(folder / 'case', ignore_errors=True)
    for name, data in specimen.files.items():
        if isinstance(data, Large):
            write(folder / 'case' / name, data.front, data.total - len(data.front))
        else:
            write(folder / 'case' / name, data)


def size_of(specimen):
    return sum(d.total if isinstance(d, Large) else len(d) for d in specimen.files.values())


def badly_worded(said):
    """What is wrong with a refusal, or nothing."""
    try:
        text = said.decode()
    except UnicodeDecodeError:
        return 'is no UTF-8'
    if b'\\x0' in said or b'\\x1' in said or b'\\x7f' in said:
        return 'holds control characters'
    return '' if str(folder) in text else 'names no file'


def front_of(path, kind):
    """A file, or the front of a large binary one."""
    total = path.stat().st_size
    if kind not in ('gguf', 'safetensors') or total < LARGE:
        return path.read_bytes()
    with open(path, 'rb') as f:
        front = f.read(64 << 20)
    end = 8 + int.from_bytes(front[:8], 'little') if kind == 'safetensors' else mutate.gguf_parts(front)['sizes'][0][0]
    return Large(front[:end + BESIDE_HEADER], total)


KNOWN = {'config.json': ('json', 'model', 'config.json'), 'generation_config.json': ('json', 'model', 'generation_config.json'),
         'model.safetensors': ('safetensors', 'model', 'safetensors'), 'model.safetensors.index.json': ('json', 'model', 'sharded safetensors'),
         'tokenizer.json': ('json', 'texts', 'tokenizer.json'), 'tokenizer_config.json': ('json', 'texts', 'tokenizer_config.json'),
         'special_tokens_map.json': ('json', 'texts', 'special_tokens_map.json'), 'chat_template.jinja': ('jinja', 'texts', 'chat template'),
         'vocab_map.json': ('json', 'texts', 'vocab_map.json'), 'modules.json': ('json', 'model', 'modules.json'),
         '1_Pooling/config.json': ('json', 'model', '1_Pooling/config.json')}


def add_given(formats):
    for path in a.gguf:
        formats['gguf'].append(specimens.Specimen('gguf', path.name, 'all', path.name, {path.name: front_of(path, 'gguf')}))
    for top in a.folder:
        there = {name: top / name for name in KNOWN if (top / name).is_file()}
        there |= {p.name: p for p in top.glob('model-*.safetensors')}
        kinds = {name: KNOWN.get(name, ('safetensors', 'model', 'sharded safetensors')) for name in there}
        files = {name: front_of(path, kinds[name][0]) for name, path in there.items()}
        for name, (kind, way, of) in kinds.items():
            # texts need not open the weights, and weights not the texts
            need = {n: d for n, d in files.items() if kinds[n][1] == way}
            formats[of].append(specimens.Specimen(kind, name, way, '', need))


def keep(specimen, data, number):
    lay_out(specimen._replace(files={**specimen.files, specimen.name: data}))
    to = kept / str(number)
    shutil.copytree(folder / 'case', to)
    return f'{specimen.way} {to / specimen.opened}'


def run(opener, name, given):
    counts, slowest, said_once, failures = collections.Counter(), 0.0, {}, 0
    texts = {}
    for i, specimen in enumerate(given):
        lay_out(specimen)
        what, ms, said = opener.open(size_of(specimen), specimen.way, folder / 'case' / specimen.opened)
        if what != 'A' and name not in UNSOUND:
            print(f'{name}: a sound file ({specimen.opened or specimen.name}, {i}) is not taken: {what} {said.decode(errors="replace")}')
            counts['unsound'] += 1
        share = a.n // len(given) + (i < a.n % len(given))
        others = [sound(s) for s in given if s.kind == specimen.kind and s is not specimen]
        was = sound(specimen)
        hole = specimen.files[specimen.name].total - len(was) if isinstance(specimen.files[specimen.name], Large) else 0
        for k in range(share):
            r = random.Random(f'{a.seed} {name} {i} {k}')
            data = mutate.mutate(specimen.kind, was, others, r)
            path = folder / 'case' / specimen.name
            path.unlink()
            write(path, data, 0 if len(data) < len(was) // 2 else hole)
            size = size_of(specimen) - len(was) + len(data)
            what, ms, said = opener.open(size, specimen.way, folder / 'case' / specimen.opened)
            slowest = max(slowest, ms)
            wrong = {'C': 'crashes', 'H': 'hangs', 'M': 'takes memory'}.get(what) or (badly_worded(said) if what == 'R' else '')
            counts[{'C': 'crash', 'H': 'hang', 'M': 'memory', 'A': 'accepted'}.get(what) or ('worded' if wrong else 'refused')] += 1
            key = (wrong, said[-60:])
            if wrong and texts.setdefault(key, 0) < 3:
                failures += 1
                place = keep(specimen, data, f'{name.replace("/", "-").replace(" ", "-")}-{i}-{k}') if a.keep else ''
                print(f'{name}: mutant {k} of {i} ({specimen.opened or specimen.name}) {wrong}: {said.decode(errors="replace")[:300]} {place}', flush=True)
                if a.keep:
                    lay_out(specimen)
            if wrong:
                texts[key] += 1
            if what == 'R' and a.show:
                said_once.setdefault(said.replace(str(folder).encode(), b'')[:90], said)
    print(f'{name:24} {len(given):3} {sum(counts.values()) - counts["unsound"]:6} {counts["accepted"]:9} {counts["refused"]:8} {counts["crash"]:6} {counts["hang"]:5} '
          f'{counts["memory"]:7} {counts["worded"]:7} {slowest:10.0f}', flush=True)
    for said in list(said_once.values())[:a.show]:
        print('    ' + said.decode(errors='replace').replace(str(folder), ''))
    return sum(counts[k] for k in ('crash', 'hang', 'memory', 'worded', 'unsound'))


def main():
    formats = specimens.all_of(source, str(a.build / 'trainer' / 'limbeck'))
    add_given(formats)
    opener, bad = Opener(), 0
    print(f'{"format":24} {"of":>3} {"n":>6} {"accepted":>9} {"refused":>8} {"crash":>6} {"hang":>5} {"memory":>7} {"worded":>7} {"slowest ms":>10}')
    for name, given in formats.items():
        if not a.format or name in a.format:
            bad += run(opener, name, given)
    if not (a.keep and bad):
        shutil.rmtree(folder)
    print('nothing failed' if not bad else f'{bad} failed' + (f'; kept in {kept}' if a.keep else ''))
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
