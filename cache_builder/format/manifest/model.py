"""The manifest: everything a reader must know about a cache, as one frozen pydantic model.

On disk it is the JSON object under ``attributes["kdcache"]`` of the store's root group. FORMAT.md states
every field; unknown keys are refused so that a newer writer cannot be misread in silence. This is format
version 3; the JSON of versions 1 and 2 is read into the same model by :mod:`older`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from cache_builder.format.codecs import CodecSettings
from cache_builder.format.errors import FormatError
from cache_builder.format.frozen import Frozen
from cache_builder.format.manifest.calibration_section import CalibrationSection
from cache_builder.format.manifest.older import as_version_3
from cache_builder.format.manifest.sections import (
    DataSection,
    Input,
    LogitsOutput,
    Output,
    Positions,
    Probe,
    RequestSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
)

FORMAT_VERSION: Literal[3] = 3
"""What this release creates; it reads versions 1 and 2 as well, and continues them as they are."""

LOGITS = "logits"
"""The output that every cache of this release has."""

OutputName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Manifest(Frozen):
    """All a reader needs. ``cache_id`` is null until every tile is committed."""

    format_version: Literal[1, 2, 3] = FORMAT_VERSION
    """The version of the store, which decides the paths of its arrays."""
    product_version: str
    """The release that created the store."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name of the cache: the last part of its URL on a server."""
    data: DataSection
    teacher: TeacherSection
    input: Input
    outputs: dict[OutputName, Output]
    """What the teacher answers with, by name."""
    positions: Positions
    views: ViewsSection
    tiling: TilingSection
    calibration: CalibrationSection
    probe: Probe
    requested: RequestSection
    environment: dict[str, str]
    """Library versions and device that computed the logits. Descriptive."""
    digests: dict[str, str]
    """xxh64 (hex) of the raw little-endian bytes of each array that is written once."""
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
    def logits(self) -> LogitsOutput:
        """The output ``logits``."""
        return self.outputs[LOGITS]

    @property
    def codec(self) -> CodecSettings:
        """How a logit vector becomes a record."""
        return self.logits.codec

    @property
    def classes(self) -> int:
        """C, the number of logits."""
        return self.logits.width

    def with_codec(self, codec: CodecSettings) -> Manifest:
        """The same manifest with another codec of the logits."""
        logits = self.logits.model_copy(update={"codec": codec})
        return self.model_copy(update={"outputs": self.outputs | {LOGITS: logits}})

    @property
    def completed_id(self) -> str:
        """``cache_id`` of a finished cache; raises :class:`FormatError` before that."""
        if self.cache_id is None:
            raise FormatError(f"cache {self.name!r} is not finished, so it has no cache_id yet")
        return self.cache_id


def parse_manifest(body: dict[str, Any], where: str) -> Manifest:
    """A manifest of any version from its JSON; ``where`` names its origin in errors.

    Raises :class:`FormatError` for another version, an unknown or missing key, and what contradicts itself.
    """
    version = body.get("format_version") if isinstance(body, dict) else None
    if type(version) is not int or version not in range(1, FORMAT_VERSION + 1):
        raise FormatError(
            f"{where}: format version {version!r}, this release reads versions 1 to {FORMAT_VERSION}; "
            "upgrade kdcache"
        )
    try:
        return Manifest.model_validate(body if version == FORMAT_VERSION else as_version_3(body))
    except KeyError as error:
        raise FormatError(f"{where}: the manifest is not valid: it has no key {error}") from error
    except (ValidationError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{where}: the manifest is not valid: {error}") from error


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What no single field can see: the sections must agree."""
    if LOGITS not in manifest.outputs:
        yield f"outputs has no {LOGITS!r}"
        return
    for name, output in manifest.outputs.items():
        if manifest.format_version < output.codec.since:
            yield f"format version {manifest.format_version} has no codec {output.codec.name}"
        yield from (f"outputs.{name}: {problem}" for problem in output.codec.problems(output.width))
    samples, views = manifest.data.samples, manifest.views.count
    if any(view >= views or row >= samples for view, row in manifest.probe.pairs):
        yield "probe.pairs names a (view, row) that the cache does not have"
    if list(manifest.invalid_rows) != sorted({row for row in manifest.invalid_rows if row >= 0}):
        yield "invalid_rows must be ascending row numbers"
    if manifest.invalid_rows and manifest.invalid_rows[-1] >= samples:
        yield f"invalid_rows names row {manifest.invalid_rows[-1]} of {samples}"
