#!/usr/bin/env python3
"""Golden values of the mixtures: teachers' weights, and the weighted loss with its gradient, by PyTorch from the papers' formulas.

Writes mixtures.safetensors beside this script: logits of a student [R, V] and of three teachers [K, R, V], labels [R], the
teachers' cross entropy, entropy and largest probability [K, R] at temperature 1, a draw from [0, 1) a row, and for each mixture
(each row a sample of its own) "NAME.weights" [K, R], and for the T^2 KL against q at T = 2.5 of what it makes of the teachers (the
losses' mean, unless COMBINED says that it is the probabilities' or the logits'), weights constant, "NAME.loss" [R] and "NAME.grad"
[R, V], the gradient of the sum over rows. "NAME.given" [K] are the recipe's weights where they are not even, "NAME.present"
[K, R] who was asked where that is not everybody. Of a mixture with mixture_by NAME is mixture.by. Needs torch and safetensors.
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


def shares(w):
    """Of those that are there."""
    return (w / w.sum(0)).double()


def drawn(w, draw):
    """The teacher in whose part of the line from 0 to the weights' sum the draw falls."""
    ends = w.double().cumsum(0)
    return one_hot(torch.bucketize(draw * ends[-1], ends, right=True))


draw = torch.tensor([0.1, 0.3, 0.55, 0.26, 0.9], dtype=torch.double)
given = torch.tensor([1.0, 1.0, 2.0], dtype=torch.double)
# Which teachers have the tag of each row's sequence.
tags, tags_of = [0, 1, 2, 0, 1], ({0}, {0, 1}, {1, 2})
tagged = torch.tensor([[int(tag in its) for tag in tags] for its in tags_of], dtype=torch.int32)

weights = {
    "mean_probs": shares(given.unsqueeze(1).expand(-1, ROWS)),
    "mean_logits": shares(given.unsqueeze(1).expand(-1, ROWS)),
    "random": drawn(given, draw),
    "route": shares(given.unsqueeze(1) * tagged),
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

COMBINED = {"mean_probs": "probs", "ca_mkd": "probs", "route": "probs", "mean_logits": "logits"}


def combined(name, w, z):
    """The rows' losses [R]."""
    how = COMBINED.get(name.split(".")[0], "losses")
    if how == "losses":
        return (w * soft_losses(z)).sum(0)
    soft = (lambda x: x) if how == "probs" else (lambda x: F.softmax(x, -1))
    parts = F.softmax(teachers.double() / T, -1) if how == "probs" else teachers.double() / T
    p = soft((w.unsqueeze(-1) * parts).sum(0))
    return T ** 2 * F.kl_div(F.log_softmax(z / T, -1), p, reduction="none").sum(-1)


out = {"student": student, "teachers": teachers, "labels": labels.int(), "ce": ce, "entropy": entropy, "max_prob": max_prob,
       "draw": draw, "route.present": tagged}
for name in ("mean_probs", "mean_logits", "random", "route"):
    out[name + ".given"] = given.clone()
for name, w in weights.items():
    z = student.double().requires_grad_()
    loss = combined(name, w, z)
    grad, = torch.autograd.grad(loss.sum(), z)
    out[name + ".weights"], out[name + ".loss"], out[name + ".grad"] = w, loss.detach(), grad.float()
save_file({k: v.contiguous() for k, v in out.items()}, pathlib.Path(__file__).parent / "mixtures.safetensors")
