"""What a student minimises: ``sum_i weight_i * warmup_i(epoch) * term_i``.

Written as JSON or TOML, ``[{"name", "configuration", "weight", "warmup_epochs"}, ...]``, or on a command
line, ``ce*1.0 + dkd(alpha=1,beta=8,temperature=4,warmup_epochs=20)*1.0``. A method's name alone means its
published objective (``trainer.objective.published``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from trainer.losses import Loss, StatefulLoss, make_loss
from trainer.losses.flaws import has_non_finite, out_of_range
from trainer.objective.reduction import Counts, reduced
from trainer.objective.terms import Term, Terms
from trainer.objective.value_checks import ValueChecks


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
        self.checks = ValueChecks(self.term_names)
        """What was wrong with the numbers that the terms saw; whoever keeps a result asks it first."""
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
    def counts_labelled(self) -> bool:
        """Whether any term is a mean over the labelled samples alone, so that batches count differently."""
        return any(term.samples == "labelled" for term in self.terms)

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
        *,
        where: Tensor | None = None,
        counts: Counts | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and each term's own value (before its weight), detached. ``epoch`` counts from 0.

        ``student``, and ``aux``, the logits of an auxiliary head: [B, C], or [2, B, C] of a weak and a strong
        view, where a loss of one view is the sum over both. ``teacher``: the same shape, or one more axis in
        front for several teachers. ``labels``: int64 [B], -1 where there is none. ``where``: bool [B], the
        samples that count; None = all. ``counts``: what sums over samples are divided by, so that the mean
        over micro-batches and processes is that of all samples; None = this batch alone.

        Numbers that no loss can work with (not finite, a label out of range) are noted in ``checks``: looking
        at them here would wait for the device in every step.
        """
        total = student.new_zeros(())
        values: dict[str, Tensor] = {}
        flaws = _Flaws()
        for label, term, loss in zip(self.term_names, self.terms, self.losses, strict=True):
            if isinstance(loss, StatefulLoss):
                loss.begin_epoch(epoch + 1)
            seen = _seen_by(term, loss, student, teacher, labels, aux)
            value = _term_value(term, loss, seen, where, counts)
            total = total + term.weight_in(epoch) * value
            values[label] = value.detach()
            flaws.add(term, loss, seen)
        self.checks.note(torch.stack(flaws.found), student.shape[-1])
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


class _Seen(NamedTuple):
    """What a term looks at."""

    student: Tensor
    teacher: Tensor | None
    labels: Tensor | None


class _Flaws:
    """The flaws of what the terms of one evaluation see; what several of them see is looked at once."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        """Of each term, bool [3], in the order of ``FLAWS``."""
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, term: Term, loss: Loss, seen: _Seen) -> None:
        """Look at one more term's numbers; nothing waits for the device."""
        student = self._non_finite(seen.student)
        labels = seen.labels
        if labels is not None and loss.needs_labels:
            labelled = labels.clamp_min(0) if term.samples == "labelled" else labels
            wrong = out_of_range(labelled, seen.student.shape[-1])
        else:
            wrong = torch.zeros_like(student)
        taught = torch.zeros_like(student) if seen.teacher is None else self._non_finite(seen.teacher)
        self.found.append(torch.stack([taught, wrong, student]))

    def _non_finite(self, logits: Tensor) -> Tensor:
        if id(logits) not in self._known:
            # The logits are kept along, so that no other tensor gets their id meanwhile.
            self._known[id(logits)] = logits, has_non_finite(logits.detach())
        return self._known[id(logits)][1]


def _seen_by(
    term: Term, loss: Loss, student: Tensor, teacher: Tensor | None, labels: Tensor | None, aux: Tensor | None
) -> _Seen:
    if term.head == "aux":
        if aux is None:
            raise ConfigError(
                f"loss {term.name!r} looks at an auxiliary head, and the student has none: --aux-head"
            )
        student = aux
    if not loss.needs_teacher:
        teacher = None  # its classes may be others than those of this head
    if teacher is not None and teacher.ndim > student.ndim and not loss.takes_ensemble:
        teacher = combined_teachers(teacher)
    return _Seen(student, teacher, labels)


def _term_value(term: Term, loss: Loss, seen: _Seen, where: Tensor | None, counts: Counts | None) -> Tensor:
    """A term of one view or of both, over the samples that count for it."""
    student, teacher, labels = seen
    count = None if counts is None else counts.samples
    if term.samples == "labelled":
        if labels is None:
            raise ConfigError(f"loss {term.name!r} looks at labelled samples, but there are no labels at all")
        has_label = labels >= 0
        where = has_label if where is None else where & has_label
        count = None if counts is None else counts.labelled
    if labels is not None and loss.needs_labels:
        # One that is out of range is noted elsewhere; here it would end the device's process.
        labels = labels.clamp(0, student.shape[-1] - 1)
    if loss.views == 2 or student.ndim == 2:
        return reduced(loss, student, teacher, labels, where, count)
    taught = [None, None] if teacher is None else list(teacher.unbind(-3))
    weak, strong = (
        reduced(loss, view, view_of_teacher, labels, where, count)
        for view, view_of_teacher in zip(student, taught, strict=True)
    )
    return weak + strong


def _numbered_names(terms: Terms) -> list[str]:
    names: list[str] = []
    for term in terms:
        own = term.name.rpartition(":")[2]  # of package.module:Name
        same = sum(name.split("#")[0] == own for name in names)
        names.append(f"{own}#{same + 1}" if same else own)
    return names
