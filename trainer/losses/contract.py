"""What every loss is: shapes, checks and number formats, stated once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError, DataError, KDCacheError

Logits = Float[Tensor, "batch classes"]
"""Raw logits (before softmax), in natural units."""
TwoViews = Float[Tensor, "2 batch classes"]
"""Logits of the weak and of the strong view of the same samples."""
Labels = Int[Tensor, "batch"]
"""Class ids, 0 to classes - 1."""
PerSample = Float[Tensor, "batch"]
Scalar = Float[Tensor, ""]
ClassCounts = Int[Tensor, "classes"]
"""How often each class is a label of the training data."""


class DivergedError(KDCacheError):
    """The student's logits are not finite any more: train with a lower learning rate."""


class Loss:
    """A distillation term: a frozen dataclass, its fields the hyper-parameters, its ``formula`` the method.

    ``loss(student, teacher, labels) -> Tensor[]`` checks the inputs, raises half precision to float32 and
    evaluates the formula (float64 in, float64 out). The value is the term alone, scaled as its authors
    scale it; weights, warm-up and cross-entropy belong to the objective. A subclass whose formula does
    without teacher or labels widens that argument's type to ``| None``.

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
    """Whether a sample's term depends on the others of its batch."""
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

    def prepared(self, counts: ClassCounts) -> Loss:
        """The loss for training data in which each class occurs that often; most do not care."""
        return self

    # Plain tensors here: what comes from outside is checked below, with errors for people.
    def __call__(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        """Check, raise the precision, evaluate."""
        self._check_presence(student, teacher, labels)
        self._check_values(student, teacher, labels)
        dtype = torch.promote_types(student.dtype, torch.float32)
        if teacher is not None:
            dtype = torch.promote_types(dtype, teacher.dtype)
            teacher = teacher.to(dtype)
        if labels is not None:
            labels = labels.long()
        # Autocast would compute the matrix products of a formula in half precision again.
        with torch.autocast(student.device.type, enabled=False):
            # What a formula needs is there now; one that does without takes None as well.
            return self.formula(student.to(dtype), cast(Tensor, teacher), cast(Tensor, labels))

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> Scalar:
        """The value, from checked inputs in float32 or float64."""
        raise NotImplementedError

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

    def _check_values(self, student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> None:
        classes = student.shape[-1]
        in_range = torch.ones((), dtype=torch.bool, device=student.device)
        if labels is not None and self.needs_labels:
            in_range = ((labels >= 0) & (labels < classes)).all()
        taught = in_range.new_ones(()) if teacher is None else torch.isfinite(teacher).all()
        # One transfer for all three verdicts: each would stall the device by itself.
        verdicts = torch.stack([torch.isfinite(student).all(), taught, in_range])
        student_fine, teacher_fine, labels_fine = verdicts.tolist()
        if not teacher_fine:
            raise DataError(
                f"loss {self.name!r}: teacher logits are not finite: are these rows invalid in the cache?"
            )
        if not student_fine:
            raise DivergedError(
                f"loss {self.name!r}: student logits are not finite: it diverged; lower the learning rate"
            )
        if not labels_fine:
            raise DataError(f"loss {self.name!r}: labels must lie in 0 to {classes - 1}")


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
