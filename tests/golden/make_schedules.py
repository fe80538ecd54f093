#!/usr/bin/env python3
"""Golden learning rates: transformers' get_scheduler, what each optimizer step of a run is made with.

Writes schedules.safetensors beside this script. Needs torch, transformers and safetensors. The settings stand in
test_golden_schedules.c as well, by these names.
"""
import pathlib

import torch
from safetensors.torch import save_file
from transformers import get_scheduler

LR = 2e-3
CASES = {
    # name: (type, warm-up steps, steps, specific arguments)
    "linear": ("linear", 0, 30, {}),
    "linear_warmup": ("linear", 7, 30, {}),
    "cosine": ("cosine", 5, 40, {}),
    "cosine_cycles": ("cosine", 5, 40, {"num_cycles": 1.25}),
    "constant": ("constant", 0, 10, {}),
    "constant_with_warmup": ("constant_with_warmup", 4, 10, {}),
    "min_lr": ("cosine_with_min_lr", 3, 25, {"min_lr": 5e-4}),
    "min_lr_rate": ("cosine_with_min_lr", 3, 25, {"min_lr_rate": 0.1, "num_cycles": 0.8}),
    "wsd": ("warmup_stable_decay", 6, 40, {"num_decay_steps": 10}),
    "wsd_least": ("warmup_stable_decay", 6, 40,
                  {"num_decay_steps": 12, "min_lr_ratio": 0.2, "warmup_type": "cosine", "decay_type": "linear"}),
    "wsd_sqrt": ("warmup_stable_decay", 5, 40,
                 {"num_decay_steps": 12, "num_stable_steps": 15, "warmup_type": "1-sqrt", "decay_type": "1-sqrt"}),
}

out = {}
for name, (kind, warmup, steps, specific) in CASES.items():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps,
                              scheduler_specific_kwargs=specific)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    out[name] = torch.tensor(rates, dtype=torch.float64)

save_file(out, pathlib.Path(__file__).with_name("schedules.safetensors"))
