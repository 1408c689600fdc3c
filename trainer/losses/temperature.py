"""Losses whose temperature is learned, or follows each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import NamedConfiguration
from trainer.losses.contract import Labels, Logits, Loss, PerSample, Scalar, StatefulLoss, Values
from trainer.losses.probabilities import deviation, kl_divergence, log_probs
from trainer.losses.wrapper import InnerLoss, WrapperLoss

Divergence = Literal["reverse_kl", "forward_kl"]

_LOWEST_T, _RANGE_OF_T, _CURRICULUM_EPOCHS = 1.0, 20.0, 10
# AdaKD's released scripts: the kept share moves by 5 % when the mean loss has moved by 5 %.
_KEPT_STEP, _VALUE_STEP, _LEAST_KEPT, _WARMUP_PROGRESS, _AVERAGE_DECAY = 0.05, 0.05, 0.1, 0.05, 0.9


_KD = NamedConfiguration(name="kd")


@dataclass(frozen=True, eq=False)
class CurriculumTemperature(WrapperLoss):
    """``T^2 inner(s / T, t / T)`` with a learned ``T = 1 + 20 sigmoid(theta)`` (CTKD, arXiv 2211.16231).

    The student's optimiser trains theta too, with a reversed gradient: T seeks to make the task harder. The
    gradient's factor goes from 0 to -1 along a cosine over 10 epochs (the released code counts them from 1;
    theta begins at 1). The inner loss must have a ``temperature``; it is evaluated at 1 on the scaled logits,
    which for losses with a T^2 of their own (kd, dkd) is that loss at T.
    """

    name = "ctkd"
    paper = "Li et al., CTKD, arXiv 2211.16231, AAAI 2023"

    loss: InnerLoss = _KD
    """The inner loss; its own temperature does not matter."""

    def __post_init__(self) -> None:
        """Begin with theta = 1, and a gradient factor of epoch 1."""
        super().__post_init__()
        if "temperature" not in {field.name for field in fields(cast(Any, self.inner))}:
            raise ConfigError(
                f"loss 'ctkd' learns a temperature, but {self.inner.name!r} has none: wrap kd or dkd"
            )
        self._adopt(replace(cast(Any, self.inner), temperature=1.0))
        self.register_parameter("theta", nn.Parameter(torch.ones(())))
        self.register_buffer("factor", torch.tensor(_reversal_factor(1)))

    @property
    def highest_temperature(self) -> float:
        """Where the curriculum may lead."""
        return _LOWEST_T + _RANGE_OF_T

    def formula(self, student: Tensor, teacher: Tensor, labels: Labels | None) -> Values:
        """The value at the present temperature."""
        theta = self.get_parameter("theta").to(student.dtype)
        factor = self.get_buffer("factor")
        reversed_theta = theta + (factor - 1) * (theta - theta.detach())
        temperature = _LOWEST_T + _RANGE_OF_T * reversed_theta.sigmoid()
        scaled_t = teacher / temperature
        return temperature**2 * self.inner.formula(student / temperature, scaled_t, labels)  # type: ignore[arg-type]

    def begin_epoch(self, epoch: int) -> None:
        """Set the factor of theta's gradient."""
        super().begin_epoch(epoch)
        self.get_buffer("factor").fill_(_reversal_factor(epoch))


def _reversal_factor(epoch: int) -> float:
    """0 to -1 along a cosine over ten epochs, counted from 1."""
    return -0.5 * (1 - math.cos(math.pi * min(epoch, _CURRICULUM_EPOCHS) / _CURRICULUM_EPOCHS))


@dataclass(frozen=True)
class DeviationTemperature(Loss):
    """``gamma CE(s / std(s), y) + alpha KL(p || q)`` of logits over their deviation, batch mean.

    MIX-KD, arXiv 2211.03946. The deviation (n - 1) of each sample's logits is its temperature, on both sides;
    no T^2. Contains its own hard cross-entropy, in nats. Made for mixed views.
    """

    name = "mixstd"
    paper = "Choi et al., MIX-KD, arXiv 2211.03946, WACV 2023"
    needs_labels = True

    gamma: float = 1.0
    """Weight of the cross-entropy with the label."""
    alpha: float = 1.0
    """Weight of the divergence."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """The student's deviation carries gradient."""
        log_q = log_probs(student / deviation(student))
        log_p = log_probs(teacher / deviation(teacher))
        hard = F.nll_loss(log_q, labels, reduction="none")
        return self.gamma * hard + self.alpha * kl_divergence(log_p, log_q)


@dataclass(frozen=True, eq=False)
class AdaptiveDifficulty(StatefulLoss):
    """``mean over the hardest of tau^2 D(p_tau, q_tau)``, in nats (AdaKD, arXiv 2510.11615).

    d: difficulty of each sample at T = 1. The share r of the samples with the largest d counts. Each has
    ``tau = T exp(-c tanh(log(d / median d)))``: harder is colder. As released, nothing is detached (gradients
    also flow through d and tau) and the median is the lower one. After each step r grows (shrinks) by 5 %
    when the running mean of the value has risen (fallen) by 5 % since the last change, within 0.1 to 1, once
    the first 5 % of the run are over.
    """

    name = "adakd"
    paper = "AdaKD, arXiv 2510.11615"
    unconfirmed = "published for language models; the decay of the running mean (0.9 here)"
    couples_samples = True
    weighs = "all"

    difficulty: Literal["hellinger", "reverse_kl", "forward_kl"] = "hellinger"
    """How hard a sample is."""
    divergence: Divergence = "reverse_kl"
    """D: KL(q||p) or KL(p||q)."""
    ratio: float = 1.0
    """First share of the samples that count, above 0, up to 1."""
    sharpness: float = 0.5
    """c: how far tau follows the difficulty."""
    temperature: float = 1.0
    """T > 0, of a sample of median difficulty."""

    def __post_init__(self) -> None:
        """Refuse an empty share; begin with ``ratio``."""
        super().__post_init__()
        self.require("ratio", 0 < self.ratio <= 1, "must lie above 0 and up to 1")
        for name, value in (("kept", self.ratio), ("average", torch.nan), ("reference", torch.nan)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """Labels are not looked at."""
        difficulty = _difficulty(log_probs(student), log_probs(teacher), self.difficulty)
        count = max(1, int(len(student) * float(self.get_buffer("kept"))))
        hardest, index = difficulty.topk(count)
        tau = self._temperatures(hardest)
        log_q, log_p = log_probs(student[index] / tau[:, None]), log_probs(teacher[index] / tau[:, None])
        pair = (log_q, log_p) if self.divergence == "reverse_kl" else (log_p, log_q)
        return (tau**2 * kl_divergence(*pair)).mean()

    def advance(self, value: Scalar, progress: float) -> None:
        """Move the kept share."""
        average, reference, kept = (self.get_buffer(name) for name in ("average", "reference", "kept"))
        before = value.double() if torch.isnan(average) else average
        average.copy_(_AVERAGE_DECAY * before + (1 - _AVERAGE_DECAY) * value)
        if torch.isnan(reference):
            if progress > _WARMUP_PROGRESS:
                reference.copy_(average)
        elif abs(average - reference) > _VALUE_STEP * reference:
            factor = 1 + _KEPT_STEP if average > reference else 1 - _KEPT_STEP
            kept.mul_(factor).clamp_(_LEAST_KEPT, 1.0)
            reference.copy_(average)

    def _temperatures(self, difficulty: PerSample) -> PerSample:
        """tau of each sample; T where every sample is as easy as can be."""
        median = difficulty.median()
        tiny = torch.finfo(difficulty.dtype).tiny
        # A difference of logarithms: the ratio itself overflows where the median nearly vanishes.
        relative = difficulty.clamp_min(tiny).log() - median.clamp_min(tiny).log()
        scale = torch.tanh(relative.clamp_min(math.log(1e-8)))
        tau = self.temperature * torch.exp(-self.sharpness * scale)
        return torch.where(median > 0, tau, self.temperature)


def _difficulty(log_q: Tensor, log_p: Tensor, kind: str) -> Tensor:
    if kind == "reverse_kl":
        return kl_divergence(log_q, log_p)
    if kind == "forward_kl":
        return kl_divergence(log_p, log_q)
    squares = (torch.exp(0.5 * log_q) - torch.exp(0.5 * log_p)).square().sum(-1)
    # The root's slope at 0 is infinite: a student that equals its teacher there gets none.
    return (0.5 * squares.clamp_min(1e-30)).sqrt()
