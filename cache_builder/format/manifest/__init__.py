"""The manifest of a cache: its sections, its digests, older versions of it, and comparing two."""

from cache_builder.format.manifest.calibration_section import CalibrationSection, CodecRequest, RatePoint
from cache_builder.format.manifest.codec_sections import Codec, CodecSection, MaskSection, SketchSection
from cache_builder.format.manifest.compare import differing_names, differing_settings, is_same_build
from cache_builder.format.manifest.digests import array_digest, build_digest, cache_digest, canonical_json
from cache_builder.format.manifest.model import FORMAT_VERSION, LOGITS, Manifest, parse_manifest
from cache_builder.format.manifest.sections import (
    DataSection,
    Decoding,
    GridPositions,
    ImageInput,
    LogitsOutput,
    NoProbe,
    OnePosition,
    PixelsProbe,
    RaggedPositions,
    RequestSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
)
from cache_builder.format.manifest.tail_basis import TailBasis
from cache_builder.format.manifest.value import Frozen, NamedConfiguration

__all__ = [
    "FORMAT_VERSION",
    "LOGITS",
    "CalibrationSection",
    "Codec",
    "CodecRequest",
    "CodecSection",
    "DataSection",
    "Decoding",
    "Frozen",
    "GridPositions",
    "ImageInput",
    "LogitsOutput",
    "Manifest",
    "MaskSection",
    "NamedConfiguration",
    "NoProbe",
    "OnePosition",
    "PixelsProbe",
    "RaggedPositions",
    "RatePoint",
    "RequestSection",
    "SketchSection",
    "TailBasis",
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
