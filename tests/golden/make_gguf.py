#!/usr/bin/env python3
"""Makes tests/golden/gguf/: models of each family as the gguf package writes them, and their logits by two peers.

usage: make_gguf.py     (needs what tests/interop/requirements.txt lists; run once, the results are committed)
NAME.gguf is made without Limbeck; NAME.safetensors holds ids [T], and logits [T, V] as llama_cpp computed them from the
file and transformers from the model that it was made of.
"""
import pathlib
import sys

import safetensors.numpy

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'interop'))
import families  # noqa: E402

VOCABULARY = 48

(HERE / 'gguf').mkdir(exist_ok=True)
for name in families.FAMILIES:
    path = HERE / 'gguf' / f'{name}.gguf'
    model, ids = families.make(name, VOCABULARY), families.token_ids(VOCABULARY)
    families.write_gguf(name, model, path)
    logits = {'llama_cpp': families.by_llama_cpp(path, ids), 'transformers': families.by_transformers(model, ids)}
    apart = families.difference(logits['llama_cpp'], logits['transformers'])
    print(f'{name}: llama.cpp and transformers differ by {apart:.1e} of the largest logit')
    if apart > 1e-4:
        sys.exit('they must not')
    safetensors.numpy.save_file({'ids': ids, **logits}, path.with_suffix('.safetensors'))
