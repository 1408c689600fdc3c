"""Things written on a command line: ``name(key=value, ...)`` and weighted sums of them. Nothing is evaluated.

sum    := term ('+' term)*
term   := [number '*'] call ['*' number]
call   := NAME ['(' [key '=' value (',' key '=' value)*] ')']
value  := number | true | false | "text" | NAME | call with brackets | '(' value (',' value)* ')'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydantic import JsonValue

from cache_builder.format.errors import ConfigError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<name>[A-Za-z_][\w.:-]*)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<sign>[-+*(),=\[\]]))"
)
_END = "end"


@dataclass(frozen=True)
class Call:
    """``name(key=value, ...)``; ``has_brackets`` tells ``kd`` from ``kd()``."""

    name: str
    arguments: dict[str, JsonValue] = field(default_factory=dict)
    has_brackets: bool = False
    start: int = field(default=0, compare=False)
    """Index of the name's first character in the text."""
    argument_starts: dict[str, int] = field(default_factory=dict, compare=False)
    """Likewise of each argument's name."""


@dataclass(frozen=True)
class WeightedCall:
    """One term of a sum; ``weight`` is None where none was written."""

    call: Call
    weight: float | None


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


def parse_call(text: str) -> Call:
    """``cnn3(width=8)``. Raises :class:`ConfigError` that points at the character it did not expect."""
    parser = _Parser(text)
    call = parser.call()
    parser.expect_end()
    return call


def parse_sum(text: str) -> list[WeightedCall]:
    """``ce*0.1 + kd(temperature=4)*0.9``. Raises :class:`ConfigError` pointing at the character."""
    parser = _Parser(text)
    terms = [parser.term()]
    while parser.accept("+"):
        terms.append(parser.term())
    parser.expect_end()
    return terms


def pointed(text: str, position: int, problem: str) -> ConfigError:
    """An error that shows the text and points at one of its characters."""
    return ConfigError(f"{problem}\n  {text}\n  {' ' * position}^")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._position = 0

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        end = len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None:
                start = position + len(self._text[position:]) - len(self._text[position:].lstrip())
                raise self._error(start, "this character means nothing here")
            kind = match.lastgroup or _END
            token = _Token(kind, match[kind], match.start(kind))
            # In "a +2*b" and "a() +2*b" the sign adds; after "*", "=", "," it belongs to the number.
            after_value = bool(tokens) and (tokens[-1].kind != "sign" or tokens[-1].text in ")]")
            if kind == "number" and token.text[0] in "+-" and after_value:
                token = _Token("sign", token.text[0], token.start)
            tokens.append(token)
            position = token.start + len(token.text)
        return [*tokens, _Token(_END, "", end)]

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        self._position += 1
        return self._tokens[self._position - 1]

    def accept(self, sign: str) -> bool:
        if self._next.kind != "sign" or self._next.text != sign:
            return False
        self._take()
        return True

    def _expect(self, kind: str, what: str) -> _Token:
        if self._next.kind != kind and self._next.text != kind:
            raise self._error(self._next.start, f"expected {what}")
        return self._take()

    def expect_end(self) -> None:
        self._expect(_END, "the end, or '+' and another term")

    def term(self) -> WeightedCall:
        weight = None
        if self._next.kind == "number":
            weight = float(self._take().text)
            self._expect("*", "'*' after the weight")
        call = self.call()
        if weight is None and self.accept("*"):
            weight = float(self._expect("number", "a number after '*'").text)
        return WeightedCall(call, weight)

    def call(self) -> Call:
        name = self._expect("name", "a name")
        if not self.accept("("):
            return Call(name.text, start=name.start)
        arguments: dict[str, JsonValue] = {}
        starts: dict[str, int] = {}
        while not self.accept(")"):
            if arguments:
                self._expect(",", "',' or ')'")
            key = self._expect("name", "name=value")
            if key.text in arguments:
                raise self._error(key.start, f"{key.text!r} is given twice")
            self._expect("=", f"'=' after {key.text!r}")
            arguments[key.text] = self._value()
            starts[key.text] = key.start
        return Call(name.text, arguments, has_brackets=True, start=name.start, argument_starts=starts)

    def _value(self) -> JsonValue:
        if self._next.kind == "number":
            return _number(self._take().text)
        if self._next.kind == "text":
            return self._take().text[1:-1]
        if self._next.kind == "name":
            return self._named_value()
        for opening, closing in ("()", "[]"):
            if self.accept(opening):
                return self._items(closing)
        raise self._error(self._next.start, "expected a value")

    def _named_value(self) -> JsonValue:
        call = self.call()
        if call.has_brackets:
            return {"name": call.name, "configuration": call.arguments}
        return {"true": True, "false": False}.get(call.name.lower(), call.name)

    def _items(self, closing: str) -> list[JsonValue]:
        items: list[JsonValue] = []
        while not self.accept(closing):
            if items:
                self._expect(",", f"',' or '{closing}'")
            items.append(self._value())
        return items

    def _error(self, position: int, problem: str) -> ConfigError:
        return pointed(self._text, position, f"cannot read this at character {position + 1}: {problem}")


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
