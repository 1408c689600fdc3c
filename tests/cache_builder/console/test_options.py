"""Options come from the fields of settings, and what is wrong with them is said all at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner, Result

from cache_builder.console.options import Names, Option, Settings, ThreeNumbers, checked, takes_settings
from cache_builder.format.errors import ConfigError


class Baking(Settings):
    """Settings of every kind that our commands have."""

    flour: Annotated[str, Option(is_argument=True)]
    """Kind of the flour."""
    out: Path = Path("oven")
    """Where the bread is put."""
    loaves: int = Field(default=2, ge=1, le=9)
    """How many are baked."""
    salt: float | None = Field(default=None, gt=0)
    """Grams of salt per loaf."""
    shape: Literal["round", "long"] = "round"
    """Shape of a loaf."""
    rule: Literal[1, 2] | None = None
    """The rule of baking."""
    seeds: Names = ()
    """Seeds, each given once."""
    colour: ThreeNumbers | None = None
    """Colour of the crust."""
    is_hot: bool = True
    """Whether to heat the oven."""
    as_json: Annotated[bool, Option(flag="--json")] = False
    """Print a machine-readable object."""
    baker: Annotated[str, Option(is_hidden=True)] = "me"
    """Set by a program."""


@contextmanager
def ending() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        typer.echo(f"error: {error}")
        raise typer.Exit(2) from None


class Bakery:
    """A program of one command that keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Baking, bool]] = []
        self.app = typer.Typer(add_completion=False)

        @self.app.command()
        @takes_settings(ending)
        def bake(
            settings: Baking, fast: Annotated[bool, typer.Option("--fast", help="Hurry.")] = False
        ) -> None:
            """Bake bread."""
            self.asked.append((settings, fast))

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(self.app, words, env={"COLUMNS": "160", "TERM": "dumb"})


@pytest.fixture
def bakery() -> Bakery:
    return Bakery()


def test_nothing_given_is_every_default(bakery: Bakery) -> None:
    assert bakery.run("rye").exit_code == 0
    assert bakery.asked == [(Baking(flour="rye"), False)]


def test_everything_given(bakery: Bakery) -> None:
    words = (
        "rye --out hut --loaves 3 --salt 1.5 --shape long --rule 2 --seeds a --seeds b --colour 0.1,0.2,0.3"
    )
    assert bakery.run(*words.split(), "--no-is-hot", "--json", "--fast").exit_code == 0
    (asked,) = bakery.asked
    expected = Baking(
        flour="rye", out=Path("hut"), loaves=3, salt=1.5, shape="long", rule=2, seeds=("a", "b"),
        colour=(0.1, 0.2, 0.3), is_hot=False, as_json=True,
    )  # fmt: skip
    assert asked == (expected, True)


def test_the_help_says_what_the_fields_say(bakery: Bakery) -> None:
    lines = bakery.run("--help").output.splitlines()

    def line(flag: str) -> str:
        return next(one for one in lines if f" {flag} " in one)

    assert "<int> [1<=x<=9]" in line("--loaves")
    assert "How many are baked." in line("--loaves")
    assert "<float> [x>0]" in line("--salt")
    assert "round|long" in line("--shape")
    assert "--no-is-hot" in line("--is-hot")
    assert any("[default: 2]" in one for one in lines)
    assert not any("baker" in one or "--as-json" in one for one in lines)


def test_all_that_is_wrong_is_said_as_it_was_typed(bakery: Bakery) -> None:
    words = "rye --loaves 0 --salt much --shape flat --rule 3 --colour 1,2"
    ended = bakery.run(*words.split())
    assert ended.exit_code == 2
    assert bakery.asked == []
    assert ended.output.removeprefix("error: ").splitlines() == [
        "--loaves 0: Input should be greater than or equal to 1",
        "--salt much: Input should be a valid number, unable to parse string as a number",
        "--shape flat: Input should be 'round' or 'long'",
        "--rule 3: Input should be 1 or 2",
        "--colour 1,2: expected three numbers such as 0.485,0.456,0.406, got 2",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "FLOUR is missing; --help shows examples"),
        ({"flour": "rye", "colour": "a,b,c"}, "--colour a,b,c: expected three numbers such as"),
        ({"flour": "rye", "colour": "nan,0,0"}, "--colour nan: Input should be a finite number"),
        ({"flour": "rye", "shape": "a b"}, "--shape 'a b': Input should be"),
        ({"flour": "rye", "as_json": "maybe"}, "--json maybe: Input should be a valid boolean"),
        ({"flour": "rye", "yeast": 1}, "yeast 1: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named_as_its_flag(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(Baking, values)
    assert said in str(caught.value)


def known_grain(name: str) -> None:
    """Rye and wheat are grains."""
    if name not in ("rye", "wheat"):
        raise ConfigError(f"unknown grain {name!r}")


class Milling(Settings):
    """Settings with names that are looked up."""

    grain: Annotated[Names, Option(check=known_grain)]
    """What is ground."""
    sacks: int
    """How many there are."""
    mill: Annotated[str, Option(check=known_grain)] = "none"
    """A default is not looked up."""


def test_wrong_names_are_said_beside_everything_else() -> None:
    with pytest.raises(ConfigError) as caught:
        checked(Milling, {"grain": ["rye", "rice", "corn"], "mill": "sand"})
    assert str(caught.value).splitlines() == [
        "--sacks is missing; --help shows examples",
        "unknown grain 'rice'",
        "unknown grain 'corn'",
        "unknown grain 'sand'",
    ]
    assert checked(Milling, {"grain": ("rye", "wheat"), "sacks": 3}).grain == ("rye", "wheat")


class Journey(Settings):
    """Of a group: its required option must not stand in the way of a command."""

    to: str
    """Where the journey goes."""


def journey() -> tuple[typer.Typer, list[str]]:
    """A group that does something itself, with one command."""
    app, done = typer.Typer(add_completion=False), []

    @app.callback(invoke_without_command=True)
    @takes_settings(ending)
    def travel(context: typer.Context, settings: Journey) -> None:
        done.append(settings.to)

    @app.command()
    def rest() -> None:
        done.append("rest")

    return app, done


def test_a_group_requires_its_options_only_where_it_runs_itself() -> None:
    app, done = journey()
    assert CliRunner().invoke(app, ["rest"]).exit_code == 0
    assert CliRunner().invoke(app, ["--to", "Rome"]).exit_code == 0
    ended = CliRunner().invoke(app, [])
    assert (ended.exit_code, ended.output) == (2, "error: --to is missing; --help shows examples\n")
    assert done == ["rest", "Rome"]
