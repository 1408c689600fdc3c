"""What every loss is: shapes, checks and number formats, stated once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from trainer.losses.flaws import has_non_finite, out_of_range, raise_flaw

Logits = Float[Tensor, "batch classes"]
"""Raw logits (before softmax), in natural units."""
TwoViews = Float[Tensor, "2 batch classes"]
"""Logits of the weak and of the strong view of the same samples."""
Labels = Int[Tensor, "batch"]
"""Class ids, 0 to classes - 1."""
PerSample = Float[Tensor, "batch"]
"""One value per sample."""
Scalar = Float[Tensor, ""]
Values = Float[Tensor, "*batch"]
"""What a formula gives: a ``PerSample``, or a ``Scalar`` where the loss couples the samples."""
ClassCounts = Int[Tensor, "classes"]
"""How often each class is a label of the training data."""


class Loss:
    """A distillation term: a frozen dataclass, its fields the hyper-parameters, its ``formula`` the method.

    ``loss(student, teacher, labels) -> Tensor[]`` checks the inputs, raises half precision to float32 and
    gives the batch mean of the formula (float64 in, float64 out). The value is the term alone, scaled as its
    authors scale it; weights, warm-up, masks and cross-entropy belong to the objective. A subclass whose
    formula does without teacher or labels widens that argument's type to ``| None``.

    The call reads the numbers to check them, which waits for the device. A training loop that must not wait
    takes ``values`` and ``flaws``, as ``Objective`` does.

    Raises, naming the loss: :class:`ConfigError` where teacher logits, labels or equal shapes are missing,
    :class:`DataError` for non-finite teacher logits and labels out of range, :class:`DivergedError` for
    non-finite student logits.
    """

    name: str
    """Its key in ``LOSSES``."""
    paper: str
    """Where it is from: authors, arXiv number or venue."""
    unconfirmed: str = ""
    """What could not be confirmed about the formula or its defaults; empty where nothing is open."""
    needs_teacher: bool = True
    needs_labels: bool = False
    views: Literal[1, 2] = 1
    """2: student and teacher are [2, batch, classes], the weak view first."""
    takes_ensemble: bool = False
    """Whether the teacher may be [teachers, batch, classes]; others are given the mean of the softmaxes."""
    couples_samples: bool = False
    """Whether a sample's term depends on the others of its batch; the formula then gives one scalar."""
    reads: Literal["dense", "ranked"] = "dense"
    """What it reads of the teacher: all logits, or only the largest ones with their classes."""
    weighs: Literal["likely", "all", "tail"] = "likely"
    """Which of the teacher's logits decide its gradient at T = 1: those of the likely classes, all of them
    alike, or those below the largest. What a cache lost of the others then shows in training."""
    needs_class_counts: bool = False
    """Whether it wants to know how often each class occurs in training (``prepared``)."""
    needs_held_out: bool = False
    """Whether it learns from samples that the student is not trained on (``learn_from``)."""

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive; a subclass adds its own ranges."""
        self.require("temperature", getattr(self, "temperature", 1.0) > 0, "must be positive")

    def require(self, field: str, holds: bool, what: str) -> None:
        """Raise :class:`ConfigError` about a field unless the condition holds."""
        if not holds:
            raise ConfigError(f"loss {self.name!r}: {field} {what}, got {getattr(self, field)}")

    @property
    def highest_temperature(self) -> float:
        """The largest temperature at which it looks at the teacher."""
        return float(max(getattr(self, "temperatures", (getattr(self, "temperature", 1.0),))))

    def prepared(self, counts: ClassCounts) -> Loss:
        """The loss for training data in which each class occurs that often; most do not care."""
        return self

    # Plain tensors here: what comes from outside is checked below, with errors for people.
    def __call__(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        """The mean over the batch, checked."""
        self._check_presence(student, teacher, labels)
        raise_flaw(f"loss {self.name!r}", self.flaws(student, teacher, labels).tolist(), student.shape[-1])
        return self.values(student, teacher, labels).mean()

    def values(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        """One value per sample, [B], or [] where the samples are coupled; no number is looked at.

        Labels that are needed must lie in range. Raises :class:`ConfigError` for wrong shapes, also for that
        of what the formula gave.
        """
        self._check_presence(student, teacher, labels)
        dtype = torch.promote_types(student.dtype, torch.float32)
        if teacher is not None:
            dtype = torch.promote_types(dtype, teacher.dtype)
            teacher = teacher.to(dtype)
        if labels is not None:
            labels = labels.long()
        # Autocast would compute the matrix products of a formula in half precision again.
        with torch.autocast(student.device.type, enabled=False):
            # What a formula needs is there now; one that does without takes None as well.
            values = self.formula(student.to(dtype), cast(Tensor, teacher), cast(Tensor, labels))
        self._check_result(values, student.shape[-2])
        return values

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> Values:
        """One value per sample, or one for all where ``couples_samples``, in float32 or float64."""
        raise NotImplementedError

    def flaws(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        """Which ``FLAWS`` these inputs have, bool [3]; it stays on the device."""
        none = torch.zeros((), dtype=torch.bool, device=student.device)
        checked = labels if self.needs_labels else None
        return torch.stack(
            [
                none if teacher is None else has_non_finite(teacher),
                none if checked is None else out_of_range(checked, student.shape[-1]),
                has_non_finite(student),
            ]
        )

    def _check_result(self, values: Tensor, samples: int) -> None:
        if values.shape == (() if self.couples_samples else (samples,)):
            return
        expected = "a scalar (it declares couples_samples)" if self.couples_samples else f"[{samples}]"
        raise ConfigError(
            f"loss {self.name!r}: its formula gave {list(values.shape)} for {samples} samples, expected "
            f"{expected}: return one value per sample, or declare couples_samples = True and return a scalar"
        )

    def _check_presence(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> None:
        if self.needs_teacher and teacher is None:
            raise ConfigError(f"loss {self.name!r} needs teacher logits and got none: train from a cache")
        if self.needs_labels and labels is None:
            raise ConfigError(f"loss {self.name!r} needs labels and got none: use one that needs no labels")
        expected = "[2, batch, classes], the weak view first" if self.views == 2 else "[batch, classes]"
        if student.ndim != self.views + 1 or (self.views == 2 and len(student) != 2):
            raise ConfigError(
                f"loss {self.name!r}: student logits are {list(student.shape)}, expected {expected}"
            )
        if teacher is None:
            return
        many = self.takes_ensemble and teacher.ndim == student.ndim + 1
        if (teacher.shape[1:] if many else teacher.shape) != student.shape:
            raise ConfigError(
                f"loss {self.name!r}: student logits are {list(student.shape)}, teacher logits "
                f"{list(teacher.shape)}; both must be {expected} of the same samples and classes"
            )


class StatefulLoss(Loss, nn.Module):
    """A loss with state: a frozen dataclass (``eq=False``) that is also a module, its state in buffers.

    Evaluating it changes nothing, so that micro-batches and processes see the same state. The loop says when
    an epoch begins and when an optimiser step is done.
    """

    def __post_init__(self) -> None:
        """Make it a module, with the state it begins with."""
        nn.Module.__init__(self)
        super().__post_init__()

    def begin_epoch(self, epoch: int) -> None:
        """Epoch ``epoch``, counted from 1, begins or goes on."""

    def advance(self, value: Scalar, progress: float) -> None:
        """An optimiser step is done: its mean value of this term, and the share of all steps done, 0..1."""

    def joint_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that the student's optimiser trains along."""
        return self.parameters()

    def train(self, mode: bool = True) -> Any:  # Self, which the run-time type checks cannot read
        """Nothing: a loss has no evaluation mode."""
        return self
