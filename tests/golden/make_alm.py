#!/usr/bin/env python3
"""Golden numbers for the loss alm: PyTorch's, of rows of logits and two tokenizations of one text.

Writes alm.safetensors beside this script. The loss is the binary cross entropy of chunk likelihoods as in the code of
Minixhofer, Vulic, Ponti 2025 (arXiv 2503.20083), summed over chunks and divided by the rows. Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file

ROWS, VOCAB, TEMP, EPSILON = 24, 40, (1.0, 10.0, 100.0), 1e-6

torch.manual_seed(3)
logits = (2 * torch.randn(ROWS, VOCAB)).requires_grad_()
labels = torch.randint(VOCAB, (ROWS,))
its = -3 * torch.rand(30)  # the teacher's log-probabilities of its own 30 tokens
chunks, at, its_at = [], 1, 0
for n, its_n in [(1, 1), (2, 1), (1, 3), (3, 2), (1, 1), (2, 4), (1, 1), (4, 5), (1, 2)]:
    chunks.append([at, n, its_at, its_n])
    at, its_at = at + n + (n == 3), its_at + its_n + (its_n == 5)  # some tokens are of no chunk
out = {"logits": logits.detach().clone(), "labels": labels.int(), "its": its,
       "chunks": torch.tensor(chunks, dtype=torch.int32)}
for temp in TEMP:
    own = torch.log_softmax(logits.double(), -1)[torch.arange(ROWS), labels]
    total = 0
    for at, n, its_at, its_n in chunks:
        t = its[its_at:its_at + its_n].double().sum() / temp - EPSILON
        s = own[at:at + n].sum() / temp - EPSILON
        total = total - (t.exp() * s + (1 - t.exp()) * torch.log(1 - s.exp()))
    loss = total / ROWS
    grad, = torch.autograd.grad(loss, logits)
    out[f"loss.{temp:g}"] = loss.detach().reshape(1)
    out[f"grad.{temp:g}"] = grad
save_file(out, pathlib.Path(__file__).parent / "alm.safetensors")
