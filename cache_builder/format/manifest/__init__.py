"""The manifest of a cache: its sections, its digests, older versions of it, and comparing two."""

from cache_builder.format.manifest.calibration_section import CalibrationSection, CodecRequest, RatePoint
from cache_builder.format.manifest.compare import differing_names, differing_settings, is_same_build
from cache_builder.format.manifest.digests import array_digest, build_digest, cache_digest, canonical_json
from cache_builder.format.manifest.model import FORMAT_VERSION, LOGITS, Manifest, parse_manifest
from cache_builder.format.manifest.sections import (
    DataSection,
    GridPositions,
    ImageInput,
    LogitsOutput,
    NamedConfiguration,
    NoProbe,
    OnePosition,
    PixelsProbe,
    RaggedPositions,
    RequestSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
)

__all__ = [
    "FORMAT_VERSION",
    "LOGITS",
    "CalibrationSection",
    "CodecRequest",
    "DataSection",
    "GridPositions",
    "ImageInput",
    "LogitsOutput",
    "Manifest",
    "NamedConfiguration",
    "NoProbe",
    "OnePosition",
    "PixelsProbe",
    "RaggedPositions",
    "RatePoint",
    "RequestSection",
    "TeacherSection",
    "TilingSection",
    "ViewsSection",
    "array_digest",
    "build_digest",
    "cache_digest",
    "canonical_json",
    "differing_names",
    "differing_settings",
    "is_same_build",
    "parse_manifest",
]
