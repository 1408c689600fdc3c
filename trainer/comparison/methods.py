"""The methods of a comparison: what ``--losses`` says, each item checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cache_builder.format import ConfigError
from cache_builder.format.frozen import Frozen
from trainer.objective.objective import Terms
from trainer.objective.published import RECIPES, Benchmark
from trainer.objective.written import parse_objective, published

BASELINE = "ce"
"""Hard labels: what every method is compared with."""
_ALL = "all"
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_LABEL_LENGTH = 36
_SLUG_LENGTH = 60


class Method(Frozen):
    """One way to train the student."""

    name: str
    """As it was asked for: a method's name, or an objective."""
    label: str
    """A short name for tables and pictures; no two methods share one."""
    slug: str
    """Its name in folders; no two methods share one."""
    objective: Terms
    """What is minimised."""
    source: str | None
    """Where a method's own objective was published; None for one that was written out."""

    @property
    def minimises(self) -> str:
        """The objective, written out."""
        return " + ".join(map(str, self.objective))


@dataclass(frozen=True)
class Item:
    """A part of ``--losses``."""

    text: str
    start: int
    """Its place in ``--losses``, in characters."""


def parse_methods(text: str, benchmark: Benchmark) -> tuple[Method, ...]:
    """Hard labels, then the methods of ``--losses``, each once.

    Raises :class:`ConfigError` pointing at the first item that is not an objective.
    """
    objectives = {BASELINE: parse_objective(BASELINE, benchmark)}
    for number, item in enumerate(split_items(text), 1):
        for name in RECIPES if item.text == _ALL else [item.text]:
            objectives[name] = _objective(name, benchmark, text, item, number)
    labels = _distinct([_label(name) for name in objectives], " ({})")
    slugs = _distinct([_slug(name) for name in objectives], "-{}")
    return tuple(
        Method(name=name, label=label, slug=slug, objective=terms, source=_source(name, benchmark))
        for (name, terms), label, slug in zip(objectives.items(), labels, slugs, strict=True)
    )


def split_items(text: str) -> list[Item]:
    """The parts between commas; commas in brackets and in quotes do not split.

    Raises :class:`ConfigError` pointing at an empty part, or at a bracket or quote without its other half.
    """
    items: list[Item] = []
    start = 0
    for comma in [*_commas(text), len(text)]:
        part = text[start:comma]
        if not part.strip():
            raise _pointing(text, start, len(part), "a method is missing here")
        items.append(Item(part.strip(), start + len(part) - len(part.lstrip())))
        start = comma + 1
    return items


def _commas(text: str) -> Iterable[int]:
    """Places of the commas that split."""
    opened: list[int] = []
    quote: int | None = None
    for place, character in enumerate(text):
        if quote is not None:
            quote = None if character == text[quote] else quote
        elif character in "\"'":
            quote = place
        elif character in _CLOSING:
            opened.append(place)
        elif character in _CLOSING.values():
            if not opened or _CLOSING[text[opened.pop()]] != character:
                raise _pointing(text, place, 1, "this bracket closes none")
        elif character == "," and not opened:
            yield place
    if quote is not None:
        raise _pointing(text, quote, 1, "this quote is never closed")
    if opened:
        raise _pointing(text, opened[-1], 1, "this bracket is never closed")


def _objective(name: str, benchmark: Benchmark, text: str, item: Item, number: int) -> Terms:
    try:
        return parse_objective(name, benchmark)
    except ConfigError as error:
        raise _pointing(text, item.start, len(item.text), f"item {number}: {error}") from error


def _source(name: str, benchmark: Benchmark) -> str | None:
    recipe = published(name, benchmark)
    return recipe.source if recipe else None


def _pointing(text: str, start: int, length: int, problem: str) -> ConfigError:
    pointer = " " * start + "^" * max(length, 1)
    return ConfigError(
        f"--losses: {problem}\nin\n  {text}\n  {pointer}\n"
        'expected names and objectives between commas, such as kd,dkd,"ce*0.1 + kd(temperature=2)*0.9"; '
        "kdtrain losses lists them"
    )


def _label(name: str) -> str:
    if name == BASELINE:
        return "hard labels"
    return name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1].rstrip() + "…"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=]+", "-", name).strip("-.")[:_SLUG_LENGTH]


def _distinct(names: Iterable[str], suffix: str) -> list[str]:
    """The same names, numbered from the second of those that differ in capitals at most."""
    taken: dict[str, str] = {}
    for name in names:
        candidate, number = name, 2
        while candidate.lower() in taken:
            candidate, number = name + suffix.format(number), number + 1
        taken[candidate.lower()] = candidate
    return list(taken.values())
