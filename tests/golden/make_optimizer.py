#!/usr/bin/env python3
"""Golden numbers for AdamW: torch.optim.AdamW with clipped gradients, a few steps, several settings.

Writes optimizer.safetensors beside this script. Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file

CASES = {
    # name: (lr, betas, eps, weight_decay, max_norm)
    "plain": (1e-2, (0.9, 0.999), 1e-8, 0.0, 0.0),
    "decay": (4e-3, (0.9, 0.95), 1e-8, 0.1, 0.0),
    "clip": (3e-3, (0.8, 0.99), 1e-6, 0.05, 1.0),
}
STEPS = 6

torch.manual_seed(7)
out = {}
for name, (lr, betas, eps, decay, max_norm) in CASES.items():
    matrix = torch.nn.Parameter(torch.randn(7, 5))
    vector = torch.nn.Parameter(torch.randn(11))
    out[f"{name}.matrix.0"] = matrix.detach().clone()
    out[f"{name}.vector.0"] = vector.detach().clone()
    out[f"{name}.settings"] = torch.tensor([lr, *betas, eps, decay, max_norm], dtype=torch.float64)
    optimizer = torch.optim.AdamW(
        [{"params": [matrix], "weight_decay": decay}, {"params": [vector], "weight_decay": 0.0}],
        lr=lr, betas=betas, eps=eps)
    norms, rates = [], []
    for step in range(1, STEPS + 1):
        matrix.grad = torch.randn(7, 5) * step
        vector.grad = torch.randn(11)
        out[f"{name}.matrix_grad.{step}"] = matrix.grad.clone()
        out[f"{name}.vector_grad.{step}"] = vector.grad.clone()
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in (matrix, vector)))
        norms.append(norm.item())
        if max_norm > 0:
            torch.nn.utils.clip_grad_norm_([matrix, vector], max_norm)
        rate = lr * (1 - (step - 1) / (2 * STEPS))
        rates.append(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        out[f"{name}.matrix.{step}"] = matrix.detach().clone()
        out[f"{name}.vector.{step}"] = vector.detach().clone()
    out[f"{name}.norms"] = torch.tensor(norms, dtype=torch.float64)
    out[f"{name}.rates"] = torch.tensor(rates, dtype=torch.float64)

save_file(out, pathlib.Path(__file__).with_name("optimizer.safetensors"))
