"""Reading an objective: a method's name, an expression, JSON or TOML, or the path of a file with either."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cache_builder.console.names import unknown_name
from cache_builder.format.errors import ConfigError
from trainer.objective.expression import WeightedCall, parse_sum, pointed
from trainer.objective.published import RECIPES, Benchmark, Published
from trainer.objective.terms import Term, Terms, loss_names

_SMALL_IMAGE = 64
_OF_THE_TERM = ("warmup_epochs", "head", "samples")


Check = Callable[[Term], None]
"""Refuses a term with a :class:`ConfigError`."""


def parse_objective(text: str, benchmark: Benchmark) -> Terms:
    """An objective from whatever was written.

    A name alone gives the method's published objective for ``benchmark``. Every term is built once, so a
    wrong parameter is refused here: :class:`ConfigError`, pointing at the character of an expression.
    """
    return _parsed(text, benchmark, _build)


def read_objective(text: str, benchmark: Benchmark) -> Terms:
    """The same terms while torch is not imported: names of losses are looked up, their parameters are not.

    Raises :class:`ConfigError` for what cannot be read and for names that no loss has.
    """
    return _parsed(text, benchmark, _check_name)


def _parsed(text: str, benchmark: Benchmark, check: Check) -> Terms:
    stripped = text.strip()
    recipe = published(stripped, benchmark)
    if recipe is not None:
        return _from_expression(recipe.objective, check)
    if stripped.startswith("["):
        reader = _from_json if _is_json(stripped) else _from_toml
        return _checked(reader(stripped, "the objective"), check)
    if stripped.endswith((".json", ".toml")):
        reader = _from_json if stripped.endswith(".json") else _from_toml
        return _checked(reader(_read(Path(stripped)), stripped), check)
    if re.fullmatch(r"[\w-]+", stripped) and stripped not in loss_names():
        raise ConfigError(unknown_name("loss", stripped, [*loss_names(), *RECIPES]))
    return _from_expression(stripped, check)


def _build(term: Term) -> None:
    from trainer.losses import make_loss

    make_loss(term.name, term.configuration)


def _check_name(term: Term) -> None:
    if term.name not in loss_names():
        raise ConfigError(unknown_name("loss", term.name, loss_names()))


def _checked(terms: Terms, check: Check) -> Terms:
    for term in terms:
        check(term)
    return terms


def published(text: str, benchmark: Benchmark) -> Published | None:
    """The published objective that a method's name alone means; None for one that was written out."""
    recipe = RECIPES.get(text.strip())
    return recipe[benchmark] if recipe else None


def benchmark_for(image_size: int) -> Benchmark:
    """Whose published settings apply when nobody said: CIFAR's up to 64 pixels, ImageNet's above."""
    return "cifar100" if image_size <= _SMALL_IMAGE else "imagenet"


def _from_expression(text: str, check: Check) -> Terms:
    return tuple(_term(text, item, check) for item in parse_sum(text))


def _term(text: str, item: WeightedCall, check: Check) -> Term:
    """One term, checked: an error points at the argument it names, or at the loss."""
    try:
        term = _validated(item)
        check(term)
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
