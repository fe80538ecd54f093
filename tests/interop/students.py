#!/usr/bin/env python3
"""A student of each family, trained by `limbeck train` and exported: does everybody compute the same with it?

usage: students.py BUILD [FAMILY...]     (BUILD: the build folder with limbeckd and limbeck; needs requirements.txt beside this file)
A small random model of each of families.ALL and encoders.ENCODERS learns for a few steps from another one, over HTTP, by a
recipe. Its export as a folder is opened by transformers and limbeckd, its export as GGUF by llama.cpp and limbeckd. All logits
(of encoders states and sentence embeddings) are held against transformers'; so are token ids of a text, and what each writes
when it takes the likeliest token 16 times. One line a family; exit status 0 only when all are close.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy
import torch
import transformers

import check
import encoders
import families

CLOSE, CLOSE_BY_TABLE = 1e-4, 2e-3  # of the largest logit; where llama.cpp looks gelu up in a table of FP16
WRITTEN = 16
TEXT = 'the bird that sings; note it, Ant 12!'
STEPS = 5
RECIPE = """\
student: {{model: {given}}}
tokenizer: {given}
datasets: [{{path: {folder}/text.txt}}]
teachers: [{{name: teacher, url: "local:{teacher}"}}]
loss_functions: [{losses}]
learning_rate: 1.0e-3
max_steps: {steps}
per_device_train_batch_size: 2
max_length: {length}
{more}save_steps: 0
output_dir: {run}
"""


def limbeck(program, *arguments):
    run = subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        raise RuntimeError((run.stderr.strip() or run.stdout.strip()).splitlines()[-1])
    return run.stdout


def train(programs, folder, family, given, teacher, losses, length, more=''):
    """The run folder."""
    recipe, run = folder / f'{family}.yaml', folder / f'{family}.run'
    recipe.write_text(RECIPE.format(given=given, teacher=teacher, folder=folder, run=run, losses=losses, steps=STEPS, length=length, more=more))
    limbeck(programs['limbeck'], 'train', recipe)
    return run


def export(programs, run, kind, out):
    limbeck(programs['limbeck'], 'export', run, f'--format={kind}', '--dtype=f32', f'--out={out}')
    return out


# ---- decoders ----


def written_by_transformers(model, ids):
    out = list(ids)
    with torch.no_grad():
        for _ in range(WRITTEN):
            out.append(int(model(torch.tensor([out])).logits[0, -1].argmax()))
    return out[len(ids):]


def written_by_llama_cpp(path, ids):
    llama_cpp.llama_log_set(families.QUIET, None)
    llama = llama_cpp.Llama(str(path), n_ctx=256, n_batch=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    out = list(ids)
    llama.eval(out)
    for _ in range(WRITTEN):
        out.append(int(llama.scores[len(out) - 1].argmax()))
        llama.eval(out[-1:])
    return out[len(ids):]


def written_by_limbeck(programs, model):
    said = json.loads(limbeck(programs['limbeck'], 'generate', model, f'--prompt={TEXT}', '--temperature=0', f'--max-new-tokens={WRITTEN}',
                              '--json'))
    return said['text'] if 'text' in said else said


def ids_by_limbeck(programs, model):
    return json.loads(limbeck(programs['limbeck'], 'tokenize', '--json', model, TEXT))['ids']


def until_end(tokenizer, ids, end):
    return tokenizer.decode(ids[:ids.index(end)] if end in ids else ids)


class Decoder:
    columns = ('hf by limbeckd', 'gguf by limbeckd', 'gguf by llama.cpp', 'ids', 'written')

    def __init__(self, programs, folder, family):
        self.family, self.programs, self.folder = family, programs, folder
        self.ids = families.token_ids(check.VOCABULARY)
        at = [folder / f'{family}.{kind}' for kind in ('given', 'teacher')]
        for n, path in enumerate(at):
            model = families.make(family, check.VOCABULARY)
            with torch.no_grad():
                for p in model.parameters():
                    p += n * 0.05 * torch.randn_like(p)
            model.save_pretrained(path)
            (path / 'tokenizer.json').write_text(families.byte_tokenizer(check.VOCABULARY))
            (path / 'tokenizer_config.json').write_text('{"eos_token": "<|end|>"}')
        length = min(24, model.config.get_text_config().max_position_embeddings)
        run = train(programs, folder, family, *at, '{function: kl}, {function: cross_entropy, weight: 0.5}', length)
        self.hf, self.gguf, self.refusal = export(programs, run, 'hf', folder / f'{family}.hf'), None, ''
        try:
            self.gguf = export(programs, run, 'gguf', folder / f'{family}.gguf')
        except RuntimeError as error:
            self.refusal = str(error)
        before = transformers.AutoModelForCausalLM.from_pretrained(at[0], attn_implementation='eager').float().eval()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(self.hf, attn_implementation='eager').float().eval()
        self.want = families.by_transformers(self.model, self.ids)
        self.learnt = families.difference(families.by_transformers(before, self.ids), self.want)

    def hosted(self):
        return {'hf': self.hf} | ({'gguf': self.gguf} if self.gguf else {})

    def row(self, daemon):
        n = {'hf': len(self.ids), 'gguf': families.WINDOW if self.family in families.FOLDER_ONLY else len(self.ids)}  # it ends before the window
        cells = {f'{kind} by limbeckd': families.difference(daemon.logits(f'{self.family}.{kind}', self.ids[:n[kind]]), self.want[:n[kind]])
                 for kind in self.hosted()}
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.hf)
        ids, end = tokenizer(TEXT)['input_ids'], self.model.config.get_text_config().eos_token_id
        same_ids = all(ids_by_limbeck(self.programs, path) == ids for path in self.hosted().values())
        written = written_by_transformers(self.model, ids)
        text = until_end(tokenizer, written, end)
        whole = [path for kind, path in self.hosted().items() if n[kind] == len(self.ids)]
        same = all(written_by_limbeck(self.programs, path) == text for path in whole)
        if self.gguf:
            theirs = families.by_llama_cpp(self.gguf, self.ids[:n['gguf']])
            cells['gguf by llama.cpp'] = families.difference(theirs, self.want[:n['gguf']])
            llama = llama_cpp.Llama(str(self.gguf), vocab_only=True, verbose=False)
            same_ids = same_ids and llama.tokenize(TEXT.encode(), add_bos=True, special=False) == ids
            same = same and (self.gguf not in whole or until_end(tokenizer, written_by_llama_cpp(self.gguf, ids), end) == text)
        cells |= {'ids': same_ids, 'written': same}
        return cells

    def close(self, column):
        by_table = 'llama.cpp' in column and families.ALL[self.family][2] in families.BY_TABLE
        return CLOSE_BY_TABLE if by_table else CLOSE


# ---- encoders ----


class Encoder:
    columns = Decoder.columns

    def __init__(self, programs, folder, family):
        self.family, self.refusal = family, ''
        self.ids = families.token_ids(check.VOCABULARY)
        make = getattr(encoders, 'make_encoder', None) or encoders.make
        ask = getattr(encoders, 'encoder_by_transformers', None) or encoders.by_transformers
        at = [folder / f'{family}.{kind}' for kind in ('given', 'teacher')]
        for n, path in enumerate(at):
            model = make(encoders.ENCODERS[family], path)
            with torch.no_grad():
                for p in model.parameters():
                    p += n * 0.05 * torch.randn_like(p)
            model.save_pretrained(path)
        run = train(programs, folder, family, *at, '{function: embedding_cosine}, {function: hs_mse}', 24, 'whole_texts: true\n')
        self.hf = export(programs, run, 'hf', folder / f'{family}.hf')
        try:
            export(programs, run, 'gguf', folder / f'{family}.gguf')
        except RuntimeError as error:
            self.refusal = str(error)
        opened = [transformers.AutoModel.from_pretrained(path, attn_implementation='eager').float().eval() for path in (at[0], self.hf)]
        before, self.want = (ask(model, self.ids) for model in opened)
        self.learnt = families.difference(before['hidden_states.final'], self.want['hidden_states.final'])

    def hosted(self):
        return {'hf': self.hf}

    def row(self, daemon):
        have = encoders.by_limbeckd(daemon, f'{self.family}.hf', self.ids, self.want)
        cells = {'hf by limbeckd': max(families.difference(have[k], self.want[k]) for k in self.want)}
        try:
            import sentence_transformers
        except ImportError:
            return cells
        model = sentence_transformers.SentenceTransformer(str(self.hf), device='cpu')
        with torch.no_grad():
            out = model({'input_ids': torch.tensor([self.ids.tolist()]), 'attention_mask': torch.ones(1, len(self.ids), dtype=torch.long)})
        cells['sentence-transformers'] = families.difference(out['sentence_embedding'][0].numpy(), self.want['sentence_embedding'])
        return cells

    def close(self, column):
        return CLOSE


def show(value):
    return ('same' if value else 'OTHER') if isinstance(value, bool) else f'{value:.1e}'


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build = pathlib.Path(sys.argv[1]).resolve()
    programs = {'limbeck': str(build / 'trainer' / 'limbeck'), 'limbeckd': str(build / 'server' / 'limbeckd')}
    transformers.utils.logging.disable_progress_bar()
    bad = 0
    with tempfile.TemporaryDirectory(prefix='limbeck-students-') as name:
        folder = pathlib.Path(name)
        (folder / 'text.txt').write_text('\n'.join([TEXT, 'rain on a tin roof', 'one note, then another one at the end of it'] * 20))
        print(f'{"family":16} {"learnt":>8}' + ''.join(f'{c:>19}' for c in Decoder.columns))
        for family in sys.argv[2:] or [*families.ALL, *encoders.ENCODERS]:
            student = (Encoder if family in encoders.ENCODERS else Decoder)(programs, folder, family)
            daemon = check.Daemon(programs['limbeckd'], folder, {f'{family}.{kind}': path for kind, path in student.hosted().items()})
            try:
                cells = student.row(daemon)
            finally:
                daemon.stop()
                (folder / 'port').unlink(missing_ok=True)
            wrong = [c for c, v in cells.items() if (not v if isinstance(v, bool) else not v < student.close(c))]
            wrong += [] if student.learnt > 1e-3 else ['learnt']
            bad += bool(wrong)
            others = ''.join(f'  {c} {show(v)}' for c, v in cells.items() if c not in Decoder.columns)
            print(f'{family:16} {student.learnt:8.0e}' + ''.join(f'{show(cells[c]) if c in cells else "-":>19}' for c in Decoder.columns) + others
                  + (f'  {student.refusal}' if student.refusal else '') + (f'  WRONG: {", ".join(wrong)}' if wrong else ''), flush=True)
    print('all are close' if not bad else f'{bad} families differ')
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
