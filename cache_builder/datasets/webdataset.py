"""Samples in tar files (webdataset's layout), read by position: no sample has to wait for those before it."""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cache_builder.datasets.decoding import EXTENSIONS, decoded_sample
from cache_builder.datasets.labels import LabelBuffer
from cache_builder.datasets.left_out import LeftOut
from cache_builder.datasets.object_paths import Location, ObjectFile, ObjectPath
from cache_builder.datasets.options import split_options
from cache_builder.datasets.pixels import NEWEST
from cache_builder.datasets.shards import (
    MOST_LABEL_BYTES,
    Member,
    Payloads,
    ShardFile,
    find_shards,
    samples_of,
    skimmed,
)
from cache_builder.datasets.source import ImageSample
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.frozen import Decoding
from cache_builder.format.ids import IdBuffer
from cache_builder.format.repeated_ids import first_repeated

_IMAGES = tuple(extension.removeprefix(".") for extension in EXTENSIONS)
_OPEN_SHARDS = 64


class WebDataset:
    """``webdataset:PATTERN``: tar files on disk or by URL, with braces or globs; rows in their order.

    Sample id = ``shard/key``: the tar file's name without ``.tar``, and the member's path up to the first dot
    of its name. In many data sets keys are only unique inside a shard; ``?id=key`` takes them alone where
    they are unique, and so survives packing into other shards.

    Label = the number in the member ``.cls``, else ``label`` of the member ``.json`` (a number or a name).
    Options: ``image=EXTENSION`` and ``label=EXTENSION`` or ``label=JSON_KEY`` where that is not so
    (``label=`` reads none), ``classes=FILE`` or ``classes=N``.

    Python's tarfile finds the members: the webdataset package reads streams in order, not by row.
    """

    reads_files = True
    side: int | None = None
    mirrors = True
    decoding: Decoding = NEWEST

    def __init__(self, argument: str) -> None:
        self.spec = f"webdataset:{argument}"
        pattern, options = split_options("webdataset", argument, ("image", "label", "classes", "id"))
        if not pattern:
            raise ConfigError("webdataset needs tar files: write webdataset:/data/train-{000..146}.tar")
        if options.get("id", "key") != "key":
            raise ConfigError(f"{self.spec}: id={options['id']}, expected id=key or nothing")
        index = _Index(options)
        self._shards = find_shards(pattern)
        if "id" not in options:
            _check_stems(self._shards)
        if any(isinstance(shard, ObjectPath) for shard in self._shards):
            found = skimmed(self._shards, index.labelled_by)
            for shard, (samples, left_out) in zip(self._shards, found, strict=True):
                index.left_out.join(left_out)
                index.add(shard, samples)
        else:
            for shard in self._shards:
                index.add(shard, samples_of(shard, index.left_out))
        if not len(index.ids):
            raise DataError(f"{self.spec}: no sample in {len(self._shards)} shard(s)")
        ids = index.ids.finish()
        repeated = first_repeated(ids)
        if repeated is not None:
            shard = self._shards[bisect(index.first_rows, repeated) - 1]
            raise DataError(
                f"{self.spec}: sample {ids[repeated]!r} occurs more than once, again in shard {shard}"
            )
        self.ids: Sequence[str] = ids
        self.class_names, self.labels = index.labels.finish(self.spec, options.get("classes"))
        self.left_out = index.left_out.in_words()
        self._first_rows = np.array(index.first_rows, np.int64)
        self._offsets = np.array(index.offsets, np.int64)
        self._sizes = np.array(index.sizes, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> ImageSample:
        """Read and decode one member; errors name its shard and key."""
        return decoded_sample(self.fetch(index), self._name(index), self.decoding)

    def fetch(self, index: int) -> bytes:
        """The bytes of one image; errors name its shard and key."""
        name, shard = self._name(index), self._shard(index)
        try:
            data: bytes = self._opened(shard).at(int(self._offsets[index]), int(self._sizes[index]))
        except OSError as error:
            raise DataError(f"cannot read image {name}: {error.strerror}") from error
        if len(data) < self._sizes[index]:
            raise DataError(f"cannot read image {name}: the shard was cut off since it was opened")
        return data

    def _shard(self, index: int) -> Location:
        return self._shards[int(np.searchsorted(self._first_rows, index, "right")) - 1]

    def _name(self, index: int) -> str:
        return f"{self.ids[index]!r} of shard {self._shard(index)}"

    @cached_property
    def _opened(self) -> Any:
        """Open shards by path, those used last: there may be more than a process may have open."""
        return lru_cache(_OPEN_SHARDS)(_opened_shard)

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker opens its own files; a forked one may share them, pread moves no position.
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}


class _OpenShard:
    """A file descriptor that is closed when nobody needs it any more."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def at(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _opened_shard(shard: Location) -> _OpenShard | ObjectFile:
    return ObjectFile(shard) if isinstance(shard, ObjectPath) else _OpenShard(shard)


class _Index:
    """What is known of every sample once all headers were read."""

    def __init__(self, options: dict[str, str]) -> None:
        self.ids = IdBuffer()
        self.labels = LabelBuffer()
        self.left_out = LeftOut()
        self.offsets = array("q")
        self.sizes = array("q")
        self.first_rows: list[int] = []
        self._keys_alone = "id" in options
        self._image = options.get("image", "").lower().removeprefix(".")
        self._label = options.get("label")
        self._labelled: bool | None = None

    @property
    def labelled_by(self) -> set[str]:
        """Extensions of the members that may hold a label."""
        return set() if self._label == "" else {self._label or "cls", "json"}

    def add(self, shard: Location, samples: Iterable[tuple[str, list[Member], ShardFile | Payloads]]) -> None:
        """All samples of one tar file."""
        self.first_rows.append(len(self.ids))
        prefix = "" if self._keys_alone else f"{_stem(shard)}/"
        for key, members, file in samples:
            image = self._find_image(shard, key, members)
            self.ids.append((prefix + key).encode(errors="surrogateescape"))
            self.offsets.append(image.offset)
            self.sizes.append(image.size)
            read = self._add_label(shard, key, members, file)
            self._note_others(shard, key, members, {image.extension, read})

    def _note_others(self, shard: Location, key: str, members: list[Member], read: set[str]) -> None:
        """Count the members of a sample that nobody looks at, such as captions."""
        for member in members:
            if member.extension not in read:
                self.left_out.add_file("member beside a picture", f"{_stem(shard)}/{key}.{member.extension}")

    def _find_image(self, shard: Location, key: str, members: list[Member]) -> Member:
        wanted = (self._image,) if self._image else _IMAGES
        found = [member for member in members if member.extension in wanted]
        extensions = ", ".join(member.extension for member in members)
        if not found:
            raise DataError(
                f"sample {key!r} of shard {shard} has no image ({', '.join(wanted)}), only: {extensions}"
            )
        if len(found) > 1:
            raise DataError(
                f"sample {key!r} of shard {shard} has several images ({extensions}): say which with "
                "?image=EXTENSION, or its key occurs more than once"
            )
        return found[0]

    def _add_label(self, shard: Location, key: str, members: list[Member], file: ShardFile | Payloads) -> str:
        """Returns the extension of the member that was read."""
        name = f"{key!r} of shard {shard}"
        value, read = (None, "") if self._label == "" else self._read_label(name, members, file)
        has_label = value is not None
        if self._labelled not in (None, has_label):
            raise DataError(
                f"sample {key!r} of shard {shard} has {'a' if has_label else 'no'} label, the samples before "
                f"it have {'none' if has_label else 'one'}: ?label= at the end of the pattern ignores all"
            )
        self._labelled = has_label
        self.labels.append(value)
        return read

    def _read_label(
        self, name: str, members: list[Member], file: ShardFile | Payloads
    ) -> tuple[str | None, str]:
        """A label, and the extension of the member that was read for it."""
        by_extension = {member.extension: member for member in members}
        number = by_extension.get(self._label or "cls")
        if number is not None:
            return _number(name, _payload(name, number, file)), number.extension
        document = by_extension.get("json")
        if document is None:
            return None, ""
        return _json_label(name, _payload(name, document, file), self._label), "json"


def _payload(name: str, member: Member, file: ShardFile | Payloads) -> bytes:
    if member.size > MOST_LABEL_BYTES:
        raise DataError(f"sample {name}: its .{member.extension} has {member.size:,} bytes, no label")
    return file.at(member.offset, member.size)


def _number(name: str, payload: bytes) -> str:
    text = payload.decode(errors="replace").strip()
    try:
        return str(int(text))
    except ValueError:
        raise DataError(f"sample {name}: label {text[:40]!r}, expected a class number") from None


def _json_label(name: str, payload: bytes, key: str | None) -> str | None:
    try:
        document = json.loads(payload)
    except ValueError as error:
        raise DataError(f"sample {name}: its .json cannot be read: {error}") from error
    value = document.get(key or "label") if isinstance(document, dict) else None
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise DataError(f"sample {name}: label {value!r}, expected a number or a name")
    return None if value is None else str(value)


def _check_stems(shards: list[Location]) -> None:
    """Shards of one name in two folders would give one id to two samples."""
    seen: dict[str, Location] = {}
    for shard in shards:
        first = seen.setdefault(_stem(shard), shard)
        if first is not shard:
            raise DataError(
                f"two shards are named {shard.name}: {first} and {shard}; rename one, or use ?id=key where "
                "keys are unique"
            )


def _stem(shard: Location) -> str:
    return shard.name.removesuffix(".tar")
