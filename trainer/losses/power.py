"""Divergences of powers of probabilities. Evaluated as exponentials of log-probabilities, bounded above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, PerSample
from trainer.losses.probabilities import bounded_exp, kl_divergence, log_probs


@dataclass(frozen=True)
class PowerDivergence(Loss):
    """``D_l(a||b) = 1 / (l (l + 1)) sum_c a [(a / b)^l - 1]``, batch mean (REDistill, arXiv 2602.04677).

    Cressie and Read's family: KL(a||b) for l -> 0, KL(b||a) for l -> -1. Probabilities at T, no T^2. Ratios
    above e^60 are continued by a tangent (``bounded_exp``). "teacher_student" amplifies a teacher's spike
    that the student does not believe; with "student_teacher" it gets little force, as the abstract describes,
    but ratios of small probabilities rule the gradient, and those a compressed cache knows least.
    """

    name = "redistill"
    paper = "REDistill, arXiv 2602.04677"
    unconfirmed = "the paper's orientation, its factor, T and T^2: only the abstract could be read"
    weighs = "all"

    power: float = 2 / 3
    """l, without unit; Cressie and Read's own recommendation is 2/3."""
    temperature: float = 1.0
    """T > 0."""
    orientation: Literal["teacher_student", "student_teacher"] = "teacher_student"
    """Which of the two is a."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        first, second = (log_p, log_q) if self.orientation == "teacher_student" else (log_q, log_p)
        return _cressie_read(first, second, self.power)


@dataclass(frozen=True)
class AlphaBetaDivergence(Loss):
    """``D_ab(p||q) = -1/(ab) sum_c [p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)]``, batch mean.

    ABKD, arXiv 2505.04560. a is on the teacher, b on the student; KL at a = 1, b = 0. Probabilities at
    T, no T^2. The cases a = 0, b = 0 and a + b = 0 are the continuous limits; there the released code has 1/a
    for 1/a^2, which is the same at a = 1. Powers above e^60 are continued by a tangent (``bounded_exp``).
    """

    name = "abkd"
    paper = "ABKD, arXiv 2505.04560, ICML 2025"
    unconfirmed = "settings for ImageNet; CIFAR-100 accuracies (figures only)"

    alpha: float = 0.8
    """a, exponent of the teacher's probabilities (ResNet-56 to ResNet-20)."""
    beta: float = 0.3
    """b, exponent of the student's."""
    temperature: float = 4.0
    """T > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        return alpha_beta(log_p, log_q, self.alpha, self.beta)


def alpha_beta(log_p: Tensor, log_q: Tensor, a: float, b: float) -> Tensor:
    """``D_ab(p||q)`` of each row, with its continuous limits where a, b or a + b is 0."""
    if a == 0 and b == 0:
        return 0.5 * (log_p - log_q).square().sum(-1)
    if a == 0:
        # The divergence of the exchanged arguments and exponents is the same.
        return alpha_beta(log_q, log_p, b, 0.0)
    if b == 0:
        p, q = bounded_exp(a * log_p), bounded_exp(a * log_q)
        return (p * a * (log_p - log_q) - p + q).sum(-1) / a**2
    if a + b == 0:
        return (a * (log_q - log_p) + bounded_exp(a * (log_p - log_q)) - 1).sum(-1) / a**2
    mixed = bounded_exp(a * log_p + b * log_q)
    own_p = a / (a + b) * bounded_exp((a + b) * log_p)
    own_q = b / (a + b) * bounded_exp((a + b) * log_q)
    return -(mixed - own_p - own_q).sum(-1) / (a * b)


def _cressie_read(log_a: Tensor, log_b: Tensor, power: float) -> Tensor:
    if power == 0:
        return kl_divergence(log_a, log_b)
    if power == -1:
        return kl_divergence(log_b, log_a)
    raised = bounded_exp((1 + power) * log_a - power * log_b)
    # Class by class: near a power of 0 the sum and the 1 would be nearly the same.
    return (raised - log_a.exp()).sum(-1) / (power * (power + 1))
