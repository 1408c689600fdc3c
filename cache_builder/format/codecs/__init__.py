"""How the values of an output become records: one file a codec, one contract, one dict of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from numpy.typing import NDArray
from pydantic import BeforeValidator, GetJsonSchemaHandler, SerializeAsAny
from pydantic_core import CoreSchema

from cache_builder.format.codecs.all_logits import AllLogits
from cache_builder.format.codecs.class_sketch import ClassSketch
from cache_builder.format.codecs.contract import Codec, CodecSettings, Ranked, Stored
from cache_builder.format.codecs.fields import Fields
from cache_builder.format.codecs.joint_sketch import JointSketch
from cache_builder.format.codecs.record import Part, RecordLayout
from cache_builder.format.codecs.topk_tail import TopkTail
from cache_builder.format.errors import FormatError

__all__ = [
    "CODECS",
    "Codec",
    "CodecSettings",
    "Fields",
    "ManifestCodec",
    "Part",
    "Ranked",
    "RecordLayout",
    "Stored",
    "open_codec",
]

CODECS: dict[str, type[Codec[Any]]] = {
    "topk-tail": TopkTail,
    "class-sketch": ClassSketch,
    "joint-sketch": JointSketch,
    "all-logits": AllLogits,
}
"""Every codec by the name that a manifest has."""


def parse_settings(value: object) -> CodecSettings:
    """The settings that a manifest's JSON says; raises :class:`ValueError` for a codec that there is not."""
    if isinstance(value, CodecSettings):
        return value
    name = value.get("name") if isinstance(value, Mapping) else None
    if name not in CODECS:
        raise ValueError(f"codec {name!r} is not one of this release: {', '.join(CODECS)}")
    return CODECS[name].Settings.model_validate(value)


class _AnyCodec:
    """Says in a JSON schema that the settings are those of one of the codecs."""

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(codec.Settings.__pydantic_core_schema__) for codec in CODECS.values()]}


ManifestCodec = Annotated[SerializeAsAny[CodecSettings], BeforeValidator(parse_settings), _AnyCodec()]
"""The codec's section of a manifest."""


def open_codec(settings: CodecSettings, width: int, array: Callable[[str], NDArray[Any]]) -> Ranked[Any]:
    """Bind settings to what a cache keeps for them; ``array`` reads the array of a name.

    Raises :class:`FormatError` where the codec is not one of logits.
    """
    arrays = {header.name: array(header.name) for header in settings.headers(width)}
    codec = CODECS[settings.name](settings, width, arrays)
    if not isinstance(codec, Ranked):
        raise FormatError(f"codec {settings.name} is not one of logits, which this output is")
    return codec
