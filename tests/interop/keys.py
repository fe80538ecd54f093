#!/usr/bin/env python3
"""Each key of each family's config.json and GGUF file with other values: is it refused, or are the numbers those of the reference?

usage: keys.py BUILD [--show] [FAMILY...]     (BUILD: the build folder; needs requirements.txt beside this file)
A small random model of each of families.ALL and encoders.ENCODERS; one key at a time is given other values, and the model is
opened by Limbeck (tests/support/run_model) and by transformers, of a GGUF file by llama.cpp. A value is
  refused    by Limbeck: no numbers, no harm
  followed   the numbers change, and both change alike
  idle       the numbers stay, with both
  alone      the reference does not take it (an error, a crash, no numbers), Limbeck does
  WRONG      both take it and their numbers differ
One line a family, and every WRONG one with its value; --show lists the keys that are idle and those that Limbeck takes alone.
Exit status 0 only when nothing is wrong.
"""
import argparse
import collections
import copy
import json
import os
import pathlib
import pickle
import select
import shutil
import signal
import subprocess
import tempfile

import gguf
import numpy
import safetensors.numpy
import torch
import transformers

import check
import encoders
import families
import table

CLOSE, CLOSE_BY_TABLE, SAME = 1e-4, 5e-3, 1e-6
PATIENCE = 60  # seconds for llama.cpp, which may hang
ACTIVATIONS = ['relu', 'silu', 'gelu', 'gelu_new', 'gelu_pytorch_tanh', 'gelu_fast', 'quick_gelu', 'swish', 'tanh', 'sigmoid']
ROPES = ['default', 'linear', 'dynamic', 'yarn', 'llama3', 'longrope', 'proportional']
# of transformers' own machinery, not of a model: other values ask for other code or packages
NOT_OF_MODELS = ('model_type', 'architectures', 'transformers_version', 'auto_map', 'dtype', 'torch_dtype', '_name_or_path', 'quantization_config')
# llama.cpp chooses Phi-3's factors by its context, transformers and Limbeck by the text
BY_CONTEXT = ('phi3.rope.scaling.original_context_length',)


def others(key, value):
    """Other values for a key."""
    name = key.rsplit('.', 1)[-1]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, value // 2, 0]
    if isinstance(value, float):
        return [2 * value, value / 2 + 0.1, 0.0, 1.0]
    if isinstance(value, str):
        return (ACTIVATIONS if 'act' in name else ROPES if name in ('rope_type', 'type') else
                ['relative_key', 'relative_key_query'] if name == 'position_embedding_type' else [value + 'x'])
    if isinstance(value, list):
        if all(isinstance(v, (int, float)) for v in value):
            return [value[::-1], [2 * v for v in value], value[:-1]]
        return [value[::-1], [value[0]] * len(value), value[:-1]]
    return [3, 0.5, True, 'x'] if value is None else []


def leaves(config, prefix=''):
    for key, value in config.items():
        if isinstance(value, dict) and value and key not in ('id2label', 'label2id'):
            yield from leaves(value, f'{prefix}{key}.')
        else:
            yield prefix + key, value


def changed(config, path, value):
    out = copy.deepcopy(config)
    at = out
    *above, last = path.split('.') if path not in out else [path]
    for part in above:
        at = at[part]
    at[last] = value
    return out


def numbers(told):
    """All numbers of a run in one line."""
    return numpy.concatenate([told[k].reshape(-1).astype(numpy.float64) for k in sorted(told) if k == 'logits' or k.startswith('hidden_states')])


class Family:
    def __init__(self, build, folder, name, ids):
        self.run_model, self.folder, self.name, self.ids = build / 'tests' / 'support' / 'run_model', folder, name, ids
        self.encoder = name in encoders.ENCODERS
        safetensors.numpy.save_file({'ids': ids if self.encoder else numpy.append(ids, ids[:1])}, folder / 'in.safetensors')

    def by_limbeck(self, path):
        """The numbers, or the line that refuses."""
        out = self.folder / 'out.safetensors'
        run = subprocess.run([self.run_model, path, self.folder / 'in.safetensors', out], stderr=subprocess.PIPE, text=True)
        if run.returncode < 0:
            return None, f'crashed by signal {-run.returncode}'
        return (None, run.stderr.strip()) if run.returncode else (numbers(safetensors.numpy.load_file(out)), '')

    def by_transformers(self, path):
        kind = transformers.AutoModel if self.encoder else transformers.AutoModelForCausalLM
        try:
            model, told = kind.from_pretrained(path, attn_implementation='eager', dtype=torch.float32, output_loading_info=True)
            if set(told['missing_keys']) - {'pooler.dense.weight', 'pooler.dense.bias'} or told['mismatched_keys']:
                return None
            with torch.no_grad():
                out = model.eval()(torch.from_numpy(self.ids.astype(numpy.int64))[None], output_hidden_states=True, use_cache=False, return_dict=True)
        except Exception:  # noqa: BLE001: whatever it says, it does not take it
            return None
        want = {f'hidden_states.{i}': h[0].numpy() for i, h in enumerate(out.hidden_states)}
        return numbers(want if self.encoder else want | {'logits': out.logits[0].numpy()})


def in_a_child(work):
    """What work returns, None when it fails or the process ends otherwise: llama.cpp aborts on files that it does not expect."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2), os.dup2(null, 1)
        try:
            with os.fdopen(write, 'wb') as f:
                pickle.dump(work(), f)
        finally:
            os._exit(0)
    os.close(write)
    if not select.select([read], [], [], PATIENCE)[0]:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read, 'rb') as f:
        data = f.read()
    os.waitpid(child, 0)
    return pickle.loads(data) if data else None


def judge(mine, theirs, before, close):
    if mine is None:
        return 'refused'
    if theirs is None or not numpy.isfinite(theirs).all() or not theirs.any():
        return 'alone'
    if mine.shape != theirs.shape or not families.difference(mine, theirs) < close:
        return 'WRONG'
    return 'idle' if families.difference(mine, before) < SAME else 'followed'


def tell(family, kind, found, wrong, show):
    counts = collections.Counter(what for _, what in found)
    print(f'{family:16} {kind:12}' + ''.join(f'{counts[w]:5} {w}' for w in ('refused', 'followed', 'idle', 'alone', 'WRONG')), flush=True)
    for line in wrong:
        print('    ' + line)
    for what in ('idle', 'alone') if show else ():
        print(f'    {what}: ' + ', '.join(sorted({k for k, w in found if w == what})))


def try_config(family, config, folder, show):
    before, said = family.by_limbeck(folder)
    want = family.by_transformers(folder)
    if before is None or want is None or not families.difference(before, want) < CLOSE:
        raise SystemExit(f'{family.name}: the model itself is not opened alike: {said}')
    found, wrong = [], []
    for key, value in leaves(config):
        if key.rsplit('.', 1)[-1] in NOT_OF_MODELS:
            continue
        for other in others(key, value):
            if other == value and type(other) is type(value):
                continue
            (folder / 'config.json').write_text(json.dumps(changed(config, key, other)))
            mine, said = family.by_limbeck(folder)
            what = judge(mine, family.by_transformers(folder) if mine is not None else None, before, CLOSE)
            if 'crashed' in said:
                what = 'WRONG'
            found.append((key if what != 'alone' else f'{key} {other!r}', what))
            if what == 'WRONG':
                wrong.append(f'{key} {value!r} -> {other!r} {said}')
    tell(family.name, 'config.json', found, wrong, show)
    return len(wrong)


def try_gguf(family, path, show):
    by_table = families.ALL[family.name][2] in families.BY_TABLE
    close = CLOSE_BY_TABLE if by_table else CLOSE

    def by_limbeck(file):
        out = family.folder / 'out.safetensors'
        run = subprocess.run([family.run_model, file, family.folder / 'in.safetensors', out], stderr=subprocess.PIPE, text=True)
        return (safetensors.numpy.load_file(out)['logits'], '') if not run.returncode else (None, run.stderr.strip())

    before, said = by_limbeck(path)
    want = in_a_child(lambda: families.by_llama_cpp(path, family.ids))
    if before is None or want is None or not families.difference(before, want) < close:
        raise SystemExit(f'{family.name}: the GGUF itself is not opened alike: {said}')
    reader, found, wrong = gguf.GGUFReader(path), [], []
    tensors = [(t.name, t.data.shape, t.tensor_type, t.data) for t in reader.tensors]
    keys = [f.name for f in reader.fields.values() if not f.name.startswith(('GGUF.', 'tokenizer.')) and f.name != 'general.architecture']
    for key in keys:
        value = reader.get_field(key).contents()
        for other in others(key, value):
            if other == value or (key in BY_CONTEXT and other > 0):
                continue
            file = family.folder / 'changed.gguf'
            table.write_again(path, file, tensors, {key: other})
            mine, said = by_limbeck(file)
            theirs = in_a_child(lambda: families.by_llama_cpp(file, family.ids)) if mine is not None else None
            what = judge(mine, theirs, before, close)
            found.append((key if what != 'alone' else f'{key} {other!r}', what))
            if what == 'WRONG':
                wrong.append(f'{key} {value!r} -> {other!r}')
    tell(family.name, 'GGUF', found, wrong, show)
    return len(wrong)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('build', type=pathlib.Path)
    arguments.add_argument('--show', action='store_true')
    arguments.add_argument('family', nargs='*')
    a = arguments.parse_intermixed_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    ids, bad = families.token_ids(check.VOCABULARY), 0
    for name in a.family or [*families.ALL, *encoders.ENCODERS]:
        with tempfile.TemporaryDirectory(prefix='limbeck-keys-') as at:
            folder = pathlib.Path(at)
            family = Family(a.build.resolve(), folder, name, ids)
            if family.encoder:
                torch.manual_seed(3)
                model = transformers.AutoModel.from_config(copy.deepcopy(encoders.ENCODERS[name])).float().eval()
            else:
                model = families.make(name, check.VOCABULARY)
            model.save_pretrained(folder / 'hf')
            config = {**model.config.to_dict(), **json.loads((folder / 'hf' / 'config.json').read_text())}
            (folder / 'hf' / 'config.json').write_text(json.dumps(config))
            bad += try_config(family, config, folder / 'hf', a.show)
            if name in families.FAMILIES:
                families.write_gguf(name, model, folder / 'm.gguf')
                bad += try_gguf(family, folder / 'm.gguf', a.show)
            shutil.rmtree(folder / 'hf')
    print('nothing is wrong' if not bad else f'{bad} values are wrong')
    raise SystemExit(bad > 0)


if __name__ == '__main__':
    main()
