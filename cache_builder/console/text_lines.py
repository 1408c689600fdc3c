"""The lines of lists that people write: of ids, of class names, of pairs of classes."""

from __future__ import annotations

from collections.abc import Iterator


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines as they are, with their numbers from 1; one of nothing but blanks is none.

    Lines end with a line feed, behind which a carriage return is dropped; in a text without line feeds, with
    carriage returns. Not as ``str.splitlines``, which breaks at characters that names may have.
    """
    mark = "\r" if "\n" not in text else "\n"
    for number, line in enumerate(text.split(mark), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def lines_of(text: str) -> list[str]:
    """The same lines without their numbers."""
    return [line for _, line in numbered_lines(text)]
