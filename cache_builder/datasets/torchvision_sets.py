"""Any of torchvision's labelled image data sets, where its files are already on disk."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache_builder.console.libraries import torchvision_sets
from cache_builder.console.names import unknown_name
from cache_builder.datasets.given_classes import in_given_order
from cache_builder.datasets.options import split_options
from cache_builder.datasets.pixels import NEWEST, as_rgb
from cache_builder.datasets.source import Sample, pixel_sample
from cache_builder.format.errors import ConfigError, DataError, KDCacheError
from cache_builder.format.frozen import Decoding
from cache_builder.format.ids import DecimalIds

# Where a mirrored image is another class, or none at all.
_WRITING = frozenset(
    ("MNIST", "EMNIST", "KMNIST", "QMNIST", "USPS", "SVHN", "SEMEION", "Omniglot", "GTSRB", "RenderedSST2")
)
_LABELS = ("targets", "labels", "_labels", "y")
_PAIRS = ("samples", "_samples", "imgs", "_flat_character_images")
_FOLDERS = ("raw_folder", "base_folder", "_base_folder", "_images_folder", "image_dir", "filename")
_ANSWERS = {"true": True, "1": True, "false": False, "0": False}


class TorchvisionSource:
    """``torchvision:NAME:PATH[:SPLIT]``, e.g. ``torchvision:Food101:/data:test``; nothing is downloaded.

    PATH is the ``root`` of the class, SPLIT its ``split`` (``train`` or ``test`` where it has ``train``);
    other arguments are options, e.g. ``?partition=2``. Without SPLIT, what the class itself takes.
    ``?classes=FILE`` gives the order of the classes: one name a line.

    Sample id = position. The digest is that of the decoded pixels: torchvision gives no file's bytes away.
    """

    decoding: Decoding | None

    def __init__(self, argument: str) -> None:
        self.decoding = NEWEST
        self.spec = f"torchvision:{argument}"
        name, _, rest = argument.partition(":")
        location, options = split_options("torchvision", rest, None)
        _check_name(name)
        if location:
            _check_folder(self.spec, _path_and_split(location)[0])
        kind = _kind(name)
        if not location:
            raise ConfigError(f"torchvision:{name} needs a folder: write torchvision:{name}:PATH[:SPLIT]")
        path, split = _path_and_split(location)
        # LSUN has an argument of that name.
        order = None if "classes" in _parameters(kind) else options.pop("classes", None)
        arguments = _arguments(self.spec, kind, split, options)
        self._is_raw = "loader" in _parameters(kind)
        if self._is_raw:
            arguments["loader"] = _load
        self._data = _construct(self.spec, kind, path, arguments)
        if not len(self._data):
            raise DataError(f"{self.spec} has no images")
        self.ids: Sequence[str] = DecimalIds(len(self._data))
        image, target = self._item(0)
        labels = _labels(self.spec, self._data, target)
        names = _class_names(self._data, labels)
        self.class_names, self.labels = in_given_order(self.spec, names, labels, order)
        self.mirrors = kind.__name__ not in _WRITING
        self.reads_files = not isinstance(getattr(self._data, "data", None), _arrays())
        if not self.reads_files:
            self.decoding = None
        self.side: int | None = None if self.reads_files else max(image.shape[:2])

    def __len__(self) -> int:
        return len(self._data)

    def read(self, index: int) -> Sample:
        """The item's image as RGB; errors name its position."""
        return pixel_sample(self._item(index)[0])

    def _item(self, index: int) -> tuple[NDArray[np.uint8], object]:
        try:
            item = self._data[index]
            image, target = item[:2] if isinstance(item, tuple) else (item, None)
            if self._is_raw and self.decoding == 1:
                image = image.convert("RGB")  # as torchvision's loader does
            return _pixels(image, self.decoding or NEWEST), target
        except Exception as error:  # whatever a decoder raises
            raise DataError(f"cannot read image {index} of {self.spec}: {error}") from error


def _load(path: str) -> Image.Image:
    """In place of torchvision's own loader, whose conversion cuts 16 bits off at 255 and drops the EXIF."""
    image = Image.open(path)
    image.load()
    return image


def _arrays() -> tuple[type[Any], ...]:
    """What holds numbers in memory."""
    import torch

    return np.ndarray, torch.Tensor


def _kind(name: str) -> type[Any]:
    """The class of that name; small letters will do."""
    import torchvision

    named = {found.lower(): getattr(torchvision.datasets, found) for found in torchvision.datasets.__all__}
    kinds = {
        found: kind for found, kind in named.items() if inspect.isclass(kind) and found != "visiondataset"
    }
    if name.lower() not in kinds:
        known = [kind.__name__ for kind in kinds.values()]
        raise ConfigError(unknown_name("torchvision data set", name, known))
    kind: type[Any] = kinds[name.lower()]
    return kind


def _check_name(name: str) -> None:
    """Before torchvision is imported, which takes a while."""
    known = torchvision_sets()
    if known and name.lower() not in {known_name.lower() for known_name in known}:
        raise ConfigError(unknown_name("torchvision data set", name, known))


def _check_folder(spec: str, folder: Path) -> None:
    """Before torchvision is imported, which takes a while."""
    if not folder.exists():
        raise DataError(
            f"{spec}: there is no folder {folder}, in which torchvision's files should be; kdcache "
            "downloads nothing"
        )


def _path_and_split(location: str) -> tuple[Path, str]:
    path = Path(location).expanduser()
    if path.exists() or ":" not in location:
        return path, ""
    folder, _, split = location.rpartition(":")
    return Path(folder).expanduser(), split


def _parameters(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """What the constructor takes, also through ``**kwargs``."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        own = inspect.signature(base).parameters
        found = {**own, **found}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return found


def _arguments(spec: str, kind: type[Any], split: str, options: dict[str, str]) -> dict[str, object]:
    parameters = _parameters(kind)
    if "root" not in parameters:
        raise ConfigError(f"{spec}: torchvision's {kind.__name__} takes no folder")
    simple = {
        name: parameter
        for name, parameter in parameters.items()
        if name not in ("root", "download")
        and isinstance(parameter.default, str | int | type(inspect.Parameter.empty) | None)
        and "Callable" not in str(parameter.annotation)
        and parameter.kind is not parameter.VAR_KEYWORD
    }
    arguments: dict[str, object] = {}
    for name, text in options.items():
        if name not in simple:
            raise ConfigError(unknown_name(f"option of torchvision:{kind.__name__}", name, simple))
        arguments[name] = _value(spec, name, text, simple[name].default)
    if split:
        arguments |= _split_argument(spec, kind, split, simple)
    if "download" in parameters:
        arguments["download"] = False
    return arguments


def _split_argument(
    spec: str, kind: type[Any], split: str, simple: dict[str, inspect.Parameter]
) -> dict[str, object]:
    if "train" in simple:
        if split not in ("train", "test"):
            raise ConfigError(f"{spec}: {kind.__name__} has the parts 'train' and 'test', not {split!r}")
        return {"train": split == "train"}
    name = next((name for name in ("split", "image_set", "version") if name in simple), None)
    if name is None:
        raise ConfigError(f"{spec}: torchvision's {kind.__name__} has no splits: leave {split!r} out")
    return {name: split}


def _value(spec: str, name: str, text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return _ANSWERS[text.lower()]
        return int(text) if isinstance(default, int) else text
    except (KeyError, ValueError):
        raise ConfigError(f"{spec}: {name}={text}, expected something like {default}") from None


def _construct(spec: str, kind: type[Any], root: Path, arguments: dict[str, object]) -> Any:
    try:
        return kind(root, **arguments)
    except (TypeError, ValueError) as error:  # a split or an argument it does not know, or needs
        raise ConfigError(f"{spec}: {kind.__name__} says: {error}") from error
    except ImportError as error:
        raise ConfigError(f"{spec}: torchvision's {kind.__name__} needs another package: {error}") from error
    except Exception as error:
        looked_for = ", ".join(map(str, _missing_places(error.__traceback__, root))) or root
        raise DataError(
            f"{spec}: the files of torchvision's {kind.__name__} are not there; it looked for {looked_for} "
            f"and says: {_first_sentence(error)} (kdcache downloads nothing)"
        ) from error


def _missing_places(trace: TracebackType | None, root: Path) -> Iterator[Path]:
    """Paths below the root that the half-made data set knows, and that are not there.

    torchvision's own message is mostly "Dataset not found".
    """
    import torchvision

    while trace is not None and not isinstance(
        trace.tb_frame.f_locals.get("self"), torchvision.datasets.VisionDataset
    ):
        trace = trace.tb_next
    if trace is None:
        return
    data = trace.tb_frame.f_locals["self"]
    known = [*vars(data).values(), *(getattr(data, name, None) for name in _FOLDERS)]
    places = dict.fromkeys(root / place for place in known if isinstance(place, str | Path) and str(place))
    for place in places:
        if place.is_relative_to(root) and not place.exists():
            yield place


def _first_sentence(error: Exception) -> str:
    """torchvision goes on to recommend ``download=True``."""
    return str(error).split(". ")[0].split(" You can")[0].rstrip(".") or type(error).__name__


def _pixels(image: Any, decoding: Decoding) -> NDArray[np.uint8]:
    """Whatever an item holds, as uint8 [H, W, 3]."""
    if not isinstance(image, np.ndarray) and isinstance(image, _arrays()):
        array = image.numpy()
        image = array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in (1, 3) else array
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise KDCacheError(f"its pixels are {image.dtype}, expected uint8")
        image = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    if not isinstance(image, Image.Image):
        raise KDCacheError(f"it holds {type(image).__name__}, expected an image")
    return np.array(as_rgb(image, decoding))  # a copy that may be written to, as tensors expect


def _labels(spec: str, data: Any, first: object) -> NDArray[np.int32] | None:
    """From what the class keeps in memory where that agrees with its first item, else from every item."""
    if isinstance(first, bool) or not isinstance(first, int | np.integer):
        return None  # captions, boxes, attributes: no class ids
    for column in _kept_labels(data):
        if column.shape == (len(data),) and column.dtype.kind in "iu" and column[0] == first:
            return column.astype(np.int32)
    try:
        return np.fromiter((int(data[index][1]) for index in range(len(data))), np.int32, len(data))
    except Exception as error:  # whatever a decoder raises
        raise DataError(f"{spec}: the labels cannot be read: {error}") from error


def _kept_labels(data: Any) -> Iterator[NDArray[Any]]:
    for name in _LABELS:
        column: Any = getattr(data, name, None)
        if isinstance(column, (list, tuple, *_arrays())) and len(column) == len(data):  # type: ignore[arg-type]
            try:
                yield np.asarray(column)
            except ValueError:  # ragged
                continue
    for name in _PAIRS:
        pairs = getattr(data, name, None)
        if isinstance(pairs, list) and len(pairs) == len(data) and isinstance(pairs[0][1], int):
            yield np.array([pair[1] for pair in pairs])


def _class_names(data: Any, labels: NDArray[np.int32] | None) -> tuple[str, ...] | None:
    """The names the class has, else the numbers."""
    if labels is None:
        return None
    least = int(labels.max()) + 1
    names = getattr(data, "classes", None)
    if isinstance(names, list | tuple) and len(names) >= least:
        return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in names)
    return tuple(str(number) for number in range(least)) or None
