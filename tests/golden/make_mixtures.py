#!/usr/bin/env python3
"""Golden values of the mixtures: teachers' weights, and the weighted loss with its gradient, by PyTorch from the papers' formulas.

Writes mixtures.safetensors beside this script: logits of a student [R, V] and of three teachers [K, R, V], labels [R], the
teachers' cross entropy, entropy and largest probability [K, R] at temperature 1, and for each mixture (each row a sample of
its own) "NAME.weights" [K, R], and for L = sum_k w_k T^2 KL(p_k || q) at T = 2.5, weights constant, "NAME.loss" [R] and
"NAME.grad" [R, V], the gradient of the sum over rows. Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

ROWS, VOCAB, K, T = 5, 24, 3, 2.5

torch.manual_seed(7)
student = (2 * torch.randn(ROWS, VOCAB)).float()
teachers = ((1 + torch.arange(K)).view(-1, 1, 1) * torch.randn(K, ROWS, VOCAB)).float()
labels = torch.randint(0, VOCAB, (ROWS,))

log_p = F.log_softmax(teachers.double(), -1)
ce = torch.stack([F.nll_loss(x, labels, reduction="none") for x in log_p])
entropy = -(log_p.exp() * log_p).sum(-1)
max_prob = log_p.exp().amax(-1)


def soft_losses(z):
    """T^2 KL(p_k || q) [K, R] of the student's logits z."""
    return T ** 2 * F.kl_div(F.log_softmax(z / T, -1).expand(K, -1, -1), F.log_softmax(teachers.double() / T, -1),
                             log_target=True, reduction="none").sum(-1)


def min_norm(grads):
    """argmin |sum w_k g_k|^2 on the simplex, g [K, V]: the best of what all faces' normal equations give."""
    best, least = None, torch.inf
    for face in range(1, 2 ** K):
        members = [k for k in range(K) if face >> k & 1]
        gram, ones = grads[members] @ grads[members].T, torch.ones(len(members), dtype=torch.double)
        w = torch.linalg.solve(gram, ones)
        w = w / w.sum()
        if (w >= 0).all() and w @ gram @ w < least:
            least, best = w @ gram @ w, torch.zeros(K, dtype=torch.double).index_copy(0, torch.tensor(members), w)
    return best


def by_gradients(rows):
    """AEKD: weights [K] from the teachers' gradients at the student's logits of these rows."""
    z = student.double().requires_grad_()
    grads = [torch.autograd.grad(of_one[rows].sum(), z, retain_graph=True)[0].flatten() for of_one in soft_losses(z)]
    return min_norm(torch.stack(grads))


def one_hot(best):
    return F.one_hot(best, K).T.double()


weights = {
    "mean_losses": torch.full((K, ROWS), 1 / K, dtype=torch.double),
    "ca_mkd": (1 - F.softmax(ce, 0)) / (K - 1),
    "entropy": (1 - entropy / entropy.sum(0)) / (K - 1),
    "dynamic.ce": F.softmax(-ce / 0.5, 0),
    "dynamic.entropy": F.softmax(-entropy / 0.5, 0),
    "dynamic.max_prob": F.softmax(max_prob / 0.5, 0),
    "select.ce": one_hot(ce.argmin(0)),
    "select.entropy": one_hot(entropy.argmin(0)),
    "select.max_prob": one_hot(max_prob.argmax(0)),
    "aekd": torch.stack([by_gradients([row]) for row in range(ROWS)], 1),
    "aekd.sequence": by_gradients(list(range(ROWS))).unsqueeze(1).expand(-1, ROWS),
}

out = {"student": student, "teachers": teachers, "labels": labels.int(), "ce": ce, "entropy": entropy, "max_prob": max_prob}
for name, w in weights.items():
    z = student.double().requires_grad_()
    loss = (w * soft_losses(z)).sum(0)
    grad, = torch.autograd.grad(loss.sum(), z)
    out[name + ".weights"], out[name + ".loss"], out[name + ".grad"] = w, loss.detach(), grad.float()
save_file({k: v.contiguous() for k, v in out.items()}, pathlib.Path(__file__).parent / "mixtures.safetensors")
