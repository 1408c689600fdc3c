"""What a student minimises: ``sum_i weight_i * warmup_i(epoch) * term_i``.

Written as JSON or TOML, ``[{"name", "configuration", "weight", "warmup_epochs"}, ...]``, or on a command
line, ``ce*1.0 + dkd(alpha=1,beta=8,temperature=4,warmup_epochs=20)*1.0``. A method's name alone means its
published objective (``trainer.objective.published``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from cache_builder.format.frozen import Frozen
from trainer.losses import Loss, StatefulLoss, make_loss

Head = Literal["main", "aux"]
Samples = Literal["all", "labelled"]


class Term(Frozen):
    """One weighted loss of an objective."""

    name: str
    """Key in ``LOSSES``."""
    configuration: dict[str, JsonValue] = Field(default_factory=dict)
    """The loss's hyper-parameters; what is left out keeps its default."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Outer weight, without unit."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """E_w: in epoch e, counted from 1, the weight is multiplied by min(e / E_w, 1). 0 = no warm-up."""
    head: Head = "main"
    """Which of the student's heads it looks at; aux: the one of ``--aux-head``."""
    samples: Samples = "all"
    """labelled: only those that have a label; the others of a batch do not count for it."""

    def weight_in(self, epoch: int) -> float:
        """The weight in an epoch counted from 0."""
        return self.weight * (min((epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0)

    def __str__(self) -> str:
        arguments = {key: written(value) for key, value in self.configuration.items()}
        for key, default in (("warmup_epochs", 0), ("head", "main"), ("samples", "all")):
            value = getattr(self, key)
            if value != default:
                arguments[key] = value if isinstance(value, str) else written(value)
        inside = ", ".join(f"{key}={value}" for key, value in arguments.items())
        return f"{self.name}{f'({inside})' if inside else ''}*{self.weight:.15g}"


Terms = tuple[Term, ...]


class Objective(nn.Module):
    """The weighted sum. A module, so that losses with buffers move and are saved with it."""

    def __init__(self, terms: Iterable[Term], class_counts: Tensor | None = None) -> None:
        """``class_counts``: how often each class is a label of the training data, [C]."""
        super().__init__()
        self.terms = tuple(terms)
        self.term_names = _numbered_names(self.terms)
        """The terms' names, numbered where one occurs twice."""
        self.losses = [make_loss(term.name, term.configuration) for term in self.terms]
        if class_counts is not None:
            self.losses = [loss.prepared(class_counts) for loss in self.losses]
        self.stateful = nn.ModuleList(loss for loss in self.losses if isinstance(loss, nn.Module))
        self._step_values: dict[str, list[Tensor]] = {}

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(loss.needs_teacher for loss in self.losses)

    @property
    def needs_labels(self) -> bool:
        """Whether any term looks at the labels of all samples."""
        return any(
            loss.needs_labels and term.samples == "all"
            for term, loss in zip(self.terms, self.losses, strict=True)
        )

    @property
    def needs_aux_head(self) -> bool:
        """Whether any term looks at an auxiliary head."""
        return any(term.head == "aux" for term in self.terms)

    @property
    def views(self) -> int:
        """Views of each sample in a batch: 2 where any term compares two."""
        return max(loss.views for loss in self.losses)

    @property
    def held_out_losses(self) -> list[Loss]:
        """The losses that learn from samples the student is not trained on."""
        return [loss for loss in self.losses if loss.needs_held_out]

    def joint_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of losses that the student's optimiser trains along."""
        for loss in self.losses:
            if isinstance(loss, StatefulLoss):
                yield from loss.joint_parameters()

    def forward(
        self,
        student: Tensor,
        teacher: Tensor | None,
        labels: Tensor | None,
        epoch: int,
        aux: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and each term's own value (before its weight), detached. ``epoch`` counts from 0.

        ``student``, and ``aux``, the logits of an auxiliary head: [B, C], or [2, B, C] of a weak and a strong
        view, where a loss of one view is the sum over both. ``teacher``: the same shape, or one more axis in
        front for several teachers. ``labels``: int64 [B], -1 where there is none.
        """
        total = student.new_zeros(())
        values: dict[str, Tensor] = {}
        for label, term, loss in zip(self.term_names, self.terms, self.losses, strict=True):
            if isinstance(loss, StatefulLoss):
                loss.begin_epoch(epoch + 1)
            value = _term_value(term, loss, _head(term, student, aux), teacher, labels)
            total = total + term.weight_in(epoch) * value
            values[label] = value.detach()
        return total, values

    def note(self, values: dict[str, Tensor]) -> None:
        """Keep the values of a micro-batch, as ``forward`` gave them, for the end of the step."""
        for label, loss in zip(self.term_names, self.losses, strict=True):
            if isinstance(loss, StatefulLoss):
                self._step_values.setdefault(label, []).append(values[label])

    def advance(self, progress: float, mean: Callable[[Tensor], Tensor] = lambda value: value) -> None:
        """After an optimiser step: move the state of losses that have some, by the values noted in it.

        ``progress``: share of all steps done, 0..1. ``mean``: over the processes, so that the state stays the
        same in all of them.
        """
        for label, loss in zip(self.term_names, self.losses, strict=True):
            if isinstance(loss, StatefulLoss) and label in self._step_values:
                loss.advance(mean(torch.stack(self._step_values[label]).mean()), progress)
        self._step_values = {}


def combined_teachers(teacher: Tensor) -> Tensor:
    """[teachers, ..., C] to [..., C]: the log of the mean of the softmaxes, which are logits again."""
    return teacher.log_softmax(-1).logsumexp(0) - math.log(len(teacher))


def written(value: JsonValue) -> str:
    """A value of a configuration as the command line has it."""
    if isinstance(value, dict):
        inside = ", ".join(f"{key}={written(item)}" for key, item in dict(value["configuration"]).items())  # type: ignore[arg-type]
        return f"{value['name']}({inside})"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return json.dumps(value)


def with_label_smoothing(terms: Terms, smoothing: float) -> Terms:
    """The same terms, cross-entropy smoothed where it does not say otherwise itself."""
    if not smoothing:
        return terms
    return tuple(
        term.model_copy(update={"configuration": {"label_smoothing": smoothing, **term.configuration}})
        if term.name == "ce"
        else term
        for term in terms
    )


def _head(term: Term, student: Tensor, aux: Tensor | None) -> Tensor:
    if term.head == "main":
        return student
    if aux is None:
        raise ConfigError(
            f"loss {term.name!r} looks at an auxiliary head, and the student has none: --aux-head"
        )
    return aux


def _term_value(
    term: Term, loss: Loss, student: Tensor, teacher: Tensor | None, labels: Tensor | None
) -> Tensor:
    if not loss.needs_teacher:
        teacher = None  # its classes may be others than those of this head
    if teacher is not None and teacher.ndim > student.ndim and not loss.takes_ensemble:
        teacher = combined_teachers(teacher)
    if term.samples == "labelled":
        student, teacher, labels = _labelled(term, student, teacher, labels)
        if not len(labels):
            return student.sum()  # no labelled sample in this batch: zero, and still part of the graph
    if loss.views == 2 or student.ndim == 2:
        return loss(student, teacher, labels)
    taught = [None, None] if teacher is None else list(teacher.unbind(-3))
    weak, strong = (
        loss(view, view_of_teacher, labels) for view, view_of_teacher in zip(student, taught, strict=True)
    )
    return weak + strong


def _labelled(
    term: Term, student: Tensor, teacher: Tensor | None, labels: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    if labels is None:
        raise ConfigError(f"loss {term.name!r} looks at labelled samples, but there are no labels at all")
    kept = labels >= 0
    return student[..., kept, :], None if teacher is None else teacher[..., kept, :], labels[kept]


def _numbered_names(terms: Terms) -> list[str]:
    names: list[str] = []
    for term in terms:
        same = sum(name.split("#")[0] == term.name for name in names)
        names.append(f"{term.name}#{same + 1}" if same else term.name)
    return names
