#!/usr/bin/env python3
"""Makes tests/golden/vllm/model: a llama of 2 layers with random weights in BF16 over 263 byte-level tokens and 272 rows of head, of a
shape that vLLM's kernels for CPUs take (heads of 32).

usage: make_vllm.py     (needs torch, transformers, tokenizers; run once, the result is committed)
What a real vLLM answers about it is tests/golden/vllm/recorded.json, which tests/interop/vllm_beside.py --record writes.
"""
import pathlib

import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent / 'vllm' / 'model'


def make_tokenizer(folder):
    """Byte-level with five merges, an end and a beginning of texts."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [('t', 'h'), ('th', 'e'), ('i', 'n'), ('Ġ', 'a'), ('a', 'n')]
    vocabulary = {token: i for i, token in enumerate(['<s>', '</s>', *alphabet, *(a + b for a, b in merges)])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 0)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token='<s>', eos_token='</s>')
    fast.chat_template = ("{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
                          "{% if add_generation_prompt %}<s>assistant:{% endif %}")
    fast.save_pretrained(folder)


def make(folder):
    make_tokenizer(folder)
    torch.manual_seed(5)
    config = transformers.LlamaConfig(vocab_size=272, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                      head_dim=32, num_key_value_heads=1, max_position_embeddings=128, initializer_range=0.3,
                                      tie_word_embeddings=True, bos_token_id=0, eos_token_id=1)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


if __name__ == '__main__':
    make(HERE)
