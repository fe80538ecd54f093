#!/usr/bin/env python3
"""Makes tests/golden/gguf/: models of each family as the gguf package writes them, and their logits by two peers.

usage: make_gguf.py     (needs what tests/interop/requirements.txt lists; run once, the results are committed)
NAME.gguf is made without Limbeck; NAME.safetensors holds ids [T], and logits [T, V] as llama_cpp computed them from the
file and transformers from the model that it was made of. Of bert it is sentence_embedding [1, C], and the ids are those of
encoders.TEXT, which llama_cpp cut itself.
"""
import pathlib
import sys

import numpy
import safetensors.numpy
import tokenizers
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'interop'))
import encoders  # noqa: E402
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

path = HERE / 'gguf' / 'bert.gguf'
config = transformers.BertConfig(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                                 max_position_embeddings=64)
model = encoders.random_encoder(config)
encoders.write_gguf(model, path)
ids = numpy.array(tokenizers.Tokenizer.from_str(encoders.word_tokenizer(config.vocab_size)).encode(encoders.TEXT).ids, dtype=numpy.int32)
tokens, vector = encoders.by_llama_cpp(path, encoders.TEXT)
assert tokens == ids.tolist()
own = encoders.encoder_by_transformers(model, ids)['sentence_embedding']
apart = families.difference(vector['sentence_embedding'], own)
print(f'bert: llama.cpp and transformers differ by {apart:.1e} of the largest number')
assert apart < encoders.CLOSE_BY_TABLE
safetensors.numpy.save_file({'ids': ids, 'llama_cpp': vector['sentence_embedding'][None], 'transformers': own[None]},
                            path.with_suffix('.safetensors'))
