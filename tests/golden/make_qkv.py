#!/usr/bin/env python3
"""Makes tests/golden/model/<case>/qkv.safetensors: what the projections of queries, keys and values give in the models that
make_model.py made, by transformers: queries.N, keys.N, values.N [rows, columns], before norms and rotary positions.

usage: make_qkv.py      (needs torch, transformers, safetensors; run once, the results are committed)
"""
import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

HERE = pathlib.Path(__file__).parent / 'model'


def apart(config, all_of_it):
    """q, k, v of one projection whose rows are all queries, then keys, then values."""
    head = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    kv = (getattr(config, 'num_key_value_heads', None) or config.num_attention_heads) * head
    return all_of_it.split([all_of_it.shape[-1] - 2 * kv, kv, kv], -1)


def by_head(config, all_of_it):
    """The same where each head's q, k and v lie together."""
    parts = all_of_it.unflatten(-1, (config.num_attention_heads, 3, -1))
    return [parts[..., i, :].flatten(-2) for i in range(3)]


# Names of the three modules, or of one and how its output is taken apart.
CASES = {
    'qwen2': ('layers.{}.self_attn.{}_proj', None),      # biases, fewer keys than queries
    'qwen3': ('layers.{}.self_attn.{}_proj', None),      # norms of q and k, which come later
    'gpt2': ('h.{}.attn.c_attn', apart),
    'phi3': ('layers.{}.self_attn.qkv_proj', apart),
    'gpt_neox': ('layers.{}.attention.query_key_value', by_head),
    'bert': ('encoder.layer.{}.attention.self.{}', None),
    'distilbert': ('transformer.layer.{}.attention.{}_lin', None),
}
WORDS = {'bert': ('query', 'key', 'value')}


@torch.no_grad()
def make(case, pattern, take):
    folder = HERE / case
    expected = load_file(folder / 'expected.safetensors')
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation='eager').eval()
    bounds, ids = expected['offsets'].tolist(), expected['ids'].long()
    modules, seen, out = dict(model.named_modules()), {}, {}
    n = model.config.num_hidden_layers
    for layer in range(n):
        names = [pattern.format(layer)] if take else [pattern.format(layer, w) for w in WORDS.get(case, 'qkv')]
        for i, name in enumerate(names):
            def keep(_module, _inputs, result, key=(layer, i)):
                seen.setdefault(key, []).append(result[0].clone())
            modules[name].register_forward_hook(keep)
    for a, b in zip(bounds, bounds[1:]):
        if b > a:
            model(input_ids=ids[None, a:b])
    for layer in range(n):
        parts = take(model.config, torch.cat(seen[layer, 0])) if take else [torch.cat(seen[layer, i]) for i in range(3)]
        for what, part in zip(('queries', 'keys', 'values'), parts):
            out[f'{what}.{layer}'] = part.contiguous()
    save_file(out, folder / 'qkv.safetensors')
    print(case, {k: tuple(v.shape) for k, v in out.items() if k.endswith('.0')})


for name, (where, how) in CASES.items():
    make(name, where, how)
