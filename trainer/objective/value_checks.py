"""Checks of numbers that wait for the device only when somebody asks for the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from trainer.losses.flaws import raise_flaw


class ValueChecks:
    """What was wrong with the numbers that the terms of an objective saw since it was asked last."""

    def __init__(self, terms: Sequence[str]) -> None:
        self._terms = tuple(terms)
        self._found: Tensor | None = None
        self._classes = 0
        self._asked_after = 0

    def note(self, flaws: Tensor, classes: int) -> None:
        """Remember the flaws of one evaluation, bool [terms, 3]; they stay on the device."""
        self._found = flaws if self._found is None else self._found | flaws
        self._classes = classes

    def begin(self, step: int) -> None:
        """That many optimiser steps were done before the first one that is noted."""
        self._asked_after = step

    def ask(
        self, step: int | None = None, anywhere: Callable[[Tensor], Tensor] = lambda found: found
    ) -> None:
        """Raise the error of the first flaw since the last time, naming the term and the steps in question.

        ``step``: optimiser steps done; None = outside of a run. ``anywhere``: what any process found, from
        what this one did, so that all of them stop.
        """
        if self._found is None:
            return
        found, self._found = anywhere(self._found), None
        first, self._asked_after = self._asked_after + 1, self._asked_after if step is None else step
        verdicts = found.tolist()
        when = "" if step is None else f" in steps {first} to {step}" if step > first else f" in step {step}"
        for kind in range(found.shape[1]):
            for term, flaws in zip(self._terms, verdicts, strict=True):
                if flaws[kind]:
                    raise_flaw(f"loss {term!r}", [index == kind for index in range(3)], self._classes, when)
