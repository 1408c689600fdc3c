"""Which ids were probably meant by one that is not there: another extension, case, folder or Unicode form."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_MOST_COMPARED = 2000
_OFFERED = 3
_EXTENSIONS = (".jpg", ".jpeg", ".JPEG", ".JPG", ".png", ".PNG", ".webp")


def likely_ids(unknown: str) -> list[str]:
    """What an id may have been meant as, for a look-up in an index: a few guesses, whatever the cache."""
    forms = [unicodedata.normalize(form, unknown) for form in ("NFC", "NFD")]
    stem, _, extension = unknown.rpartition(".")
    swapped = [f"{stem or unknown}{other}" for other in _EXTENSIONS if other != f".{extension}"]
    shorter = unknown.partition("/")[2]
    return [guess for guess in dict.fromkeys([*forms, *swapped, shorter]) if guess and guess != unknown]


def near_ids(unknown: str, known: Iterable[str]) -> list[str]:
    """The few ids nearest to an unknown one; one pass over the known ones, whose number may be millions."""
    name, stem = _name(unknown), _stem(unknown)
    exact: list[str] = []
    alike: list[str] = []
    candidates: list[str] = []
    for other in known:
        if stem not in (folded := _folded(other)):
            if len(candidates) < _MOST_COMPARED and other[:1] == unknown[:1]:
                candidates.append(other)
        elif folded == _folded(unknown):
            exact.append(other)
        elif _stem(other) == stem:
            alike.append(other)
    # Of ids with one stem, first those that lie in the same folder or have the same name.
    alike.sort(key=lambda other: (-_shared(other, unknown), _name(other) != name))
    found = exact + alike
    return found[:_OFFERED] or difflib.get_close_matches(unknown, candidates, n=_OFFERED, cutoff=0.85)


def told_near(unknown: str, near: Iterable[str]) -> str:
    """What is said of them, with what differs where no reader sees it."""
    near = list(near)
    if not near:
        return ""
    same = unicodedata.normalize("NFC", unknown) == unicodedata.normalize("NFC", near[0])
    if same and near[0] != unknown:
        forms = f"{unknown!a}, {_form(unknown)}, here; {near[0]!a}, {_form(near[0])}, there"
        return (
            f"; {near[0]!r} is there, the same letters in another Unicode normal form ({forms}): were the "
            "files copied from another system?"
        )
    return f"; near ones are {', '.join(map(repr, near))}"


def _form(text: str) -> str:
    return next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, text)), "a mixture")


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text).casefold()


def _name(sample_id: str) -> str:
    return _folded(sample_id).rpartition("/")[2]


def _stem(sample_id: str) -> str:
    name = _name(sample_id)
    return name.rpartition(".")[0] or name


def _shared(left: str, right: str) -> int:
    """How many folders, from the last one on, both ids have in common."""
    count = 0
    pairs = zip(
        reversed(_folded(left).split("/")[:-1]), reversed(_folded(right).split("/")[:-1]), strict=False
    )
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count
