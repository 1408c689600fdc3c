"""Recipes as they are written: in a manifest, on a command line, in a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cache_builder.console.dotted import check_trusted, import_dotted, is_dotted
from cache_builder.console.names import unknown_name
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import NamedConfiguration
from cache_builder.views.mixing import inverse_beta
from cache_builder.views.recipes import BASES, RECIPES, Augment, Recipe

UNKNOWN_VIEWS = "imported"
"""What stands in the manifest of an imported cache in the place of a recipe; no trainer replays it."""
_ALPHA = {"mixup": "mixup_alpha", "cutmix": "cutmix_alpha"}


def named(recipe: Recipe) -> NamedConfiguration:
    """The recipe as it stands in a manifest: complete, whatever it was read from."""
    own = f"{type(recipe).__module__}:{type(recipe).__qualname__}"
    name = next((name for name, kind in RECIPES.items() if type(recipe) is kind), own)
    return NamedConfiguration(name=name, configuration=recipe.model_dump(mode="json"))


def recipe_from(config: NamedConfiguration) -> Recipe:
    """The recipe a manifest names. Raises :class:`ConfigError` for an unknown name or parameter.

    A recipe of somebody's own is imported by its name only where ``check_trusted`` lets it: a cache may be
    anybody's.
    """
    if is_dotted(config.name):
        check_trusted(config.name, "recipe")
    return _validated(config.name, config.configuration, f"recipe {config.name!r}")


def parse_recipe(text: str) -> Recipe:
    """A recipe written on a command line: ``rrc-flip:min_area=0.25,flip=0`` or the path of a TOML file.

    ``mixup:alpha=0.4,base=pad-crop-flip,erase.probability=0.25``: a parameter of a section is written with
    the section's name and a dot; without it, it is looked for in the recipe's own section and in its base.
    """
    if text.endswith(".toml"):
        return read_recipe(Path(text))
    name, rest = _split(text)
    written: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"recipe {text!r}: expected name=value, found {item!r}")
        written[key.strip()] = value.strip()
    return _drawable(_validated(name, _nested(name, written), f"recipe {name!r}"))


def read_recipe(path: Path) -> Recipe:
    """A recipe from a TOML file; its ``name`` says which (default ``augment``), the rest is as in a manifest.

    Raises :class:`ConfigError` naming the file and the key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe file {path} is not TOML: {error}") from error
    name = table.pop("name", "augment")
    if not isinstance(name, str):
        raise ConfigError(f"recipe file {path}: name: expected one of {', '.join(RECIPES)}, found {name!r}")
    return _drawable(_validated(name, table, f"recipe file {path}"))


def _drawable(recipe: Recipe) -> Recipe:
    """The recipe, where what it needs to be drawn is installed; :class:`ConfigError` elsewhere."""
    if isinstance(recipe, Augment) and recipe.mix is not None:
        inverse_beta()
    return recipe


def _validated(name: str, configuration: Mapping[str, Any], where: str) -> Recipe:
    if name == UNKNOWN_VIEWS:
        raise ConfigError(
            f"{where}: the views of this cache were drawn by another program (format "
            f"{configuration.get('format')}), so nobody can render what the teacher saw and no student can "
            "be trained from it: import the dump again with --recipe if you know how its views were drawn"
        )
    kind = _kind(name)
    if kind is None:
        prefix = "" if where == f"recipe {name!r}" else f"{where}: "
        raise ConfigError(prefix + unknown_name("recipe", name, RECIPES))
    try:
        return kind.model_validate(configuration)
    except ValidationError as error:
        problem = error.errors()[0]
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path) + ": " if path else ""
        what = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {key}{what}; {_known(kind, path[:-1], configuration)}") from error


def _split(text: str) -> tuple[str, str]:
    """Name and parameters: ``name:key=value,…`` or ``package.module:Name:key=value,…``."""
    first, _, rest = text.partition(":")
    second, _, more = rest.partition(":")
    is_own = first not in RECIPES and is_dotted(f"{first}:{second}")
    return (f"{first}:{second}", more) if is_own else (first, rest)


def _kind(name: str) -> type[Recipe] | None:
    """The class of a recipe by its name; None for a name that nobody has.

    Raises :class:`ConfigError` for ``package.module:Name`` that is not there or is no recipe.
    """
    if not is_dotted(name):
        return RECIPES.get(name)
    found = import_dotted(name, "recipe")
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise ConfigError(f"recipe {name!r} is no subclass of cache_builder.views.Recipe")
    return found


def _known(kind: type[Recipe], sections: list[str], configuration: Mapping[str, Any]) -> str:
    """Which parameters there are where the problem is."""
    section = sections[0] if sections else ""
    model: type[BaseModel] | None = kind
    if section:
        model = _base_of(kind, configuration) if section == "base" else _section(kind, section)
    of = f"those of {section}" if section else "its parameters"
    return f"{of} are {', '.join(model.model_fields) if model else 'none'}"


def _section(kind: type[Recipe], name: str) -> type[BaseModel] | None:
    """The model of an optional section, such as ``RandAugment``."""
    field = kind.model_fields.get(name)
    candidates = get_args(field.annotation) if field else ()
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _base_of(kind: type[Recipe], configuration: Mapping[str, Any]) -> type[Recipe]:
    """The base that is written, or the recipe's own."""
    given = configuration.get("base")
    name = given.get("name") if isinstance(given, Mapping) else given
    return BASES.get(str(name)) or type(kind.model_fields["base"].default)


def _nested(name: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """Flat ``section.parameter`` keys as nested tables; keys without a section find theirs."""
    kind = _kind(name)
    if kind is None or not issubclass(kind, Augment):
        return dict(written)
    nested: dict[str, Any] = {}
    base = _base_of(kind, written)
    for key, value in written.items():
        section, dot, parameter = _placed(name, kind, base, key).partition(".")
        if section == "base" and not dot:
            nested.setdefault("base", {})["name"] = value
        elif dot:
            nested.setdefault(section, {})[parameter] = value
        else:
            nested[section] = value
    if "base" in nested:
        nested["base"].setdefault("name", next(each for each, model in BASES.items() if model is base))
    return nested


def _placed(name: str, kind: type[Augment], base: type[Recipe], key: str) -> str:
    """``section.parameter`` for a key that a section of the recipe has; the key itself for others."""
    if "." in key or key in kind.model_fields:
        return key
    main = _section(kind, kind.main) if kind.main else None
    if key == "alpha" and name in _ALPHA:
        return f"mix.{_ALPHA[name]}"
    places = [f"{kind.main}.{key}"] if main and key in main.model_fields else []
    places += [f"base.{key}"] if key in base.model_fields else []
    if len(places) > 1:
        raise ConfigError(f"recipe {name!r}: {key} could be {' or '.join(places)}: write which")
    return places[0] if places else key
