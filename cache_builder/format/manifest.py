"""The manifest: everything a reader must know about a cache, as frozen pydantic models.

On disk it is the JSON object under ``attributes["kdcache"]`` of the store's root group. FORMAT.md states
every field; unknown keys are refused so that a newer writer cannot be misread in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import (
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cache_builder.format.codecs import ManifestCodec
from cache_builder.format.errors import FormatError
from cache_builder.format.frozen import Decoding, Frozen

FORMAT_VERSION: Literal[2] = 2
"""What this release writes; it reads version 1 as well."""


class NamedConfiguration(Frozen):
    """A thing chosen by name, with its parameters: ``{"name": ..., "configuration": {...}}``."""

    name: str
    configuration: dict[str, JsonValue] = Field(default_factory=dict)


class DataSection(Frozen):
    """The data set the rows come from."""

    spec: str
    """How the builder was told to open it, e.g. ``imagefolder:/data/train``. Descriptive only."""
    samples: int = Field(gt=0)
    """N, the number of rows."""
    classes: int = Field(gt=1)
    """C, the number of logits of the teacher."""
    class_names: tuple[str, ...] | None
    """C names in logit order, or null where nobody named them."""
    own_class_names: tuple[str, ...] | None = None
    """Names of the data set's own classes where they are not the teacher's, so that no labels are stored.

    The JSON has this key only then, so that every other manifest is what earlier releases write and read.
    """
    decoding: Decoding = 1
    """The rule by which the data set's files become pixels, for whoever replays the views.

    The JSON lacks this key where it is 1: in caches of earlier releases, and of data that is pixels already.
    """

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = serialize(self)
        absent = {"own_class_names": None, "decoding": 1}
        return {key: value for key, value in body.items() if key not in absent or value != absent[key]}


class TeacherSection(Frozen):
    """The model whose logits are stored."""

    spec: str
    """Model name as given, resolved (``vit_l`` becomes ``torchvision:vit_l_16``)."""
    weights: str
    """Where the weights came from."""
    weights_digest: str
    """xxh64 (hex) over the names, shapes and bytes of the state dict: names the teacher for ever."""
    input_size: int = Field(gt=0)
    """Side in pixels of the square the teacher saw."""
    mean: tuple[float, float, float]
    """Per-channel mean (RGB, of pixels in 0..1) subtracted before the teacher."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Per-channel standard deviation (RGB, of pixels in 0..1)."""
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    """Resampling of every view; always antialiased."""
    precision: Literal["fp32", "bf16", "fp16"]
    """Arithmetic of the forward pass. Logits are float32 from the last layer on."""


class ViewsSection(Frozen):
    """The recorded augmentations."""

    count: int = Field(gt=0)
    """V, views per sample."""
    recipe: NamedConfiguration
    """The augmentation policy and its parameters."""
    seed: int = Field(ge=0, lt=2**64)
    """Key of the counter-based generator."""


class TilingSection(Frozen):
    """The unit of work, of writing, of commit and of resume."""

    views: int = Field(gt=0)
    """Views in a tile."""
    rows: int = Field(gt=0)
    """Rows in a tile; also the rows of one chunk."""


class CodecRequest(Frozen):
    """What the user asked of calibration; null = free."""

    bytes_per_view: PositiveFloat | None = None
    """The most a record should take on disk."""
    top_k: int | None = None
    """K."""
    tail_rank: int | None = None
    """r."""
    tail_step: PositiveFloat | None = None
    """Step of the coefficients, in logits."""
    value_step: PositiveFloat | None = None
    """Step of the K values, in logits."""


class RatePoint(Frozen):
    """One setting of the codec: what it costs and what it loses, on pairs that fitted nothing."""

    top_k: int
    tail_rank: int
    tail_step: float
    value_step: float
    bytes_per_view: float
    """On disk, after compression."""
    tv: tuple[float, float, float, float]
    """Mean total-variation distance of softmax(logits / T), decoded against live, at T = 1, 2, 4 and 8."""
    gradient_cosine: float
    """The smallest over a few losses, of the gradient that a half-trained student would get."""
    logit_error: float
    """Root-mean-square of decoded minus live logits, in logits."""


class CalibrationSection(Frozen):
    """The pass that fitted the tail basis and chose the codec's settings."""

    pairs: int = Field(ge=0)
    """(view, row) pairs whose logits were used; 0 when nothing had to be fitted."""
    logit_std: float = Field(ge=0)
    """Standard deviation of those logits around their per-class mean, in logits."""
    tail_error: float = Field(ge=0)
    """Root-mean-square error of decoded against live logits on those pairs, in logits."""
    requested: CodecRequest = CodecRequest()
    """What the user asked for."""
    table: tuple[RatePoint, ...] = ()
    """Fitted on one half of the pairs, measured on the other; empty when nothing was chosen."""
    chosen: int | None = Field(default=None, ge=0)
    """The row of the table that the cache uses."""


class ProbeSection(Frozen):
    """Rendered pixels of a few (view, row) pairs, to notice another decoder or resizer."""

    pairs: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
    """The (view, row) of each stored picture."""
    libraries: dict[str, str]
    """Versions of the libraries that rendered them."""
    tolerance: float = Field(gt=0)
    """Largest mean absolute pixel difference (levels of 255) that still counts as the same picture."""


class Manifest(Frozen):
    """All a reader needs. ``cache_id`` is null until every tile is committed."""

    format_version: Literal[1, 2] = FORMAT_VERSION
    product_version: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name of the cache: the last part of its URL on a server."""
    data: DataSection
    teacher: TeacherSection
    views: ViewsSection
    codec: ManifestCodec
    tiling: TilingSection
    calibration: CalibrationSection
    probe: ProbeSection
    environment: dict[str, str]
    """Library versions and device that computed the logits. Descriptive."""
    digests: dict[str, str]
    """xxh64 (hex) of the raw little-endian bytes of each array that is not under ``records/``."""
    invalid_rows: tuple[int, ...] = ()
    """Rows that could not be read (``--on-error skip``): their records decode to NaN."""
    cache_id: str | None = None
    """Digest over the manifest and all commits; null while the build runs."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self

    @property
    def completed_id(self) -> str:
        """``cache_id`` of a finished cache; raises :class:`FormatError` before that."""
        if self.cache_id is None:
            raise FormatError(f"cache {self.name!r} is not finished, so it has no cache_id yet")
        return self.cache_id


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What no single field can see: the sections must agree."""
    classes, names, codec = manifest.data.classes, manifest.data.class_names, manifest.codec
    if names is not None and len(names) != classes:
        yield f"data.class_names has {len(names)} names for {classes} classes"
    if manifest.format_version < codec.since:
        yield f"format version {manifest.format_version} has no codec {codec.name}"
    yield from codec.problems(classes)
    if any(
        view >= manifest.views.count or row >= manifest.data.samples for view, row in manifest.probe.pairs
    ):
        yield "probe.pairs names a (view, row) that the cache does not have"
    if list(manifest.invalid_rows) != sorted({row for row in manifest.invalid_rows if row >= 0}):
        yield "invalid_rows must be ascending row numbers"
    if manifest.invalid_rows and manifest.invalid_rows[-1] >= manifest.data.samples:
        yield f"invalid_rows names row {manifest.invalid_rows[-1]} of {manifest.data.samples}"


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def build_digest(body: dict[str, Any]) -> str:
    """What ties tiles to their build: SHA-256 (32 hex digits) over the manifest JSON without its results."""
    settled = {key: value for key, value in body.items() if key not in ("cache_id", "invalid_rows")}
    return hashlib.sha256(canonical_json(settled)).hexdigest()[:32]


def cache_digest(body: dict[str, Any], commits: Iterable[bytes]) -> str:
    """The cache_id: SHA-256 (32 hex digits) over the manifest JSON without its id and all commit objects.

    ``body``: the JSON as stored, so that a field a later release adds does not change an old cache's id.
    ``commits``: their bytes, in tile order.
    """
    settled = {key: value for key, value in body.items() if key != "cache_id"}
    digest = hashlib.sha256(canonical_json(settled))
    for commit in commits:
        digest.update(b"\n" + commit)
    return digest.hexdigest()[:32]


def array_digest(array: NDArray[Any]) -> str:
    """xxh64 (hex) of an array's little-endian C-order bytes."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return xxhash.xxh64_hexdigest(little.reshape(-1).view(np.uint8).data)


# What may differ between the command that started a build and the one that resumes it: results of the
# build itself and a description of the machine.
_NOT_SETTINGS: dict[str, Any] = {
    "data": {"own_class_names"},
    "product_version": True,
    "environment": True,
    "codec": True,
    "calibration": {"pairs", "logit_std", "tail_error", "table", "chosen"},
    "probe": True,
    "digests": True,
    "invalid_rows": True,
    "cache_id": True,
}


def differing_settings(stored: Manifest, wanted: Manifest) -> list[str]:
    """The settings in which two manifests differ, one ``path: stored -> wanted`` line each."""
    old = _flatten(stored.model_dump(mode="json", exclude=_NOT_SETTINGS))
    new = _flatten(wanted.model_dump(mode="json", exclude=_NOT_SETTINGS))
    paths = [path for path in old | new if old.get(path) != new.get(path)]
    return [f"{path}: {_shorten(old.get(path))} -> {_shorten(new.get(path))}" for path in sorted(paths)]


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
