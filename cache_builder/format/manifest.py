"""The manifest: everything a reader must know about a cache, as frozen pydantic models.

On disk it is the JSON object under ``attributes["kdcache"]`` of the store's root group. FORMAT.md states
every field; unknown keys are refused so that a newer writer cannot be misread in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import (
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cache_builder.format.errors import FormatError
from cache_builder.format.frozen import Decoding, Frozen

FORMAT_VERSION: Literal[2] = 2
"""What this release writes; it reads version 1 as well."""


class NamedConfiguration(Frozen):
    """A thing chosen by name, with its parameters: ``{"name": ..., "configuration": {...}}``."""

    name: str
    configuration: dict[str, JsonValue] = Field(default_factory=dict)


def _without_absent(body: dict[str, Any], optional: str) -> dict[str, Any]:
    """The JSON object without a key that only some manifests have."""
    return {key: value for key, value in body.items() if key != optional or value is not None}


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


class MaskSection(Frozen):
    """What masked logits (-1e4, -1e9, -infinity beside ordinary ones) were raised to before encoding."""

    classes: int = Field(ge=0)
    """Classes that are masked in every record: they decode to their constant in ``codec/mean``."""
    lowest: float
    """What these decode to at least."""
    floor: float
    """What a logit was raised to that only some records mask."""


class CodecSection(Frozen):
    """A logit vector as K values between the largest and the K-th, and a tail sketch around the mean.

    Version 1; in version 2 for caches that store every class.
    """

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
    masks: MaskSection | None = None
    """Of a teacher that masks classes. The JSON has this key only then."""

    @model_serializer(mode="wrap")
    def _without_absent_masks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(serialize(self), "masks")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tail_wide > self.tail_rank:
            raise ValueError("tail_wide must not exceed tail_rank")
        if (self.tail_rank > 0) != (self.tail_step > 0):
            raise ValueError("tail_step is positive exactly when tail_rank is")
        return self


class SketchSection(Frozen):
    """A logit vector as a sketch around what is usual for its best class, and K values beside the sketch."""

    name: Literal["class-sketch"] = "class-sketch"
    top_k: int = Field(gt=0)
    """K, classes stored one by one, largest logit first."""
    index_bits: Literal[8, 16, 32]
    """Width of a stored class id."""
    index_coding: Literal["class", "rank"] = "class"
    """Whether ids after the first are class ids, or places in what is usual for the best class."""
    value_bits: Literal[8, 16]
    """Width of a stored value."""
    value_step: PositiveFloat
    """Quantisation step of the K values, in logits."""
    tail_rank: int = Field(gt=0)
    """r, coefficients of the sketch."""
    tail_wide: int = Field(ge=0)
    """The first of the r coefficients, which are int16."""
    tail_bytes: int = Field(ge=0)
    """The next ones, which are int8; the others are half bytes."""
    tail_step: PositiveFloat
    """Quantisation step of every coefficient, in logits."""
    masks: MaskSection | None = None
    """Of a teacher that masks classes. The JSON has this key only then."""

    @model_serializer(mode="wrap")
    def _without_absent_masks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(serialize(self), "masks")

    @property
    def tail_packed(self) -> int:
        """The last of the r coefficients, two in a byte."""
        return self.tail_rank - self.tail_wide - self.tail_bytes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tail_packed < 0:
            raise ValueError("tail_wide + tail_bytes must not exceed tail_rank")
        return self


Codec = CodecSection | SketchSection
"""How a logit vector becomes a record."""


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


class TailBasis:
    """The arrays that turn tail coefficients into logits: ``logits ≈ mean + (step * coef) @ basis``.

    ``mean`` is float32 [C], ``basis`` float32 [r, C] with orthonormal rows; ``centres`` int16 [C, r], the
    usual coefficients of samples whose best class is c; None for a codec without them.
    """

    def __init__(
        self,
        mean: NDArray[np.float32],
        basis: NDArray[np.float32],
        centres: NDArray[np.int16] | None = None,
    ) -> None:
        self.mean = np.ascontiguousarray(mean, dtype=np.float32)
        self.basis = np.ascontiguousarray(basis, dtype=np.float32)
        self._centres = None if centres is None else np.ascontiguousarray(centres, dtype=np.int16)
        self._ranking: tuple[float, NDArray[np.uint16]] | None = None
        self._places: tuple[float, NDArray[np.uint16]] | None = None

    @property
    def centres(self) -> NDArray[np.int16]:
        """int16 [C, r]; :class:`FormatError` where nobody gave them: zeros would decode to wrong logits."""
        if self._centres is None:
            raise FormatError("codec class-sketch needs codec/centres, and this tail basis was made without")
        return self._centres

    @classmethod
    def read(cls, codec: Codec, array: Callable[[str], NDArray[Any]]) -> TailBasis:
        """From what a cache of this codec keeps under ``codec/``; ``array`` reads one array of that path."""
        centres = array("codec/centres") if isinstance(codec, SketchSection) else None
        return cls(array("codec/mean"), array("codec/basis"), centres)

    def ranking(self, tail_step: float) -> NDArray[np.uint16]:
        """For each best class [C] all classes [C] in their usual order, the class itself first.

        By falling ``mean / step + centres @ basis`` in fixed-point numbers of 15 binary places, equal ones by
        class id: sums of integers, so that every machine finds the same order.
        """
        if self._ranking is None or self._ranking[0] != tail_step:
            self._ranking = tail_step, _ranking(self.mean, self.basis, self.centres, tail_step)
        return self._ranking[1]

    def places(self, tail_step: float) -> NDArray[np.uint16]:
        """The inverse of :meth:`ranking`: for each best class, where every class stands."""
        if self._places is None or self._places[0] != tail_step:
            usual = self.ranking(tail_step)
            places = np.empty_like(usual)
            np.put_along_axis(places, usual, np.arange(len(usual), dtype=usual.dtype)[None], axis=1)
            self._places = tail_step, places
        return self._places[1]


_FIXED_POINT = 2.0**15


def _ranking(
    mean: NDArray[np.float32], basis: NDArray[np.float32], centres: NDArray[np.int16], tail_step: float
) -> NDArray[np.uint16]:
    # Integers in float64, which is exact up to 2^53 in whatever order they are added.
    scores = centres.astype(np.float64) @ np.rint(basis.astype(np.float64) * _FIXED_POINT)
    scores += np.rint(mean.astype(np.float64) * (_FIXED_POINT / tail_step))
    np.fill_diagonal(scores, np.inf)
    return np.argsort(-scores, axis=1, kind="stable").astype(np.uint16)


class Manifest(Frozen):
    """All a reader needs. ``cache_id`` is null until every tile is committed."""

    format_version: Literal[1, 2] = FORMAT_VERSION
    product_version: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name of the cache: the last part of its URL on a server."""
    data: DataSection
    teacher: TeacherSection
    views: ViewsSection
    codec: Annotated[Codec, Field(discriminator="name")]
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
    if isinstance(codec, SketchSection) and manifest.format_version == 1:
        yield "format version 1 has no codec class-sketch"
    if codec.top_k > classes or codec.tail_rank > classes:
        yield f"codec.top_k and codec.tail_rank must not exceed data.classes = {classes}"
    if codec.top_k == classes and codec.tail_rank:
        yield "codec.top_k = data.classes leaves no tail, so codec.tail_rank must be 0"
    if isinstance(codec, SketchSection) and codec.index_coding == "rank" and classes > 2**16:
        yield f"codec.index_coding = rank is for up to {2**16} classes"
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
