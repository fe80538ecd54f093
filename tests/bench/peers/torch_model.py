#!/usr/bin/env python3
"""What bench_model measures, done by PyTorch and transformers: the same shapes, batches and losses.

usage: torch_model.py 10m|1m [ROUNDS] [CASE ...]     cases: score train kd; threads: OMP_NUM_THREADS
One JSON line a case: tokens_per_second (median of rounds), spread (slowest round / fastest).
"""
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {  # layers, width, feed, heads, vocabulary; sequences and length when scoring, when training
    '10m': (8, 256, 688, 8, 8192, 8, 512, 16, 256),
    '1m': (4, 128, 344, 4, 4096, 32, 128, 32, 128),
}
TOP_K = 64


def make(name):
    layers, width, feed, heads, vocab = SHAPES[name][:5]
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=feed, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048,
        tie_word_embeddings=True, attn_implementation='sdpa'))


def score(model, ids):
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
        torch.topk(logits, TOP_K)
        torch.logsumexp(logits, -1)


def train(model, optimizer, ids, top):
    optimizer.zero_grad(set_to_none=True)
    logits = model(input_ids=ids, use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    if top is not None:  # Kullback-Leibler divergence of the k largest and of what is left
        top_ids, p = top
        log_q = logits.gather(-1, top_ids) - logits.logsumexp(-1, keepdim=True)
        rest_p, rest_q = 1 - p.sum(-1), (1 - log_q.exp().sum(-1)).clamp_min(1e-9)
        kl = (p * (p.log() - log_q)).sum(-1) + rest_p * (rest_p.log() - rest_q.log())
        loss = loss + kl.mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def main():
    name, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    shape, model = SHAPES[name], make(sys.argv[1])
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', os.cpu_count())))
    for case in sys.argv[3:] or ['score', 'train', 'kd']:
        batch, length = shape[5:7] if case == 'score' else shape[7:9]
        ids, seconds = torch.randint(0, shape[4], (batch, length)), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, foreach=True)
        top = None
        if case == 'kd':
            top = (torch.randint(0, shape[4], (batch, length, TOP_K)),
                   0.9 * torch.rand(batch, length, TOP_K).softmax(-1))
        for _ in range(rounds + 1):
            start = time.perf_counter()
            if case == 'score':
                score(model, ids)
            else:
                train(model, optimizer, ids, top)
            seconds.append(time.perf_counter() - start)
        seconds = seconds[1:]
        print(json.dumps({'case': f'torch {torch.__version__} {case}-{name}', 'threads': torch.get_num_threads(),
                          'tokens_per_second': round(ids.numel() / statistics.median(seconds), 1),
                          'spread': round(max(seconds) / min(seconds), 3)}), flush=True)


if __name__ == '__main__':
    main()
