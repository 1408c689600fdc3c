"""Where weights lie, looked at before torch is imported: the file is there and is no obvious other thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cache_builder.format.errors import DataError

_IN_A_FOLDER = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
# First bytes of what is no weights file of PyTorch, with what to say of it.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself: run `git lfs pull` where it is"),
    (b"<!doctype", "a web page: the download went to a page about the file"),
    (b"<html", "a web page: the download went to a page about the file"),
    (b"gguf", "a GGUF file of quantised weights, which no PyTorch classifier loads"),
    (b"\x89hdf", "an HDF5 file (Keras): convert it to a PyTorch state dict first"),
    (b"\x93numpy", "a NumPy array; `kdcache import` reads logits that were saved"),
    (b"\x08", "an ONNX graph: give the PyTorch weights it was exported from"),
)


def split_entry(text: str | Path) -> tuple[Path, str | None]:
    """``FILE`` or ``FILE#ENTRY`` to the path and the entry; a path that exists has none."""
    path = Path(text).expanduser()
    if path.exists() or "#" not in str(text):
        return path, None
    file, _, entry = str(text).rpartition("#")
    return Path(file).expanduser(), entry


def weights_file(path: Path) -> Path:
    """The file of weights that a file or a folder stands for. Raises :class:`DataError` with what to do."""
    if path.is_dir():
        return weights_file(_in_folder(path))
    if not path.is_file():
        raise DataError(f"weights file {path} does not exist (--weights takes default, random or a FILE)")
    _refuse_foreign(path)
    return path


def named_classes(path: Path) -> tuple[str, ...] | None:
    """Class names that kdcache wrote into a safetensors file; None where there are none to be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length >= path.stat().st_size:
                return None
            header: dict[str, Any] = json.loads(file.read(length))
        names = json.loads(header["__metadata__"]["kdcache"])["class_names"]
        return tuple(map(str, names)) if names else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whoever reads the weights says what is wrong with them


def _in_folder(folder: Path) -> Path:
    found = next((folder / name for name in _IN_A_FOLDER if (folder / name).exists()), None)
    if found is not None:
        return found
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.pth")) + sorted(folder.glob("*.pt"))
    if len(files) == 1:
        return files[0]
    held = ", ".join(file.name for file in files[:5]) or "no weights file"
    raise DataError(f"weights folder {folder} holds {held}: name the file itself")


def _refuse_foreign(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise DataError(f"weights file {path} is empty: was its download or copy cut off?")
    start = head.lstrip().lower()
    is_onnx = path.suffix.lower() == ".onnx"
    what = next(
        (said for sign, said in _FOREIGN if start.startswith(sign) and (is_onnx or sign != b"\x08")), None
    )
    if what is not None:
        raise DataError(f"weights file {path} is {what}")
