#!/usr/bin/env python3
"""Golden numbers for optimizers and averages of weights: torch.optim.AdamW and SGD with clipped gradients, a few steps, several
settings; Lion as its paper writes it (algorithm 2 of arXiv 2302.06675) and Muon, in doubles.

Writes optimizer.safetensors beside this script. Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file



class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, betas, **_):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                g = p.grad.double()
                m = self.state[p].setdefault("m", torch.zeros_like(g))
                update = torch.sign(b1 * m + (1 - b1) * g)
                p.copy_((p.double() - group["lr"] * (update + group["weight_decay"] * p.double())).float())
                m.copy_(b2 * m + (1 - b2) * g)


class Muon(torch.optim.Optimizer):
    """Jordan et al.'s for matrices with the step's size of Liu et al. (arXiv 2502.16982), in doubles, where torch.optim.Muon
    has bfloat16; AdamW for the rest."""

    def __init__(self, groups, lr, betas, eps, momentum, nesterov):
        matrices, vectors = groups
        super().__init__([matrices], {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0})
        self.rest = torch.optim.AdamW([vectors], lr=lr, betas=betas, eps=eps)
        self.param_groups += self.rest.param_groups

    @torch.no_grad()
    def step(self):
        self.rest.step()
        group = self.param_groups[0]
        for p in group["params"]:
            g = p.grad.double()
            m = self.state[p].setdefault("m", torch.zeros_like(g))
            m.lerp_(g, 1 - group["momentum"])
            u = g.lerp(m, group["momentum"]) if group["nesterov"] else m
            x = u.T if u.shape[0] > u.shape[1] else u
            x = x / x.norm().clamp(min=1e-7)
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            x = x.T if u.shape[0] > u.shape[1] else x
            rate = group["lr"] * 0.2 * max(u.shape) ** 0.5
            p.copy_((p.double() * (1 - group["lr"] * group["weight_decay"]) - rate * x).float())


def muon(groups, lr, betas, eps, momentum, nesterov):
    return Muon(groups, lr, betas, eps, momentum, nesterov)


def adamw(groups, lr, betas, eps, momentum, nesterov):
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)


def sgd(groups, lr, betas, eps, momentum, nesterov):
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def lion(groups, lr, betas, eps, momentum, nesterov):
    return Lion(groups, lr=lr, betas=betas)


CASES = {
    # name: (optimizer, lr, betas, eps, weight_decay, max_norm, momentum, nesterov)
    "plain": (adamw, 1e-2, (0.9, 0.999), 1e-8, 0.0, 0.0, 0.0, False),
    "decay": (adamw, 4e-3, (0.9, 0.95), 1e-8, 0.1, 0.0, 0.0, False),
    "clip": (adamw, 3e-3, (0.8, 0.99), 1e-6, 0.05, 1.0, 0.0, False),
    "sgd": (sgd, 2e-2, (0.0, 0.0), 0.0, 0.1, 0.0, 0.0, False),
    "momentum": (sgd, 1e-2, (0.0, 0.0), 0.0, 0.05, 1.0, 0.9, False),
    "nesterov": (sgd, 1e-2, (0.0, 0.0), 0.0, 0.05, 0.0, 0.8, True),
    "lion": (lion, 1e-3, (0.9, 0.99), 0.0, 0.0, 0.0, 0.0, False),
    "lion_decay": (lion, 3e-3, (0.95, 0.98), 0.0, 0.1, 1.0, 0.0, False),
    "muon": (muon, 2e-2, (0.9, 0.95), 1e-8, 0.1, 0.0, 0.95, True),
    "muon_heavy": (muon, 2e-2, (0.9, 0.95), 1e-8, 0.05, 1.0, 0.8, False),
}
STEPS = 6

torch.manual_seed(7)
out = {}
for name, (make, lr, betas, eps, decay, max_norm, momentum, nesterov) in CASES.items():
    matrix = torch.nn.Parameter(torch.randn(7, 5))
    vector = torch.nn.Parameter(torch.randn(11))
    out[f"{name}.matrix.0"] = matrix.detach().clone()
    out[f"{name}.vector.0"] = vector.detach().clone()
    out[f"{name}.settings"] = torch.tensor(
        [lr, *betas, eps, decay, max_norm, momentum, nesterov], dtype=torch.float64)
    groups = [{"params": [matrix], "weight_decay": decay}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = make(groups, lr, betas, eps, momentum, nesterov)
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

# An average of weights that go anywhere.
model = torch.nn.Linear(11, 1, bias=False)
average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.75))
sgd_of_one = torch.optim.SGD(model.parameters(), lr=0.5)
out["ema.vector.0"] = model.weight.detach().clone()
for step in range(1, STEPS + 1):
    model.weight.grad = torch.randn(1, 11)
    out[f"ema.vector_grad.{step}"] = model.weight.grad.clone()
    sgd_of_one.step()
    average.update_parameters(model)
    out[f"ema.vector.{step}"] = average.module.weight.detach().clone()

save_file(out, pathlib.Path(__file__).with_name("optimizer.safetensors"))
