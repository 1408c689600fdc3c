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
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PrivateAttr,
    model_validator,
)

from cache_builder.format.errors import FormatError

FORMAT_VERSION: Literal[1] = 1


class Frozen(BaseModel):
    """A value object: immutable, no unknown keys, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


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


class CodecSection(Frozen):
    """How a logit vector becomes a record."""

    name: Literal["topk-tail"] = "topk-tail"
    top_k: int = Field(gt=0)
    """K, classes stored one by one, largest logit first. K = C means no tail."""
    index_bits: Literal[8, 16, 32]
    """Width of a stored class id."""
    tail_rank: int = Field(ge=0)
    """r, coefficients of the tail sketch; 0 when K = C."""
    tail_wide: int = Field(ge=0)
    """The first of the r coefficients that need int16; the others are int8."""
    tail_step: float = Field(ge=0)
    """Quantisation step of every coefficient, in logits. 0 when there is no tail."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tail_wide > self.tail_rank:
            raise ValueError("tail_wide must not exceed tail_rank")
        if (self.tail_rank > 0) != (self.tail_step > 0):
            raise ValueError("tail_step is positive exactly when tail_rank is")
        return self


class TilingSection(Frozen):
    """The unit of work, of writing, of commit and of resume."""

    views: int = Field(gt=0)
    """Views in a tile."""
    rows: int = Field(gt=0)
    """Rows in a tile; also the rows of one chunk."""


class CalibrationSection(Frozen):
    """The pass that fitted the tail basis."""

    pairs: int = Field(ge=0)
    """(view, row) pairs whose logits were used; 0 when nothing had to be fitted."""
    logit_std: float = Field(ge=0)
    """Standard deviation of those logits around their per-class mean, in logits."""
    tail_error: float = Field(ge=0)
    """Root-mean-square error of decoded against live logits on those pairs, in logits."""


class ProbeSection(Frozen):
    """Rendered pixels of a few (view, row) pairs, to notice another decoder or resizer."""

    pairs: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
    """The (view, row) of each stored picture."""
    libraries: dict[str, str]
    """Versions of the libraries that rendered them."""
    tolerance: float = Field(gt=0)
    """Largest mean absolute pixel difference (levels of 255) that still counts as the same picture."""


class TailBasis:
    """The arrays that turn tail coefficients into logits: ``logits ≈ mean + (step * coef) @ basis``.

    ``mean`` is float32 [C], ``basis`` float32 [r, C] with orthonormal rows.
    """

    def __init__(self, mean: NDArray[np.float32], basis: NDArray[np.float32]) -> None:
        self.mean = np.ascontiguousarray(mean, dtype=np.float32)
        self.basis = np.ascontiguousarray(basis, dtype=np.float32)


class Manifest(Frozen):
    """All a reader needs. ``cache_id`` is null until every tile is committed."""

    format_version: Literal[1] = FORMAT_VERSION
    product_version: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name of the cache: the last part of its URL on a server."""
    data: DataSection
    teacher: TeacherSection
    views: ViewsSection
    codec: CodecSection
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

    _basis: TailBasis | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self

    @property
    def basis(self) -> TailBasis:
        """The tail basis that the reader attached; raises :class:`FormatError` where nobody did."""
        if self._basis is None:
            raise FormatError(
                "this manifest carries no tail basis: take it from open_cache(path).manifest or "
                "TeacherCache.open(url).manifest instead of parsing the JSON yourself"
            )
        return self._basis

    def with_basis(self, basis: TailBasis) -> Manifest:
        """The same manifest with the arrays of the tail sketch attached (not part of the JSON)."""
        copy = self.model_copy()
        copy._basis = basis
        return copy

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
    if codec.top_k > classes or codec.tail_rank > classes:
        yield f"codec.top_k and codec.tail_rank must not exceed data.classes = {classes}"
    if codec.top_k == classes and codec.tail_rank:
        yield "codec.top_k = data.classes leaves no tail, so codec.tail_rank must be 0"
    if 2**codec.index_bits < classes:
        yield f"codec.index_bits = {codec.index_bits} cannot hold a class id below {classes}"
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
    "product_version": True,
    "environment": True,
    "codec": {"tail_wide": True, "tail_step": True},
    "calibration": True,
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
