#!/usr/bin/env python3
"""Golden values and gradients of the losses on rows of logits, by PyTorch's autograd in double, from the papers' formulas.

Writes losses.safetensors beside this script: logits of a student and of two teachers, labels, and for each loss, setting
(VARIANTS, as tests/support/loss_variants.h has them), lane and temperature the rows' losses and the gradient of their sum,
as "loss.setting.lane.temperature". For losses between samples, "between.student" and "between.teacher" [S, C], and of their
rows' sum "dist.between.BETA.GAMMA.TEMPERATURE". Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file

ROWS, VOCAB, K, WEIGHTS = 2, 40, 6, (0.3, 0.7)
TEMPERATURES = (1.0, 2.5)
DENSE, LANES = ("dense", "mixture"), ("dense", "mixture", "tail", "renormalised")
DRAWN = torch.tensor([20, 14, 8, 4, 3, 1])  # how often each of the likeliest K was

torch.manual_seed(11)
# In FP32, as the trainer has them.
student, first, second = ((2 * torch.randn(ROWS, VOCAB)).float() for _ in range(3))
labels = torch.tensor([3, 39])


# ---- what is compared, by lane ----

def teacher(lane, temperature):
    """The teachers' probabilities [R, V] and their logits, which a mixture of probabilities has none of."""
    p = [torch.softmax(z.double() / temperature, -1) for z in (first, second)]
    if lane == "mixture":
        return WEIGHTS[0] * p[0] + WEIGHTS[1] * p[1], None
    return p[0], first.double()


def distributions(z, lane, temperature):
    """log p and log q: of all classes, of the likeliest K and the rest, or of the likeliest K made to sum to 1."""
    p, _ = teacher("dense" if lane in ("tail", "renormalised") else lane, temperature)
    log_q = torch.log_softmax(z / temperature, -1)
    if lane in DENSE:
        return p.log(), log_q
    ids = p.topk(K).indices
    log_p, log_q, rest = p.log().gather(-1, ids), log_q.gather(-1, ids), torch.ones(ROWS, VOCAB, dtype=torch.bool)
    if lane == "renormalised":
        return torch.log_softmax(log_p, -1), torch.log_softmax(log_q, -1)
    rest.scatter_(-1, ids, False)
    both = []
    for listed, whole in ((log_p, p.log()), (log_q, torch.log_softmax(z / temperature, -1))):
        tail = whole.masked_fill(~rest, -torch.inf).logsumexp(-1, keepdim=True)
        both.append(torch.cat([listed, tail], -1))
    return both


def kl_div(a, b):
    """KL(a || b) of log-probabilities."""
    return (a.exp() * (a - b)).sum(-1)


# ---- the losses: rows' values [R] of logits z ----

def cross_entropy(z, lane, temperature, label_smoothing=0.0, z_loss=0.0):
    ce = torch.nn.functional.cross_entropy(z, labels, label_smoothing=label_smoothing, reduction="none")
    return ce + z_loss * z.logsumexp(-1) ** 2


def kl(z, lane, temperature):
    if lane == "sampled":
        ids, share = teacher("dense", temperature)[0].topk(K).indices, DRAWN.double() / DRAWN.sum()
        log_q = torch.log_softmax(z / temperature, -1).gather(-1, ids)
        return temperature ** 2 * (share * (share.log() - log_q)).sum(-1)
    return temperature ** 2 * kl_div(*distributions(z, lane, temperature))


def reverse_kl(z, lane, temperature):
    log_p, log_q = distributions(z, lane, temperature)
    return temperature ** 2 * kl_div(log_q, log_p)


def log_mix(weight, log_a, log_b):
    """log(weight a + (1 - weight) b)"""
    return torch.log(weight * log_a.exp() + (1 - weight) * log_b.exp())


def jsd(z, lane, temperature, beta=0.5):
    """As TRL's GKDTrainer.generalized_jsd_loss, but for the factor."""
    log_p, log_q = distributions(z, lane, temperature)
    if beta in (0, 1):
        return temperature ** 2 * (kl_div(log_p, log_q) if beta == 0 else kl_div(log_q, log_p))
    log_m = log_mix(beta, log_p, log_q)
    return temperature ** 2 * (beta * kl_div(log_p, log_m) + (1 - beta) * kl_div(log_q, log_m))


def skew_kl(z, lane, temperature, alpha=0.1):
    log_p, log_q = distributions(z, lane, temperature)
    return temperature ** 2 * kl_div(log_p, log_mix(alpha, log_p, log_q))


def skew_reverse_kl(z, lane, temperature, alpha=0.1):
    log_p, log_q = distributions(z, lane, temperature)
    return temperature ** 2 * kl_div(log_q, log_mix(alpha, log_q, log_p))


def tvd(z, lane, temperature):
    log_p, log_q = distributions(z, lane, temperature)
    return temperature * (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def akl(z, lane, temperature, mu=0.5):
    """As LLM_KD_AKL's get_ratio and the two KLs weighed by it. The tail of a list comes last."""
    log_p, log_q = distributions(z, lane, temperature)
    p, q = log_p.exp(), log_q.exp().detach()
    listed = p[:, :-1] if lane == "tail" else p
    order = listed.argsort(-1, descending=True)
    head = (listed.gather(-1, order).cumsum(-1) <= mu * listed.sum(-1, keepdim=True))
    head[:, 0] = True
    is_head = torch.zeros_like(p, dtype=torch.bool)
    is_head[:, :listed.shape[-1]] = torch.zeros_like(listed, dtype=torch.bool).scatter(-1, order, head)
    gap = (p - q).abs()
    share = (gap * is_head).sum(-1) / gap.sum(-1)
    return temperature ** 2 * (share * kl_div(log_p, log_q) + (1 - share) * kl_div(log_q, log_p))


def abkd(z, lane, temperature, alpha=0.2, beta=0.7):
    log_p, log_q = distributions(z, lane, temperature)
    if alpha == 0 and beta == 0:
        d = (log_p - log_q) ** 2 / 2
    elif alpha == 0:
        d = (log_q * beta).exp() * beta * (log_q - log_p) - (log_q * beta).exp() + (log_p * beta).exp()
        d = d / beta ** 2
    elif beta == 0:
        d = (log_p * alpha).exp() * alpha * (log_p - log_q) - (log_p * alpha).exp() + (log_q * alpha).exp()
        d = d / alpha ** 2
    else:
        s = alpha + beta
        d = -((alpha * log_p + beta * log_q).exp() - alpha / s * (s * log_p).exp() - beta / s * (s * log_q).exp())
        d = d / (alpha * beta)
    return temperature ** 2 * d.sum(-1)


def dkd(z, lane, temperature, alpha=1.0, beta=8.0):
    """Two KLs: of the label against all others, and among the others."""
    log_p, log_q = distributions(z, lane, temperature)
    label = torch.nn.functional.one_hot(labels, VOCAB).bool()
    def binary(log_x):
        return torch.stack([log_x[label], log_x.masked_fill(label, -torch.inf).logsumexp(-1)], -1)
    def others(log_x):
        return torch.log_softmax(log_x[~label].reshape(ROWS, VOCAB - 1), -1)
    return temperature ** 2 * (alpha * kl_div(binary(log_p), binary(log_q)) + beta * kl_div(others(log_p), others(log_q)))


def logit_mse(z, lane, temperature):
    return ((z - teacher(lane, temperature)[1]) ** 2).mean(-1)


def logit_standardization(z, lane, temperature):
    """As the authors' normalize() and KD loss."""
    def normalize(x):
        return (x - x.mean(-1, keepdim=True)) / (1e-7 + x.std(-1, keepdim=True))
    log_p = torch.log_softmax(normalize(teacher(lane, temperature)[1]) / temperature, -1)
    return temperature ** 2 * kl_div(log_p, torch.log_softmax(normalize(z) / temperature, -1))


def dist(z, lane, temperature):
    """Between classes."""
    log_p, log_q = distributions(z, lane, temperature)
    p, q = (x.exp() - x.exp().mean(-1, keepdim=True) for x in (log_p, log_q))
    return temperature ** 2 * (1 - torch.nn.functional.cosine_similarity(p, q, eps=1e-30))


LOSSES = {
    # name: (function, lanes)
    "cross_entropy": (cross_entropy, ("label",)),
    "kl": (kl, LANES + ("sampled",)),
    "reverse_kl": (reverse_kl, LANES),
    "jsd": (jsd, LANES),
    "skew_kl": (skew_kl, LANES),
    "skew_reverse_kl": (skew_reverse_kl, LANES),
    "tvd": (tvd, LANES),
    "akl": (akl, LANES),
    "abkd": (abkd, LANES),
    "dkd": (dkd, DENSE),
    "logit_mse": (logit_mse, ("dense",)),
    "logit_standardization": (logit_standardization, ("dense",)),
    "dist": (dist, DENSE),
}
VARIANTS = [
    ("cross_entropy", dict(label_smoothing=0.1)),
    ("cross_entropy", dict(label_smoothing=1, z_loss=1e-2)),
    ("jsd", dict(beta=0)),
    ("jsd", dict(beta=0.1)),
    ("jsd", dict(beta=1)),
    ("skew_kl", dict(alpha=0)),
    ("skew_kl", dict(alpha=0.9)),
    ("skew_reverse_kl", dict(alpha=0)),
    ("skew_reverse_kl", dict(alpha=0.9)),
    ("abkd", dict(alpha=1, beta=0)),
    ("abkd", dict(alpha=0, beta=1)),
    ("abkd", dict(alpha=0.5, beta=0.5)),
    ("abkd", dict(alpha=0, beta=0)),
    ("abkd", dict(alpha=0, beta=0.6)),
    ("abkd", dict(alpha=0.6, beta=0)),
    ("abkd", dict(alpha=1, beta=1)),
    ("dkd", dict(alpha=2, beta=0.5)),
]

out = {"student": student, "first": first, "second": second, "labels": labels.int()}
for name, (function, lanes) in LOSSES.items():
    for n, settings in enumerate([{}] + [s for loss, s in VARIANTS if loss == name]):
        for lane in lanes:
            for temperature in (1.0,) if lane == "label" else TEMPERATURES if n == 0 else TEMPERATURES[1:]:
                z = student.double().requires_grad_()
                value = function(z, lane, temperature, **settings)
                grad, = torch.autograd.grad(value.sum(), z)
                key = f"{name}.{n}.{lane}.{temperature:g}"
                out[key], out[key + ".grad"] = value.detach(), grad.float()

# ---- between samples: the authors' DIST module, whose means over rows are sums here ----

SAMPLES, CLASSES = 7, 10
torch.manual_seed(12)
student, teacher = ((2 * torch.randn(SAMPLES, CLASSES)).float() for _ in range(2))


def pearson_distance(a, b):
    """1 - the mean over rows of their correlation."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return 1 - torch.nn.functional.cosine_similarity(a, b, dim=1).mean()


out["between.student"], out["between.teacher"] = student, teacher
for beta, gamma in ((1, 1), (0, 2), (2, 0.5)):
    for tau in (1.0, 4.0):
        z = student.double().requires_grad_()
        q, p = torch.softmax(z / tau, 1), torch.softmax(teacher.double() / tau, 1)
        value = SAMPLES * tau ** 2 * (beta * pearson_distance(q, p) + gamma * pearson_distance(q.T, p.T))
        grad, = torch.autograd.grad(value, z)
        key = f"dist.between.{beta:g}.{gamma:g}.{tau:g}"
        out[key], out[key + ".grad"] = value.detach().reshape(1), grad.float()
save_file(out, pathlib.Path(__file__).parent / "losses.safetensors")
