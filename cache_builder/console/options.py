"""A command's options, declared once: as the fields of the settings that they set.

A field of a :class:`Settings` is an option: its name is the flag, its docstring the help; type, bounds and
default are the option's. What a field cannot say, such as a flag of another name, is in an :class:`Option`
beside its type. :func:`takes_settings` makes a command of a function that takes such settings.
"""

from __future__ import annotations

import functools
import inspect
import re
import shlex
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ByteSize, ValidationError
from pydantic.fields import FieldInfo

from cache_builder.format.errors import ConfigError
from cache_builder.format.frozen import Frozen

REQUIRED = "Required."
"""How the help of an option ends that must be given."""

# A bound that says how many bits there are would only make the help harder to read.
_LARGEST_BOUND = 10**6


class Settings(Frozen, defer_build=True):
    """What a command was asked for. The validator is built on first use, so that ``--help`` does without."""

    panel: ClassVar[str | None] = None
    """Heading in ``--help`` of the options that name none themselves."""


@dataclass(frozen=True)
class Option:
    """How the command line shows a field; what is None or False follows from the field itself."""

    flag: str | None = None
    """Where it differs from the field's name, as in ``--json``, or ``--x/--no-x`` for both values."""
    panel: str | None = None
    """Heading in ``--help`` under which it stands."""
    metavar: str | None = None
    """What stands for the value in ``--help``."""
    is_argument: bool = False
    """Whether the value is given by its place instead of by a flag."""
    is_hidden: bool = False
    """Whether the command line does not have it: a program sets it."""
    check: Callable[[str], object] | None = None
    """Raises :class:`ConfigError` for a name that nothing has. The command line looks at all names at once;
    settings that a program makes are looked at where the name is used."""


def three_numbers(value: object) -> object:
    """``0.5,0.5,0.5`` as numbers; everything but text is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise ValueError("expected three numbers such as 0.485,0.456,0.406") from None
    if len(numbers) != 3:
        raise ValueError(f"expected three numbers such as 0.485,0.456,0.406, got {len(numbers)}")
    return numbers


def listed(value: object) -> object:
    """One name alone as a tuple of one, None as an empty one."""
    return () if value is None else (value,) if isinstance(value, str) else value


Triple = tuple[float, float, float]
ThreeNumbers = Annotated[Triple, BeforeValidator(three_numbers)]
"""Three numbers, on the command line between commas."""
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
"""One name, or several in order."""

Command = Callable[..., None]
S = TypeVar("S", bound=Settings)


def takes_settings(ending: Callable[[], AbstractContextManager[None]]) -> Callable[[Command], Command]:
    """Make a typer command of a function; each parameter that is a :class:`Settings` gives its options.

    Other parameters are typer's. ``ending``: the context in which the options are checked and the function
    runs. The function of a group, which takes a ``typer.Context``, does not run where one of the group's
    commands does. Options that are required are missed by us, not by typer, which names the first one only.
    """

    import typer  # Who only wants settings, such as ``kdcache.BuildSettings``, does without.

    def decorate(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        contexts = [name for name, hint in hints.items() if hint is typer.Context]
        taken = {name: hint for name, hint in hints.items() if _is_settings(hint)}
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(function).parameters.items():
            if name in taken:
                parameters += parameters_of(taken[name])
            else:
                parameters.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))

        @functools.wraps(function)
        def command(**given: Any) -> None:
            if any(given[name].invoked_subcommand for name in contexts):
                return
            with ending():
                asked = {name: checked(model, _of(model, given)) for name, model in taken.items()}
                fields = {field for model in taken.values() for field in model.model_fields}
                function(**asked, **{name: one for name, one in given.items() if name not in fields})

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def parameters_of(model: type[Settings]) -> Iterable[inspect.Parameter]:
    """For typer, in the order of the fields."""
    for name, info in model.model_fields.items():
        option = _option(info)
        if not option.is_hidden:
            yield _parameter(name, info, replace(option, panel=_panel(model, option)))


def _panel(model: type[Settings], option: Option) -> str | None:
    return option.panel if option.is_argument else option.panel or model.panel


def checked(model: type[S], values: Mapping[str, Any]) -> S:
    """The settings; raises :class:`ConfigError` that names every flag which is wrong."""
    wrong = _unknown_names(model, values)
    try:
        made = model.model_validate({name: _choice(model, name, value) for name, value in values.items()})
    except ValidationError as error:
        raise ConfigError("\n".join([*_problems(model, error), *wrong])) from error
    if wrong:
        raise ConfigError("\n".join(wrong))
    return made


def _is_settings(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Settings)


def _of(model: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line has for a model; a field that nobody gave keeps its default."""
    return {name: given[name] for name in model.model_fields if given.get(name) not in (None, [], ())}


def _parameter(name: str, info: FieldInfo, option: Option) -> inspect.Parameter:
    """One parameter of a command. Numbers stay text: the model's message then shows what was typed."""
    import typer

    kind = _bare(info.annotation)
    is_late = info.is_required() and not option.is_argument
    shown: dict[str, Any] = {
        "help": " ".join([*(info.description or "").split(), *([REQUIRED] if is_late else [])]),
        "metavar": option.metavar or _metavar(kind, info),
        "rich_help_panel": option.panel,
    }
    default = inspect.Parameter.empty if info.is_required() and option.is_argument else _default(info)
    typed: Any = list[str] if _is_repeated(kind) else bool if kind is bool else str
    if default is None:
        typed = typed | None
    flag = _flag(name, option)
    if kind is bool and info.default is True and option.flag is None:
        flag += f"/--no-{flag.removeprefix('--')}"
    how = typer.Argument(**shown) if option.is_argument else typer.Option(flag, **shown)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[typed, how]
    )


def _option(info: FieldInfo) -> Option:
    """The ``Option`` of a field; where an alias brought another one, both count."""
    found = Option()
    for extra in info.metadata:
        if isinstance(extra, Option):
            found = replace(found, **{key: value for key, value in vars(extra).items() if value})
    return found


def _bare(annotation: Any) -> Any:
    """A type without ``Annotated`` and without ``None``."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (only,) = (part for part in get_args(annotation) if part is not type(None))
        return _bare(only)
    return annotation


def _is_repeated(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis


def _default(info: FieldInfo) -> Any:
    """As typer shows it: numbers as their text."""
    default = None if info.is_required() or info.default == () else info.default
    if isinstance(default, ByteSize):
        return re.sub(r"\.0(?=\D)", "", default.human_readable())
    return default if default is None or isinstance(default, bool | Path) else str(default)


def _metavar(kind: Any, info: FieldInfo) -> str | None:
    """The choices or the bounds of a value; None leaves it to typer."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if kind is Path:
        return "<path>"
    if kind not in (int, float):
        return None
    low, high = _bound(info, {"ge": "<=", "gt": "<"}), _bound(info, {"le": "<=", "lt": "<"})
    if high is not None:
        between = "x".join([f"{low[0]:g}{low[1]}" if low else "", f"{high[1]}{high[0]:g}"])
        return f"<{kind.__name__}> [{between}]"
    return f"<{kind.__name__}> [x{low[1].replace('<', '>')}{low[0]:g}]" if low else f"<{kind.__name__}>"


def _bound(info: FieldInfo, signs: Mapping[str, str]) -> tuple[float, str] | None:
    """The bound of one of these kinds, with its sign."""
    for extra in info.metadata:
        for kind, sign in signs.items():
            value = getattr(extra, kind, None)
            if value is not None and value < _LARGEST_BOUND:
                return value, sign
    return None


def _choice(model: type[Settings], name: str, value: Any) -> Any:
    """A choice that is no text, such as 1 or 2, by its text."""
    info = model.model_fields.get(name)
    kind = None if info is None else _bare(info.annotation)
    choices = {str(choice): choice for choice in get_args(kind)} if get_origin(kind) is Literal else {}
    return choices.get(value, value) if isinstance(value, str) else value


def _flag(name: str, option: Option) -> str:
    return option.flag or f"--{name.replace('_', '-')}"


def _named(name: str, option: Option) -> str:
    """What a message calls an option: one of its flags, or what stands for it in ``--help``."""
    return option.metavar or name.upper() if option.is_argument else _flag(name, option).partition("/")[0]


def _problems(model: type[Settings], error: ValidationError) -> Iterable[str]:
    """What is missing, and the first thing that is wrong with each option, one a line."""
    missing: list[str] = []
    said: dict[str, str] = {}
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        info = model.model_fields.get(name)
        flag = _named(name, Option(flag=name) if info is None else _option(info))
        if problem["type"] == "missing":
            missing.append(flag)
        else:
            found, reason = problem["input"], problem.get("ctx", {}).get("error", problem["msg"])
            said.setdefault(flag, f"{flag} {shlex.quote(str(found))}: {reason}")
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        yield f"{_listed(missing)} {verb} missing; --help shows examples"
    yield from said.values()


def _listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _unknown_names(model: type[Settings], values: Mapping[str, Any]) -> list[str]:
    """What there is to say of names that nothing has, one a line."""
    said: list[str] = []
    for name, value in values.items():
        info = model.model_fields.get(name)
        check = None if info is None else _option(info).check
        if check is not None:
            said += _refused(check, (value,) if isinstance(value, str) else value)
    return said


def _refused(check: Callable[[str], object], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        try:
            check(name)
        except ConfigError as error:
            yield str(error)
