"""What a student minimises: ``sum_i weight_i * warmup_i(epoch) * term_i``.

Written as JSON, ``[{"name", "configuration", "weight", "warmup_epochs"}, ...]``, or on a command line,
``ce*1.0 + dkd(alpha=1,beta=8,temperature=4,warmup_epochs=20)*1.0``. A method's name alone means its
published objective (``trainer.losses.recipes``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import Frozen
from cache_builder.names import unknown_name
from trainer.expression import WeightedCall, parse_sum
from trainer.losses import LOSSES, Loss
from trainer.losses.recipes import RECIPES, Benchmark


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

    def weight_in(self, epoch: int) -> float:
        """The weight in an epoch counted from 0."""
        return self.weight * (min((epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0)

    def __str__(self) -> str:
        arguments = dict(self.configuration)
        if self.warmup_epochs:
            arguments["warmup_epochs"] = self.warmup_epochs
        written = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())
        return f"{self.name}{f'({written})' if written else ''}*{self.weight:g}"


Terms = tuple[Term, ...]


class Objective(nn.Module):
    """The weighted sum. A module, so that losses with buffers move and are saved with it."""

    def __init__(self, terms: Iterable[Term]) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.term_names = _numbered_names(self.terms)
        """The terms' names, numbered where one occurs twice."""
        self.losses = [make_loss(term.name, term.configuration) for term in self.terms]
        self.stateful = nn.ModuleList(loss for loss in self.losses if isinstance(loss, nn.Module))

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(loss.needs_teacher for loss in self.losses)

    @property
    def needs_labels(self) -> bool:
        """Whether any term looks at the labels."""
        return any(loss.needs_labels for loss in self.losses)

    def forward(
        self, student: Tensor, teacher: Tensor | None, labels: Tensor | None, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and each term's own value (before its weight), detached. ``epoch`` counts from 0."""
        total = student.new_zeros(())
        values: dict[str, Tensor] = {}
        for label, term, loss in zip(self.term_names, self.terms, self.losses, strict=True):
            value = loss(student, teacher, labels)
            total = total + term.weight_in(epoch) * value
            values[label] = value.detach()
        return total, values


def make_loss(name: str, configuration: dict[str, JsonValue]) -> Loss:
    """``LOSSES[name]`` with the given fields. Raises :class:`ConfigError` for what it does not know."""
    kind: Any = LOSSES.get(name)
    if kind is None:
        raise ConfigError(unknown_name("loss", name, LOSSES))
    assert is_dataclass(kind)
    known = [item.name for item in fields(kind)]
    for key in configuration:
        if key not in known:
            raise ConfigError(f"loss {name!r}: " + unknown_name("parameter", key, known))
    try:
        loss: Loss = TypeAdapter(kind).validate_python(configuration)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"loss {name!r}: {where}: {problem['msg']}, got {problem['input']!r}") from error
    return loss


def parse_objective(text: str, benchmark: Benchmark) -> Terms:
    """An objective from a method's name, an expression, JSON, or the path of a JSON file.

    A name alone gives the method's published objective for ``benchmark``. Every term is built once, so a
    wrong parameter is refused here.
    """
    stripped = text.strip()
    if stripped in RECIPES:
        terms = _from_expression(RECIPES[stripped][benchmark].objective)
    elif stripped.startswith("["):
        terms = _from_json(stripped, "the objective")
    elif stripped.endswith(".json"):
        terms = _from_json(_read(Path(stripped)), stripped)
    else:
        terms = _from_expression(stripped)
    Objective(terms)
    return terms


def published_source(text: str, benchmark: Benchmark) -> str | None:
    """Where the objective of a method's name alone was published; None for one that was written out."""
    recipe = RECIPES.get(text.strip())
    return recipe[benchmark].source if recipe else None


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


def _numbered_names(terms: Terms) -> list[str]:
    names: list[str] = []
    for term in terms:
        same = sum(name.split("#")[0] == term.name for name in names)
        names.append(f"{term.name}#{same + 1}" if same else term.name)
    return names


def _from_expression(text: str) -> Terms:
    return tuple(_term(item) for item in parse_sum(text))


def _term(item: WeightedCall) -> Term:
    configuration = dict(item.call.arguments)
    warmup = configuration.pop("warmup_epochs", 0)
    if not isinstance(warmup, int | float) or warmup < 0:
        raise ConfigError(f"loss {item.call.name!r}: warmup_epochs must be a number >= 0, got {warmup!r}")
    weight = 1.0 if item.weight is None else item.weight
    return Term(name=item.call.name, configuration=configuration, weight=weight, warmup_epochs=warmup)


def _from_json(text: str, where: str) -> Terms:
    try:
        terms = TypeAdapter(tuple[Term, ...]).validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where} is not a list of terms (name, configuration, weight): {error}") from error
    if not terms:
        raise ConfigError(f"{where} has no terms: name at least one loss")
    return terms


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read the objective {path}: {error}") from error


def benchmark_for(image_size: int) -> Benchmark:
    """Whose published settings apply when nobody said: CIFAR's up to 64 pixels, ImageNet's above."""
    return "cifar100" if image_size <= 64 else "imagenet"
