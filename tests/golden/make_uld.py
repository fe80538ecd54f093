#!/usr/bin/env python3
"""Golden numbers for the losses uld and uld_hybrid: PyTorch's, of rows of logits and a teacher's lists over other tokens.

Writes uld.safetensors beside this script: a student's logits, a teacher's largest K probabilities and what is left, the student's
ids of the same text (-1: none), which tokens of the student the teacher has, and each loss's rows and gradient. uld is the sorted
distance of Boizard et al. 2024 of the K largest and the rest; uld_hybrid, as TRL's GOLD, the generalised JSD of the tokens in
common and the sorted distance of the others. Needs torch and safetensors.
"""
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

ROWS, VOCAB, ITS, K = 4, 40, 60, 9

torch.manual_seed(8)
logits = (2 * torch.randn(ROWS, VOCAB)).float()
p, ids = torch.softmax(2 * torch.randn(ROWS, ITS).double(), -1).float().topk(K)
own_of = torch.full((ITS,), -1)
own_of[::2] = torch.randperm(VOCAB)[:30]  # every other token of the teacher's is one of the student's
common = torch.zeros(VOCAB, dtype=torch.uint8)
common[own_of[own_of >= 0]] = 1
own_ids = own_of[ids]


def uld(q, row):
    top = q.sort(descending=True).values[:K]
    listed = p[row].double()
    return (listed - top).abs().sum() + ((1 - listed.sum()) - (1 - top.sum())).abs()


def uld_hybrid(q, row, alpha=1.0, beta=0.5):
    listed, both = p[row].double(), own_ids[row] >= 0
    a, b = listed[both], q[own_ids[row][both]]
    a, b = torch.cat([a, 1 - a.sum()[None]]), torch.cat([b, 1 - b.sum()[None]])
    m = beta * a + (1 - beta) * b
    jsd = beta * F.kl_div(m.log(), a, reduction="sum") + (1 - beta) * F.kl_div(m.log(), b, reduction="sum")
    rest = listed[~both]
    return jsd + alpha * (rest - q[common == 0].sort(descending=True).values[:len(rest)]).abs().sum()


out = {"logits": logits, "p": p, "own_ids": own_ids.int(), "common": common}
for name, function in (("uld", uld), ("uld_hybrid", uld_hybrid)):
    z = logits.double().requires_grad_()
    rows = torch.stack([function(torch.softmax(z[r], -1), r) for r in range(ROWS)])
    grad, = torch.autograd.grad(rows.sum(), z)
    out[name], out[name + ".grad"] = rows.detach(), grad.float()
save_file(out, pathlib.Path(__file__).parent / "uld.safetensors")
