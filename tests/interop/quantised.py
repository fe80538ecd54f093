#!/usr/bin/env python3
"""How near quantised files come to the model: `limbeck export --dtype` beside llama.cpp's own quantiser.

usage: quantised.py BUILD [MODEL]     (MODEL: a GGUF file or Hugging Face folder with its tokenizer; without one, a small random model)
MODEL is exported as F32; llama.cpp's quantiser makes of that one file per type, all matrices of one type (pure), and
`limbeck export` another. One line a type: the root mean square of what weights lose either way, and, where llama.cpp runs both
files, the mean Kullback-Leibler divergence of its answers from those of the F32 file. Exit status 0 only when no type loses more
than llama.cpp's.
"""
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy
import transformers

import families

TYPES = {'q4_k': llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S, 'q6_k': llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
         'q4_0': llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, 'q8_0': llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}
VOCABULARY = 290


def random_model(folder):
    """Weights with heavy tails, as trained ones have."""
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, hidden_size=512, intermediate_size=768, num_hidden_layers=4,
                                      num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=256,
                                      bos_token_id=None, eos_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    rng = numpy.random.default_rng(3)
    for p in model.parameters():
        if p.dim() == 2:
            p.data = 0.025 * families.torch.from_numpy(rng.standard_t(5, tuple(p.shape)).astype(numpy.float32))
    model.save_pretrained(folder)
    (folder / 'tokenizer.json').write_text(families.byte_tokenizer(VOCABULARY))
    return folder


def export(limbeck, model, out, dtype):
    subprocess.run([limbeck, 'export', model, '--format=gguf', f'--dtype={dtype}', f'--out={out}'], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def quantise(source, out, kind):
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.pure, settings.nthread = kind, True, 1
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(settings)):
        raise SystemExit(f'llama.cpp cannot quantise {source}')


def matrices(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1}


def loss(path, plain):
    """Root mean square over all matrices, and of which types they are."""
    squares, n, types = 0.0, 0, set()
    for name, t in matrices(path).items():
        wide = gguf.quants.dequantize(t.data, t.tensor_type).astype(numpy.float64).reshape(-1)
        squares += ((wide - plain[name].data.reshape(-1)) ** 2).sum()
        n += wide.size
        types.add(t.tensor_type.name)
    return (squares / n) ** 0.5, sorted(types)


def divergence(path, want, ids):
    def logs(z):
        z = z.astype(numpy.float64)
        z -= z.max(1, keepdims=True)
        return z - numpy.log(numpy.exp(z).sum(1, keepdims=True))
    p, q = logs(want), logs(families.by_llama_cpp(path, ids))
    return float((numpy.exp(p) * (p - q)).sum(1).mean())


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    transformers.utils.logging.disable_progress_bar()
    limbeck, bad = str(pathlib.Path(sys.argv[1]).resolve() / 'trainer/limbeck'), 0
    with tempfile.TemporaryDirectory(prefix='limbeck-interop-') as name:
        folder = pathlib.Path(name)
        model = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else random_model(folder / 'model')
        export(limbeck, model, folder / 'plain.gguf', 'f32')
        plain = matrices(folder / 'plain.gguf')
        ids = families.token_ids(min(int(plain['token_embd.weight'].shape[1]), 40000), 48)
        want = families.by_llama_cpp(folder / 'plain.gguf', ids)
        for dtype, kind in TYPES.items():
            ours, theirs = folder / f'{dtype}.ours', folder / f'{dtype}.theirs'
            export(limbeck, model, ours, dtype)
            quantise(folder / 'plain.gguf', theirs, kind)
            (a, types), (b, _) = loss(ours, plain), loss(theirs, plain)
            bad += a > b * 1.0001
            print(f'{"ok  " if a <= b * 1.0001 else "FAIL"} {dtype:5} weights lose {a:.4e}, by llama.cpp {b:.4e} ({a / b:.3f}); answers '
                  f'{divergence(ours, want, ids):.2e}, {divergence(theirs, want, ids):.2e}; {" ".join(types)}', flush=True)
    sys.exit(int(bad > 0))


if __name__ == '__main__':
    main()
