#!/usr/bin/env python3
"""Golden values and gradients of the losses on activations, by PyTorch's autograd in double, from the papers' formulas.

Writes internals.safetensors beside this script: rows of a student and of a teacher (own, its; of another width: narrow), in
groups of GROUPS rows, attention maps of two heads (own_maps, its_maps), and for each loss the sum of its rows and the gradient.
Needs torch and safetensors.
"""
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

GROUPS, WIDTH, NARROW, HEADS, T = (2, 5), 12, 8, 2, 4

torch.manual_seed(5)
# In FP32, as the trainer has them.
rows = sum(GROUPS)
own, its, narrow = torch.randn(rows, WIDTH), 2 * torch.randn(rows, WIDTH), torch.randn(rows, NARROW)
own_maps, its_maps = (torch.softmax(1.5 * torch.randn(HEADS, T, T), -1) for _ in range(2))


def hs_mse(a, b):
    return ((a - b) ** 2).mean(-1).sum()


def hs_mse_normalized(a, b):
    return hs_mse(a, b) / (b ** 2).mean()


def hs_cosine(a, b):
    return (1 - F.cosine_similarity(a, b)).sum()


def pkd(a, b):
    """Sun et al. 2019, eq. 7."""
    return ((F.normalize(a) - F.normalize(b)) ** 2).sum()


def similarity_preserving(a, b):
    """Tung and Mori 2019, eqs. 2 to 4, of each group: |G - G'|^2 / m^2 times its m rows."""
    def gram(x):
        return F.normalize(x @ x.T, p=2, dim=1)
    return sum(((gram(x) - gram(y)) ** 2).sum() / len(x) for x, y in zip(a.split(GROUPS), b.split(GROUPS)))


def attention_transfer(a, b):
    """As the authors' at() and at_loss(), whose mean over positions is taken by who adds up."""
    def at(x):
        return F.normalize(x.pow(2).mean(1), dim=0)
    return sum((at(x) - at(y)).pow(2).sum() for x, y in zip(a.split(GROUPS), b.split(GROUPS)))


def attention_mse(a, b):
    """TinyBERT's, on probabilities: the mean over all entries, times the sequence's rows."""
    return F.mse_loss(a, b) * T


def attention_kl(a, b):
    """MiniLM, eq. 5: the mean over heads, the sum over rows."""
    return F.kl_div(a.log(), b, reduction="sum") / HEADS


def relation_kl(a, b, heads=2, causal=False):
    """MiniLMv2, eqs. 3 to 5, of each group: the mean over relation heads, the sum over rows."""
    def log_relation(x):
        parts = x.reshape(len(x), heads, -1).transpose(0, 1)
        s = parts @ parts.transpose(1, 2) / parts.shape[-1] ** 0.5
        if causal:
            s = s.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf)
        return torch.log_softmax(s, -1)
    def kl(log_p, log_q):
        return torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q.masked_fill(log_q == -torch.inf, 0)), 0).sum()
    return sum(kl(log_relation(y), log_relation(x)) / heads for x, y in zip(a.split(GROUPS), b.split(GROUPS)))


def relation_kl_causal(a, b):
    return relation_kl(a, b, causal=True)


def contrastive(a, b, temperature=0.07):
    """InfoNCE of each group, its teacher's rows the negatives; the sum over rows."""
    def nce(x, y):
        scores = F.normalize(x) @ F.normalize(y).T / temperature
        return F.cross_entropy(scores, torch.arange(len(x)), reduction="sum")
    return sum(nce(x, y) for x, y in zip(a.split(GROUPS), b.split(GROUPS)))


LOSSES = {
    "hs_mse": (hs_mse, own, its),
    "hs_mse.normalized": (hs_mse_normalized, own, its),
    "hs_cosine": (hs_cosine, own, its),
    "pkd": (pkd, own, its),
    "similarity_preserving": (similarity_preserving, own, narrow),
    "attention_transfer": (attention_transfer, own, narrow),
    "attention_mse": (attention_mse, own_maps, its_maps),
    "attention_kl": (attention_kl, own_maps, its_maps),
    "minilm_qq": (relation_kl, own, narrow),
    "minilm_qq.causal": (relation_kl_causal, own, narrow),
    "minilm_kk": (relation_kl, own, narrow),
    "minilm_kk.causal": (relation_kl_causal, own, narrow),
    "minilm_vv": (relation_kl, own, narrow),
    "minilm_vv.causal": (relation_kl_causal, own, narrow),
    "hs_contrastive": (contrastive, own, its),
    "embedding_contrastive": (contrastive, own, its),
    "embedding_mse": (hs_mse, own, its),
    "embedding_cosine": (hs_cosine, own, its),
    "embedding_similarity": (similarity_preserving, own, narrow),
}

out = {"own": own, "its": its, "narrow": narrow, "own_maps": own_maps, "its_maps": its_maps}
for name, (function, a, b) in LOSSES.items():
    x = a.double().requires_grad_()
    value = function(x, b.double())
    grad, = torch.autograd.grad(value, x)
    out[name], out[name + ".grad"] = value.detach().reshape(1), grad.float()
save_file(out, pathlib.Path(__file__).parent / "internals.safetensors")
