"""The terms of an objective as they are written, before any loss is made of them: no torch."""

from __future__ import annotations

import ast
import json
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from cache_builder.format.frozen import Frozen

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


@lru_cache(maxsize=1)
def loss_names() -> tuple[str, ...]:
    """The keys of ``trainer.losses.LOSSES``, read from its source: importing it brings torch."""
    source = Path(__file__).parents[1] / "losses" / "__init__.py"
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "LOSSES":
            assert isinstance(node.value, ast.Dict)
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise AssertionError(f"{source} has no dict LOSSES")
