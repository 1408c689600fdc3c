"""What every loss is: shapes, checks and number formats, stated once."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache_builder.format.errors import ConfigError, DataError, KDCacheError

Logits = Float[Tensor, "batch classes"]
"""Raw logits (before softmax), in natural units."""
Labels = Int[Tensor, "batch"]
"""Class ids, 0 to classes - 1."""
Scalar = Float[Tensor, ""]


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

    name: ClassVar[str]
    """Its key in ``LOSSES``."""
    needs_teacher: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive; a subclass adds its own ranges."""
        temperature = getattr(self, "temperature", 1.0)
        if not temperature > 0:
            raise ConfigError(f"loss {self.name!r}: temperature must be positive, got {temperature}")

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
        if teacher is not None and teacher.shape != student.shape:
            raise ConfigError(
                f"loss {self.name!r}: student logits are {list(student.shape)}, teacher logits "
                f"{list(teacher.shape)}; both must be [batch, classes] of the same samples and classes"
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
