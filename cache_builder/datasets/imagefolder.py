"""A folder of image files, one sub-folder per class (or no sub-folders: no labels)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.console.file_kinds import kind_of
from cache_builder.datasets.decoding import EXTENSIONS, read_image_file
from cache_builder.datasets.given_classes import in_given_order
from cache_builder.datasets.left_out import LeftOut
from cache_builder.datasets.options import split_options
from cache_builder.datasets.pixels import NEWEST
from cache_builder.datasets.source import Sample
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.frozen import Decoding
from cache_builder.format.ids import IdBuffer, SampleIds

_EXTENSIONS = tuple(extension.encode() for extension in EXTENSIONS)
# What programs leave beside class folders.
_NO_CLASSES = frozenset((b"__MACOSX", b"__pycache__", b"@eaDir", b"lost+found"))
_Identity = tuple[int, int]


class ImageFolder:
    """Sample id = path relative to the folder, with ``/``; rows in the byte order of the ids.

    Labels are the sorted names of the first-level folders, as in torchvision's ImageFolder; a folder without
    pictures is a class too. ``?classes=FILE`` gives their order: one name a line. Hidden files and folders
    and files of other endings are left out and counted; linked folders are followed.
    """

    reads_files = True
    side: int | None = None
    mirrors = True
    decoding: Decoding = NEWEST

    def __init__(self, path: str) -> None:
        self.spec = f"imagefolder:{path}"
        path, options = split_options("imagefolder", path, ("classes",))
        if not path:
            raise ConfigError("imagefolder needs a folder: write imagefolder:PATH")
        self._root = Path(path).expanduser()
        if not self._root.exists():
            raise DataError(f"image folder {path!r} does not exist")
        if not self._root.is_dir():
            raise DataError(f"image folder {path!r} is {kind_of(self._root)}, expected a folder of pictures")
        self._ids, folders, left_out = _listed(self._root)
        self.left_out = left_out.in_words()
        if not len(self._ids):
            other = f"; left out: {self.left_out}" if self.left_out else ""
            raise DataError(f"image folder {path!r} holds no images ({', '.join(EXTENSIONS)}){other}")
        names, labels = _classes(self._ids, folders)
        self.class_names, self._labels = in_given_order(self.spec, names, labels, options.get("classes"))

    @property
    def ids(self) -> Sequence[str]:
        """Relative paths."""
        return self._ids

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """Index of the class folder, None for a flat folder."""
        return self._labels

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, index: int) -> Sample:
        """Read and decode one file; errors name its path."""
        return read_image_file(self._root / self._ids[index], decoding=self.decoding)


def _listed(root: Path) -> tuple[SampleIds, dict[str, int], LeftOut]:
    """Relative paths of all images in byte order, how many each first-level folder holds, and all others."""
    ids, folders, left_out = IdBuffer(), {}, LeftOut()
    path = os.fsencode(root)
    above = frozenset([_identity(path)])
    for name in _sorted_entries(path, b"", left_out):
        before, within = len(ids), LeftOut()
        if name.endswith(b"/"):
            _collect(path, name, above, ids, within)
            if len(ids) > before or _may_be_class(path + b"/" + name):
                folders[os.fsdecode(name[:-1])] = len(ids) - before
                left_out.join(within)
            if len(ids) == before:
                left_out.add("folder without a picture", os.fsdecode(name[:-1]))
        else:
            ids.append(name)
    return ids.finish(), folders, left_out


def _may_be_class(folder: bytes) -> bool:
    """Whether a folder without pictures is a class nobody has a picture of: a cache built in here is none."""
    is_cache = os.path.exists(folder + b"zarr.json")  # noqa: PTH110  # bytes
    return not is_cache and os.path.basename(folder[:-1]) not in _NO_CLASSES  # noqa: PTH119  # bytes


def _collect(
    root: bytes, prefix: bytes, above: frozenset[_Identity], ids: IdBuffer, left_out: LeftOut
) -> None:
    """Append the images below ``root/prefix``. ``above``: the folders on the way here."""
    folder = os.path.join(root, prefix)  # noqa: PTH118  # bytes
    identity = _identity(folder)
    if identity in above:
        left_out.add("link back to a folder that it is in", os.fsdecode(prefix))
        return
    for name in _sorted_entries(folder, prefix, left_out):
        if name.endswith(b"/"):
            _collect(root, prefix + name, above | {identity}, ids, left_out)
        else:
            ids.append(prefix + name)


def _identity(folder: bytes) -> _Identity:
    status = os.stat(folder)  # noqa: PTH116  # bytes
    return status.st_dev, status.st_ino


def _sorted_entries(folder: bytes, prefix: bytes, left_out: LeftOut) -> Iterator[bytes]:
    """Images and folders of one folder, these with a ``/`` behind, in byte order.

    Going down into the folders as they come then gives whole paths in byte order: no two paths first differ
    within such a name. So nothing larger than a folder is ever sorted.
    """
    entries = IdBuffer()
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith(b"."):
                    _note_hidden(entry, prefix, left_out)
                elif entry.is_dir():
                    entries.append(entry.name + b"/")
                elif not entry.name.lower().endswith(_EXTENSIONS):
                    left_out.add_file(
                        "file that is no picture by its ending", os.fsdecode(prefix + entry.name)
                    )
                # A dangling link stays in, so that it is told; a pipe or a device would block its reader.
                elif entry.is_symlink() or entry.is_file():
                    entries.append(entry.name)
                else:
                    left_out.add("pipe, socket or device", os.fsdecode(prefix + entry.name))
    except OSError as error:
        raise DataError(f"cannot list folder {os.fsdecode(folder)}: {error.strerror}") from error
    return entries.finish().in_byte_order()


def _note_hidden(entry: os.DirEntry[bytes], prefix: bytes, left_out: LeftOut) -> None:
    is_picture = entry.name.lower().endswith(_EXTENSIONS)
    kind = "folder" if entry.is_dir() else "picture" if is_picture else "file"
    left_out.add(f"hidden {kind}", os.fsdecode(prefix + entry.name))


def _classes(
    ids: SampleIds, folders: dict[str, int]
) -> tuple[tuple[str, ...] | None, NDArray[np.int32] | None]:
    """Class names and labels by first-level folder; none when all images lie at the top."""
    if not any(folders.values()):
        return None, None
    at_top = len(ids) - sum(folders.values())
    if at_top:
        first = next(sample_id for sample_id in ids if "/" not in sample_id)
        raise DataError(
            f"{at_top} image(s) lie beside the class folders, the first is {first!r}: "
            "move them into a folder, or take one folder without sub-folders (no labels)"
        )
    names = tuple(sorted(folders))
    index = {name: label for label, name in enumerate(names)}
    labels = np.array([index[folder] for folder in folders], np.int32)
    return names, np.repeat(labels, list(folders.values()))
