"""Pieces of formulas that many losses share. Everything is in nats, from log-probabilities."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EXP_LIMIT = 60.0
"""Exponent above which ``bounded_exp`` is a straight line: e^60 and its products stay inside float32."""
_NORM_EPSILON = 1e-8


def log_probs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(logits / T)`` over the last axis."""
    return F.log_softmax(logits / temperature, dim=-1)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p||q)`` over the last axis, from log-probabilities, in nats. Zero where p underflows."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def soft_cross_entropy(target: Tensor, log_q: Tensor) -> Tensor:
    """``-sum_c target_c log q_c`` over the last axis, from probabilities and log-probabilities."""
    return -(target * log_q).sum(-1)


def entropy(log_p: Tensor) -> Tensor:
    """``-sum_c p_c log p_c`` over the last axis."""
    return -(log_p.exp() * log_p).sum(-1)


def label_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """[B, C] to [B]: each row's value at its label."""
    return logits.gather(1, labels[:, None]).squeeze(1)


def without_target(logits: Tensor, labels: Tensor) -> Tensor:
    """[B, C] to [B, C - 1]: the label's column left out of each row, the others in order."""
    others = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, others + (others >= labels[:, None]))


def one_against_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """Log of (probability of the class, of all others), [B, 2]: exact also where one of them is nearly 1."""
    chosen = label_logit(logits, classes)
    others = without_target(logits, classes).logsumexp(1)
    return F.log_softmax(torch.stack([chosen, others], dim=1), dim=1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine over the last axis; 1e-8 is added to the product of the norms, as DIST's authors do."""
    norms: Tensor = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return (a * b).sum(-1) / (norms + _NORM_EPSILON)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the last axis."""
    return cosine(a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True))


def deviation(logits: Tensor) -> Tensor:
    """Standard deviation (n - 1) of each row, [B, 1]; 0 counts as 1e-12, for a finite gradient."""
    return logits.var(-1, keepdim=True).clamp_min(1e-24).sqrt()


def bounded_exp(exponent: Tensor) -> Tensor:
    """``exp``, continued by its tangent above ``EXP_LIMIT``: powers and ratios stay finite."""
    # Selected, not clamped: a clamp's slope at its own limit is 0.
    inside = exponent <= EXP_LIMIT
    beyond = torch.where(inside, 0.0, exponent - EXP_LIMIT)
    return torch.where(inside, exponent, EXP_LIMIT).exp() + math.exp(EXP_LIMIT) * beyond


def falling_order(teacher: Tensor, labels: Tensor) -> Tensor:
    """Permutation [B, C]: the label, then the other classes by falling teacher logit (ties: lower id)."""
    raised = teacher.scatter(1, labels[:, None], torch.inf)
    return raised.argsort(dim=1, descending=True, stable=True)
