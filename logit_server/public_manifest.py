"""A manifest as strangers may read it: names of files, without the folders of the builder's machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_TOLD = ("data", "teacher", "requested", "environment")
"""The sections that say in words what the builder was given; readers compute with none of them."""
_NAMES_OF_CLASSES = ("class_names", "own_class_names")
_PLACES = {
    ("data", "spec"),
    ("teacher", "weights"),
    ("requested", "data"),
    ("requested", "weights"),
    ("requested", "class_map"),
    ("environment", "imported.source"),
}
"""What stands for a file or a folder, also by a relative path."""

_SLASH = r"[/\\]"
_BEFORE = r"(?:~[^/\\:\s]*|\.{1,2}|(?<![A-Za-z])[A-Za-z]:)?"
# From the start of an absolute path to the last slash of the line, quotation or bracket that it stands in:
# folders may hold spaces.
_ABSOLUTE = re.compile(rf"(?<![^\s\"'(\[{{=:,+]){_BEFORE}{_SLASH}(?:[^\"'()\n]*{_SLASH})?")
_MEMBERS = " + "
"""Between the weights of an ensemble."""


def public_manifest(body: dict[str, Any]) -> dict[str, Any]:
    """The manifest's JSON with names in place of paths, of any format version.

    What readers check stays as it is: the cache_id, the digests of the arrays, codec, views and input.
    """
    return {key: _without(value, (key,)) if key in _TOLD else value for key, value in body.items()}


def place_name(text: str) -> str:
    """``imagefolder:/home/ann/photos`` as ``imagefolder:photos``, and likewise in options (``?root=…``)."""
    place, mark, options = text.partition("?")
    shown = re.sub(r"(?<==)[^&]*", lambda value: _last_part(value[0]), options)
    return _last_part(place) + mark + shown


def without_folders(text: str) -> str:
    """A sentence with names in place of absolute paths."""
    return _ABSOLUTE.sub("", text)


def _without(value: Any, where: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, (*where, key)) for key, item in value.items()}
    if where[-1] in _NAMES_OF_CLASSES:
        return value
    if isinstance(value, list):
        return [_without(item, where) for item in value]
    return _shown(value, where) if isinstance(value, str) else value


def _shown(text: str, where: tuple[str, ...]) -> str:
    show: Callable[[str], str] = place_name if where in _PLACES else without_folders
    return _MEMBERS.join(map(show, text.split(_MEMBERS)))


def _last_part(text: str) -> str:
    """What comes after the last slash, and before the colon in front of the first one."""
    bare = text.rstrip("/\\")
    first = re.search(_SLASH, bare)
    if first is None:
        return bare
    kind = bare[: first.start()].rpartition(":")
    last = max(bare.rfind("/"), bare.rfind("\\"))
    return kind[0] + kind[1] + bare[last + 1 :]
