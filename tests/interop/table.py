#!/usr/bin/env python3
"""Each family x {served, trained} x each format of weights against transformers on the same, widened weights: one table.

usage: table.py BUILD [--formats F16,Q4_0,...] [FAMILY...]     (BUILD: the build folder; needs requirements.txt beside this file)
Small random models of families.ALL and encoders.ENCODERS, wide enough for every block of GGUF's formats. Folders of F32,
F16 and BF16 are written by transformers; GGUF files by the gguf package, their blocks by ggml's own quantisation, which is
llama.cpp's; what transformers computes with are the weights that the gguf package reads from those files. A cell has the largest
difference, relative to the largest number, of
  logits, states, attention     as limbeckd serves them, all layers
  gradients                     of every parameter, by the forward and backward that trains (tests/support/run_model)
Exit status 0 only when all are within TOLERANCE.
"""
import argparse
import copy
import ctypes
import json
import math
import pathlib
import subprocess
import tempfile
import urllib.request

import gguf
import llama_cpp
import numpy
import safetensors.numpy
import torch
import transformers

import check
import encoders
import families

TOLERANCE = {'logits': 2e-5, 'states': 2e-5, 'attention': 2e-5, 'gradients': 1e-4}
COLUMNS = list(TOLERANCE)
FOLDERS = {'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16}
QUANTS = ('Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K', 'IQ4_NL', 'IQ4_XS', 'MXFP4')
WIDTH = 256

# ---- models ----


def widen(name):
    """The family once more with rows of whole blocks; its name there."""
    config_class, special, arch = families.ALL[name]
    special = dict(special, initializer_range=0.25 * math.sqrt(24 / WIDTH))
    if arch == 'gpt2':
        special |= dict(n_embd=WIDTH, n_inner=WIDTH)
    else:
        special |= dict(hidden_size=WIDTH, intermediate_size=WIDTH)
    special |= {k: WIDTH for k in special if k.endswith('_intermediate_size')}
    rope = special.get('rope_parameters', {})
    if 'short_factor' in rope:
        special['rope_parameters'] = {**rope, **families.factors(WIDTH // families.SMALL['num_attention_heads'] // 2)}
    wide = name + ' wide'
    families.ALL[wide] = families.FAMILIES[wide] = (config_class, special, arch)
    if name in families.BASES:
        families.BASES[wide] = families.BASES[name]
    return wide


class Decoder:
    def __init__(self, name):
        self.name = widen(name)
        self.model = families.make(self.name, check.VOCABULARY)
        self.ids = families.token_ids(check.VOCABULARY, 25)

    def load(self, folder):
        return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation='eager').float().eval()

    def inputs(self):
        return {'ids': self.ids}

    def served(self):
        return self.ids[:-1]

    def reference(self, model):
        model.zero_grad()
        ids = torch.from_numpy(self.ids.astype(numpy.int64))
        out = model(ids[None, :-1], output_hidden_states=True, output_attentions=True)
        torch.nn.functional.cross_entropy(out.logits[0], ids[1:]).backward()
        return parts(out, out.logits[0])


class Encoder:
    def __init__(self, name):
        torch.manual_seed(3)
        config = copy.deepcopy(encoders.ENCODERS[name])
        self.model = transformers.AutoModel.from_config(config, attn_implementation='eager').float().eval()
        with torch.no_grad():
            for p in self.model.parameters():
                p += 0.2 * torch.randn_like(p)
        self.ids = families.token_ids(check.VOCABULARY, 24)
        self.ids[self.ids == config.pad_token_id] += 5  # PyTorch gives the row of pads no gradient
        self.target = numpy.random.default_rng(2).standard_normal((24, config.hidden_size)).astype(numpy.float32)

    def load(self, folder):
        return transformers.AutoModel.from_pretrained(folder, attn_implementation='eager').float().eval()

    def inputs(self):
        return {'ids': self.ids, 'states_target': self.target}

    def served(self):
        return self.ids

    def reference(self, model):
        model.zero_grad()
        out = model(torch.from_numpy(self.ids.astype(numpy.int64))[None], output_hidden_states=True, output_attentions=True)
        (out.last_hidden_state[0] * torch.from_numpy(self.target)).sum().backward()
        return parts(out, None)


def parts(out, logits):
    want = {f'hidden_states.{i}': h[0].detach().numpy() for i, h in enumerate(out.hidden_states)}
    want |= {f'attentions.{i}': a[0].detach().numpy() for i, a in enumerate(out.attentions)}
    return want if logits is None else want | {'logits': logits.detach().numpy()}


# ---- GGUF files of every format ----

GGML = ctypes.CDLL(str(next((pathlib.Path(llama_cpp.__file__).parent / 'lib').glob('libggml-base.so*'))))
GGML.ggml_quantize_chunk.restype = ctypes.c_size_t
GGML.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
                                     ctypes.c_void_p]


def quantise(rows, kind):
    """rows [..., C] as ggml's blocks, bytes [..., bytes of a row]."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    flat = numpy.ascontiguousarray(rows.reshape(-1, rows.shape[-1]), dtype=numpy.float32)
    out = numpy.empty((flat.shape[0], flat.shape[1] // block * size), dtype=numpy.uint8)
    written = GGML.ggml_quantize_chunk(int(kind), flat.ctypes.data, out.ctypes.data, 0, flat.shape[0], flat.shape[1], None)
    assert written == out.nbytes
    return out.reshape(*rows.shape[:-1], out.shape[-1])


class Stored:
    """A GGUF of the model in F32, and where each of its numbers comes from: a model whose weights are numbered tells."""

    def __init__(self, name, model, folder):
        self.path, numbered, at = folder / 'f32.gguf', copy.deepcopy(model), 0
        families.write_gguf(name, model, self.path)
        with torch.no_grad():
            for p in numbered.parameters():
                p.copy_(torch.arange(at, at + p.numel(), dtype=torch.float32).reshape(p.shape))
                at += p.numel()
        assert at < 1 << 24  # numbers that F32 holds
        families.write_gguf(name, numbered, folder / 'numbers.gguf')
        self.tensors = {t.name: t for t in gguf.GGUFReader(self.path).tensors}
        self.places = {t.name: t.data.astype(numpy.int64) for t in gguf.GGUFReader(folder / 'numbers.gguf').tensors}

    def as_format(self, kind, path, model):
        """Writes the file with matrices of that format; the model gets the numbers that stand in it."""
        values = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy().copy()
        reader, count = gguf.GGUFReader(self.path), 0
        tensors = []
        for t in reader.tensors:
            data = t.data
            if data.ndim > 1 and data.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0:
                raw = quantise(data, kind)
                wide = gguf.quants.dequantize(raw, kind).astype(numpy.float32)
                values[self.places[t.name].reshape(-1)] = wide.reshape(-1)
                tensors.append((t.name, data.shape, kind, raw))
                count += 1
            else:
                tensors.append((t.name, data.shape, gguf.GGMLQuantizationType.F32, data))
        write_again(self.path, path, tensors)
        at = 0
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.from_numpy(values[at:at + p.numel()]).reshape(p.shape))
                at += p.numel()
        if count == 0:
            raise SystemExit(f'{path.name}: no matrix of the model is of that format')


def write_again(old, new, tensors, changed=None):
    """The keys of a GGUF file, some changed, and other tensors."""
    reader = gguf.GGUFReader(old)
    out = gguf.GGUFWriter(new, reader.get_field('general.architecture').contents())
    for field in reader.fields.values():
        if field.name.startswith('GGUF.') or field.name == 'general.architecture':
            continue
        value, kind = (changed or {}).get(field.name, field.contents()), field.types[0]
        out.add_key_value(field.name, value, kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for name, shape, kind, raw in tensors:
        raw_shape = raw.shape if kind != gguf.GGMLQuantizationType.F32 else None
        out.add_tensor(name, raw, raw_shape=raw_shape, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# ---- comparing ----


def served(daemon, model, ids, names):
    question = {'inputs': [{'name': 'input_ids', 'datatype': 'INT32', 'shape': [1, len(ids)], 'data': ids.tolist()}],
                'outputs': [{'name': name} for name in names]}
    with urllib.request.urlopen(f'{daemon.base}/v2/models/{model}/infer', json.dumps(question).encode()) as answer:
        outputs = json.load(answer)['outputs']
    return {o['name']: numpy.array(o['data'], dtype=numpy.float32).reshape(o['shape'])[0] for o in outputs}


def gradients_of(model):
    """transformers' gradients under the names that files have: of each expert by itself."""
    for name, p in model.named_parameters():
        if p.grad is None:
            continue
        name, grad = name.replace('.language_model.', '.'), p.grad.numpy()
        layer, _, what = name.partition('.mlp.')
        for place, gate, up, down in (('mlp', 'gate_proj', 'up_proj', 'down_proj'), ('block_sparse_moe', 'w1', 'w3', 'w2')):
            for e in range(len(grad) if what in ('experts.gate_up_proj', 'experts.down_proj') else 0):
                halves = numpy.split(grad[e], 2) if 'gate' in what else [grad[e]]
                yield from zip((f'{layer}.{place}.experts.{e}.{k}.weight' for k in ((gate, up) if 'gate' in what else (down,))), halves)
            if what == 'gate.weight':
                yield f'{layer}.{place}.gate.weight', grad
        yield name, grad


def gradients_apart(have, model):
    """Largest difference of a parameter's gradient, relative to its largest."""
    wanted, worst, found = dict(gradients_of(model)), 0.0, 0
    scale = max(float(numpy.abs(g).max()) for g in wanted.values())
    for name, mine in have.items():
        if name == 'logits':
            continue
        name = name.replace('embed_out.', 'lm_head.')  # GPT-NeoX's files call it so
        theirs = wanted[name] if name in wanted else wanted[next(k for k in wanted if name.endswith('.' + k) or k.endswith('.' + name))]
        theirs = theirs.T if theirs.shape != mine.shape and theirs.T.shape == mine.shape else theirs
        if theirs.ndim == 2 and theirs.shape[0] == theirs.shape[1] and '.c_' in name:
            theirs = theirs.T  # GPT-2's files hold matrices turned
        # a bias of keys that are not turned moves all scores of a row alike, which softmax does not see: rounding stands there
        most = scale if name.endswith(('.key.bias', '.k_lin.bias')) else float(numpy.abs(theirs).max())
        worst, found = max(worst, float(numpy.abs(mine.reshape(theirs.shape) - theirs).max()) / max(most, 1e-30)), found + 1
    return worst, found


def apart(have, want, begins):
    return max((families.difference(have[k], want[k]) for k in want if k.startswith(begins)), default=None)


def row(told, family, kind, cells):
    bad = [c for c in COLUMNS if cells[c] is not None and not cells[c] < TOLERANCE[c]]
    told.append(bool(bad))
    shown = ''.join(f'{"-" if cells[c] is None else format(cells[c], ".1e"):>10}{"!" if c in bad else " "}' for c in COLUMNS)
    print(f'{family:16} {kind:7}{shown}', flush=True)


def check_family(programs, family, is_encoder, formats, told):
    with tempfile.TemporaryDirectory(prefix='limbeck-table-') as name:
        folder, models, references = pathlib.Path(name), {}, {}
        subject = Encoder(family) if is_encoder else Decoder(family)
        safetensors.numpy.save_file(subject.inputs(), folder / 'in.safetensors')
        stored = None if is_encoder or family in families.FOLDER_ONLY else Stored(subject.name, subject.model, folder)
        for kind in formats:
            if kind in FOLDERS:
                models[kind] = folder / kind
                copy.deepcopy(subject.model).to(FOLDERS[kind]).save_pretrained(models[kind])
                references[kind] = subject.load(models[kind])
            elif stored is not None:
                models[kind], references[kind] = folder / f'{kind}.gguf', copy.deepcopy(subject.model)
                stored.as_format(gguf.GGMLQuantizationType[kind], models[kind], references[kind])
        daemon = check.Daemon(programs['limbeckd'], folder, models)
        try:
            for kind, path in models.items():
                want = subject.reference(references[kind])
                have = served(daemon, kind, subject.served(), want)
                out = folder / 'out.safetensors'
                subprocess.run([programs['run_model'], path, folder / 'in.safetensors', out, '--train'], check=True)
                gradients, found = gradients_apart(safetensors.numpy.load_file(out), references[kind])
                if not found:
                    raise SystemExit(f'{family}: no gradient was compared')
                row(told, family, kind, {'logits': apart(have, want, 'logits'), 'states': apart(have, want, 'hidden_states'),
                                         'attention': apart(have, want, 'attentions'), 'gradients': gradients})
        finally:
            daemon.stop()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('build', type=pathlib.Path)
    arguments.add_argument('--formats', default=','.join((*FOLDERS, *QUANTS)))
    arguments.add_argument('family', nargs='*')
    a = arguments.parse_intermixed_args()
    transformers.utils.logging.disable_progress_bar()
    programs = {p: str(a.build.resolve() / where / p) for p, where in (('limbeckd', 'server'), ('run_model', 'tests/support'))}
    told = []
    print(f'{"family":16} {"format":7}' + ''.join(f'{c:>10} ' for c in COLUMNS))
    for family in a.family or [*families.ALL, *encoders.ENCODERS]:
        check_family(programs, family, family in encoders.ENCODERS, a.formats.split(','), told)
    print(f'{told.count(False)} of {len(told)} rows are close (' + ', '.join(f'{c} {TOLERANCE[c]:g}' for c in COLUMNS) + ')')
    raise SystemExit(any(told) or not told)


if __name__ == '__main__':
    main()
