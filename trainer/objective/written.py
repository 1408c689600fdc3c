"""Reading an objective: a method's name, an expression, JSON or TOML, or the path of a file with either."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cache_builder.console.names import unknown_name
from cache_builder.format.errors import ConfigError
from trainer.losses import LOSSES, make_loss
from trainer.objective.expression import WeightedCall, parse_sum, pointed
from trainer.objective.objective import Objective, Term, Terms
from trainer.objective.published import RECIPES, Benchmark, Published

_SMALL_IMAGE = 64
_OF_THE_TERM = ("warmup_epochs", "head", "samples")


def parse_objective(text: str, benchmark: Benchmark) -> Terms:
    """An objective from whatever was written.

    A name alone gives the method's published objective for ``benchmark``. Every term is built once, so a
    wrong parameter is refused here: :class:`ConfigError`, pointing at the character of an expression.
    """
    stripped = text.strip()
    recipe = published(stripped, benchmark)
    if recipe is not None:
        terms = _from_expression(recipe.objective)
    elif stripped.startswith("["):
        terms = (
            _from_json(stripped, "the objective")
            if _is_json(stripped)
            else _from_toml(stripped, "the objective")
        )
    elif stripped.endswith((".json", ".toml")):
        reader = _from_json if stripped.endswith(".json") else _from_toml
        terms = reader(_read(Path(stripped)), stripped)
    elif re.fullmatch(r"[\w-]+", stripped) and stripped not in LOSSES:
        raise ConfigError(unknown_name("loss", stripped, [*LOSSES, *RECIPES]))
    else:
        terms = _from_expression(stripped)
    Objective(terms)
    return terms


def published(text: str, benchmark: Benchmark) -> Published | None:
    """The published objective that a method's name alone means; None for one that was written out."""
    recipe = RECIPES.get(text.strip())
    return recipe[benchmark] if recipe else None


def benchmark_for(image_size: int) -> Benchmark:
    """Whose published settings apply when nobody said: CIFAR's up to 64 pixels, ImageNet's above."""
    return "cifar100" if image_size <= _SMALL_IMAGE else "imagenet"


def _from_expression(text: str) -> Terms:
    return tuple(_term(text, item) for item in parse_sum(text))


def _term(text: str, item: WeightedCall) -> Term:
    """One term, built once: an error points at the argument it names, or at the loss."""
    try:
        term = _validated(item)
        make_loss(term.name, term.configuration)
    except ConfigError as error:
        raise pointed(text, _place(item, str(error)), str(error)) from error
    return term


def _place(item: WeightedCall, message: str) -> int:
    """Where the argument stands that a message is about; the loss, where it is about none."""
    for key, start in item.call.argument_starts.items():
        if re.search(rf"(parameter '{key}'|: {key}\b)", message):
            return start
    return item.call.start


def _validated(item: WeightedCall) -> Term:
    configuration = dict(item.call.arguments)
    settings = {key: configuration.pop(key) for key in _OF_THE_TERM if key in configuration}
    weight = 1.0 if item.weight is None else item.weight
    given: dict[str, Any] = {
        "name": item.call.name,
        "configuration": configuration,
        "weight": weight,
        **settings,
    }
    try:
        return Term.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            f"loss {item.call.name!r}: {where}: {problem['msg']}, got {problem['input']!r}"
        ) from error


def _is_json(text: str) -> bool:
    """TOML's array of tables begins with two brackets and a name, JSON's list with one and a brace."""
    return re.match(r"\[\s*[{\]]", text) is not None


def _from_json(text: str, where: str) -> Terms:
    try:
        terms = TypeAdapter(tuple[Term, ...]).validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where} is not a list of terms (name, configuration, weight): {error}") from error
    return _not_empty(terms, where)


def _from_toml(text: str, where: str) -> Terms:
    try:
        tables = tomllib.loads(text)
        terms = TypeAdapter(tuple[Term, ...]).validate_python(tables.get("term", ()))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(
            f"{where} is not a list of [[term]] tables (name, configuration, weight): {error}"
        ) from error
    return _not_empty(terms, where)


def _not_empty(terms: Terms, where: str) -> Terms:
    if not terms:
        raise ConfigError(f"{where} has no terms: name at least one loss")
    return terms


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read the objective {path}: {error}") from error
