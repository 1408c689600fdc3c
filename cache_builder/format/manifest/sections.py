"""The sections of a manifest that say what was recorded: data, teacher, input, outputs, positions, views."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt

from cache_builder.format.codecs import ManifestCodec
from cache_builder.format.frozen import Decoding, Frozen
from cache_builder.format.manifest.calibration_section import CodecRequest


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
    matched: Literal["name", "position", "file"] | None = None
    """What the classes of the data were matched with the teacher's by; null where there are no labels."""
    own_classes: NonNegativeInt = 0
    """Names in ``samples/own_class_name_*``: of data whose classes are not the teacher's, else 0."""


class TeacherSection(Frozen):
    """The model whose outputs are stored."""

    spec: str
    """Model name as given, resolved (``vit_l`` becomes ``torchvision:vit_l_16``)."""
    weights: str
    """Where the weights came from."""
    weights_digest: str
    """xxh64 (hex) over the names, shapes and bytes of the state dict: names the teacher for ever."""
    precision: Literal["fp32", "bf16", "fp16"]
    """Arithmetic of the forward pass. Logits are float32 from the last layer on."""


class ImageInput(Frozen):
    """The teacher saw pictures."""

    kind: Literal["image"] = "image"
    size: int = Field(gt=0)
    """S, side in pixels of the square the teacher saw."""
    mean: tuple[float, float, float]
    """Per-channel mean (RGB, of pixels in 0..1) subtracted before the teacher."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Per-channel standard deviation (RGB, of pixels in 0..1)."""
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    """Resampling of every view; always antialiased."""
    decoding: Decoding = 1
    """The rule by which the data set's files become pixels, for whoever replays the views."""


Input = ImageInput
"""What the teacher was given, by ``kind``. A second kind makes this a union discriminated by it."""


class LogitsOutput(Frozen):
    """One raw logit for each class."""

    kind: Literal["logits"] = "logits"
    width: int = Field(gt=1)
    """C, the number of logits."""
    named: bool
    """Whether ``samples/class_name_*`` names the C classes, in logit order."""
    codec: ManifestCodec
    """How a logit vector becomes a record."""


Output = LogitsOutput
"""What the teacher answers with, by ``kind``. A second kind makes this a union discriminated by it."""


class OnePosition(Frozen):
    """The teacher answers once about each sample: position and row are the same number."""

    kind: Literal["one"] = "one"


class GridPositions(Frozen):
    """The teacher answers about each cell of a map, the same map for every sample."""

    kind: Literal["grid"] = "grid"
    shape: tuple[PositiveInt, PositiveInt]
    """Cells downwards and to the right."""


class RaggedPositions(Frozen):
    """Every sample has as many positions as it needs: ``samples/position_start`` and ``position_count``."""

    kind: Literal["ragged"] = "ragged"
    block: PositiveInt
    """Positions of a row block, the unused ones at its end included: a sample never crosses a tile."""


Positions = Annotated[OnePosition | GridPositions | RaggedPositions, Field(discriminator="kind")]
"""The places of a sample that the teacher answers about."""


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
    """Rows in a tile."""


class PixelsProbe(Frozen):
    """Rendered pixels of a few (view, row) pairs, to notice another decoder or resizer."""

    kind: Literal["pixels"] = "pixels"
    pairs: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
    """The (view, row) of each stored picture."""
    libraries: dict[str, str]
    """Versions of the libraries that rendered them."""
    tolerance: float = Field(gt=0)
    """Largest mean absolute pixel difference (levels of 255) that still counts as the same picture."""


class NoProbe(Frozen):
    """Nothing to compare with: nobody can draw the views again, or nobody has yet."""

    kind: Literal["none"] = "none"
    pairs: ClassVar[tuple[tuple[int, int], ...]] = ()
    libraries: ClassVar[dict[str, str]] = {}
    tolerance: ClassVar[float] = 0.0


Probe = Annotated[PixelsProbe | NoProbe, Field(discriminator="kind")]
"""What tells whether another machine gives a student what the teacher got."""


class RequestSection(Frozen):
    """What the user typed, so that a cache can be opened again, continued and extended."""

    teacher: tuple[str, ...] = ()
    """Names of the teacher or of an ensemble's members; empty where nobody knows the teacher."""
    weights: tuple[str, ...] = ()
    """``default``, ``random`` or a file for each of them; empty where nobody said."""
    data: str | None = None
    """The data set."""
    recipe: str | None = None
    """The recipe with its parameters; null = what suits the data."""
    precision: str | None = None
    """Arithmetic of the teacher; null = by device."""
    input_size: int | None = None
    """Side of the pictures in pixels; null = the weights' own."""
    mean: tuple[float, ...] | None = None
    """Normalisation mean; null = the weights' own."""
    std: tuple[float, ...] | None = None
    """Normalisation standard deviation; null = the weights' own."""
    class_map: str | None = None
    """File that says which of the teacher's classes each class of the data is."""
    ignore_labels: bool = False
    """Whether labels were dropped, because the data's classes are not the teacher's."""
    codec: CodecRequest = CodecRequest()
    """What calibration was asked for."""
