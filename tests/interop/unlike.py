#!/usr/bin/env python3
"""The losses for teachers of another tokenizer on real models and text: limbeck train against what transformers and llama.cpp make
of the same rows by the rules of trainer/RECIPE.md ("Teachers of other tokenizers"), written here anew.

usage: unlike.py BUILD TEXT STUDENT.gguf TEACHER.gguf [--steps N]     (needs requirements.txt beside this file, and accelerate)
A line of TEXT is a text. STUDENT is whose vocabulary a small new student has, and is a student itself; TEACHER reads other tokens
and is hosted by limbeckd. For each of uld, uld_hybrid and alm the loss of the first step of both students, and how the new one's
falls in N steps (40; 0: only first steps). Ids and bytes of tokens are llama.cpp's, logits are transformers' of the widened
weights. Exit status 0 only when losses agree to 1e-4 of themselves (the teacher's answers are top-k and products of floats), and
fall.
"""
import argparse
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import llama_cpp
import numpy
import torch
import transformers

transformers.utils.logging.disable_progress_bar()
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # the daemon, the trainer and PyTorch take turns

LENGTH, ROWS, TOP_K, TOLERANCE = 96, 4, 64, 1e-4
LOSSES = {'uld': {}, 'uld_hybrid': {'alpha': 1.0, 'beta': 0.5}, 'alm': {'bce_temp': 100}}
STUDENT = {'model_type': 'llama', 'hidden_size': 64, 'intermediate_size': 128, 'num_hidden_layers': 2, 'num_attention_heads': 4,
           'num_key_value_heads': 2, 'max_position_embeddings': 256, 'tie_word_embeddings': True}


class Vocabulary:
    """A GGUF file's, as llama.cpp has it."""

    def __init__(self, path):
        self.model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model.model)
        self.n, self.bos, self.eos = self.model.n_vocab(), None, self.model.token_eos()
        if llama_cpp.llama_vocab_get_add_bos(self.vocab):
            self.bos = self.model.token_bos()

    def ids(self, text):
        return self.model.tokenize(text, add_bos=False, special=False)

    def piece(self, token):
        """Its bytes; None of what is no text."""
        if llama_cpp.llama_vocab_get_attr(self.vocab, token) & (llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN):
            return None
        buffer = ctypes.create_string_buffer(1024)
        n = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[:n] if n > 0 else None


def in_common(own, its):
    """Own id of each of its tokens, by bytes, the first of each side; what ends texts is the same."""
    first = {}
    for token in range(own.n):
        first.setdefault(own.piece(token), token)
    first.pop(None, None)
    pairs, taken = {}, set()
    for token in range(its.n):
        mine = first.get(its.piece(token))
        if mine is not None and mine not in taken:
            pairs[token] = mine
            taken.add(mine)
    if its.eos not in pairs and own.eos not in taken:
        pairs[its.eos] = own.eos
    return pairs


def ends(tokens, vocabulary):
    """How many bytes there are up to each token's end."""
    return list(numpy.cumsum([len(vocabulary.piece(t)) for t in tokens]))


def read(row, own, its):
    """A row's texts in the teacher's tokens, and (first, count, its first, its count) of the chunks, as positions that predict them."""
    ids, chunks, at = [], [], 0
    while at < len(row):
        stop = next((i for i in range(at, len(row)) if row[i] == own.eos), len(row))
        text, ended = row[at:stop], stop < len(row)
        theirs = its.ids(b''.join(own.piece(t) for t in text))
        ids += [its.bos] if its.bos is not None else []
        mine, other = ends(text, own), ends(theirs, its)
        found, i, j = [], 0, 0
        for byte in sorted(set(mine) & set(other)):
            last, its_last = mine.index(byte) + 1, other.index(byte) + 1
            found.append((at + i - 1, last - i, len(ids) + j - 1, its_last - j))
            i, j = last, its_last
        ids += theirs
        if ended:
            found.append((stop - 1, 1, len(ids) - 1, 1))
            ids.append(its.eos)
        elif found:
            found.pop()  # it goes on in another row
        chunks += [c for c in found if c[0] >= 0 and c[2] >= 0]
        at = stop + 1
    return ids, chunks


def log_softmax(logits):
    return torch.log_softmax(logits.double(), -1)


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def uld(p, rest, q, **_):
    """Both by size: the listed ones one by one, all others as one."""
    size = q.sort(descending=True).values
    return (p - size[:len(p)]).abs().sum() + (rest - size[len(p):].sum()).abs()


def uld_hybrid(p, ids, q, pairs, alpha, beta):
    """Of common tokens the generalised JSD, all others one bucket; the sorted distance of those that one side alone has."""
    both = [(p[i], q[pairs[t]]) for i, t in enumerate(ids) if t in pairs]
    a, b = (torch.stack(x) for x in zip(*both))
    a, b = (torch.cat([x, (1 - x.sum()).clamp(min=0)[None]]) for x in (a, b))
    m = beta * a + (1 - beta) * b
    kl = lambda x, y: (x * (x.clamp(min=1e-300).log() - y.clamp(min=1e-300).log())).sum()  # noqa: E731
    alone = torch.stack([p[i] for i, t in enumerate(ids) if t not in pairs] or [torch.tensor(0.0, dtype=torch.double)])
    mine = q.clone()
    mine[list(pairs.values())] = 0
    others = mine.sort(descending=True).values[:len(alone)]
    return beta * kl(a, m) + (1 - beta) * kl(b, m) + alpha * (alone - others).abs().sum()


def coins(t, s, bce_temp):
    p, q = torch.exp(t / bce_temp - 1e-6), torch.exp(s / bce_temp - 1e-6)
    return -(p * q.log() + (1 - p) * (1 - q).log())


def reference(rows, readings, student, teacher_logs, pairs):
    """The losses of a step of these rows, means over the positions that count."""
    sums = dict.fromkeys(LOSSES, 0.0)
    for row, (ids, chunks), its in zip(rows, readings, teacher_logs):
        own = log_softmax(logits(student, row[:-1]))
        for at, n, its_at, its_n in chunks:
            listed = its[its_at].topk(TOP_K)
            p, q = listed.values.exp(), own[at].exp()
            sums['uld'] += float(uld(p, 1 - p.sum(), q))
            sums['uld_hybrid'] += float(uld_hybrid(p, listed.indices.tolist(), q, pairs, **LOSSES['uld_hybrid']))
            s = sum(own[at + i, row[at + i + 1]] for i in range(n))
            t = sum(its[its_at + i, ids[its_at + i + 1]] for i in range(its_n))
            sums['alm'] += float(coins(t, s, **LOSSES['alm']))
    return {name: value / sum(len(row) - 1 for row in rows) for name, value in sums.items()}


def host(limbeckd, model, folder):
    port = folder / 'port'
    process = subprocess.Popen([limbeckd, f'teacher={model}', '--listen=127.0.0.1:0', f'--port-file={port}'],
                               stderr=subprocess.DEVNULL, env=dict(os.environ, XDG_CACHE_HOME=str(folder)))
    while not port.exists() or not port.read_text().strip():
        if process.poll() is not None:
            sys.exit('limbeckd does not start')
        time.sleep(0.02)
    return process, f'http://127.0.0.1:{port.read_text().strip()}'


def train(limbeck, folder, name, url, text, tokenizer, student, loss, steps, rate):
    """What the journal has of each step, and where the student lies."""
    out = folder / name
    entry = dict(function=loss, **LOSSES[loss])
    recipe = {'student': student, 'tokenizer': str(tokenizer), 'datasets': [{'path': str(text)}], 'loss_functions': [entry],
              'teachers': [{'name': 'teacher', 'url': url}], 'max_length': LENGTH, 'per_device_train_batch_size': ROWS,
              'max_steps': steps, 'learning_rate': rate, 'lr_scheduler_type': 'constant', 'logging_steps': 1, 'seed': 1,
              'teacher_timeout': 600, 'cache_dir': str(folder / 'cache'), 'output_dir': str(out)}
    if loss != 'alm':
        recipe['loss_top_k'] = TOP_K
    path = folder / f'{name}.yaml'
    path.write_text(json.dumps(recipe))
    done = subprocess.run([limbeck, 'train', str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f'{name}: {done.stdout.strip()[-800:]}')
    steps = [json.loads(line) for line in (out / 'metrics.jsonl').read_text().splitlines()]
    return [step['loss'] for step in steps if 'loss' in step], out / 'student', done.stdout


def rows_of(path, own, out):
    """As many lines as make ROWS rows, written to out; texts are one stream, and rows overlap by one."""
    stream, kept = [], []
    for line in pathlib.Path(path).read_text().splitlines():
        if len(stream) > ROWS * LENGTH:
            break
        if line:
            kept.append(line)
            stream += own.ids(line.encode()) + [own.eos]
    if not ROWS * LENGTH < len(stream) <= (ROWS + 1) * LENGTH:
        sys.exit(f'{path}: its lines are too few, or too long')
    out.write_text('\n'.join(kept) + '\n')
    return [stream[i * LENGTH:(i + 1) * LENGTH + 1] for i in range(ROWS)]


def opened(path):
    where = {'gguf_file': path.name} if path.suffix == '.gguf' else {}
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent if where else path, dtype=torch.float32, **where).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build', type=pathlib.Path)
    parser.add_argument('text', type=pathlib.Path)
    parser.add_argument('student', type=pathlib.Path)
    parser.add_argument('teacher', type=pathlib.Path)
    parser.add_argument('--steps', type=int, default=40)
    args = parser.parse_args()
    limbeck, limbeckd = (str(args.build.resolve() / p) for p in ('trainer/limbeck', 'server/limbeckd'))
    student, teacher = args.student.resolve(), args.teacher.resolve()
    own, its = Vocabulary(student), Vocabulary(teacher)
    bad = 0
    with tempfile.TemporaryDirectory(prefix='limbeck-unlike-') as name:
        folder = pathlib.Path(name)
        text = folder / 'text.txt'
        rows = rows_of(args.text, own, text)
        readings, pairs = [read(row, own, its) for row in rows], in_common(own, its)
        model = opened(teacher)
        logs = [log_softmax(logits(model, ids)) for ids, _ in readings]
        del model
        inside = sum(c[1] for _, chunks in readings for c in chunks) / (ROWS * LENGTH)
        print(f'{ROWS} rows of {LENGTH}: {sum(len(c) for _, c in readings)} chunks with {inside:.3f} of the tokens; '
              f'{len(pairs)} tokens in common of {own.n} and {its.n}', flush=True)
        daemon, url = host(limbeckd, teacher, folder)
        try:
            for what, begin in (('new', STUDENT), (student.name, {'model': str(student)})):
                want = None
                for loss in LOSSES:
                    first, where, log = train(limbeck, folder, f'{loss}-{what}', url, text, student, begin, loss, 1, 1e-20)
                    if want is None:  # a step of no length: the student as it began
                        want = reference(rows, readings, opened(where if what == 'new' else student), logs, pairs)
                        print('\n'.join(line for line in log.splitlines() if 'unlike_tokenizer' in line), flush=True)
                    apart = abs(first[0] - want[loss]) / want[loss]
                    bad += not apart < TOLERANCE
                    print(f'{"ok  " if apart < TOLERANCE else "FAIL"} {what}: {loss} of the first step {first[0]:.7f}, reference '
                          f'{want[loss]:.7f}, {apart:.1e} apart', flush=True)
                    rate = 3e-3 if what == 'new' else 1e-4
                    steps = args.steps if what == 'new' else min(args.steps, 3)
                    if steps > 1:
                        losses, _, _ = train(limbeck, folder, f'{loss}-{what}-on', url, text, student, begin, loss, steps, rate)
                        falls = losses[-1] < losses[0] and abs(losses[0] - want[loss]) < TOLERANCE * want[loss]
                        bad += not falls
                        print(f'{"ok  " if falls else "FAIL"} {what}: {loss} falls from {losses[0]:.6f} to {losses[-1]:.6f} in {steps} '
                              'steps', flush=True)
        finally:
            daemon.terminate()
            daemon.wait()
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
