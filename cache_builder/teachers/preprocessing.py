"""How a teacher wants its images: size, normalisation, resampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cache_builder.format.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ASK = "if it was trained otherwise, say so with --mean, --std and --input-size"


@dataclass(frozen=True)
class Preprocessing:
    """What stands between pixels and a teacher."""

    input_size: int
    """Side in pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of pixels in 0..1, RGB."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Of pixels in 0..1, RGB."""
    interpolation: str = "bilinear"
    """nearest, bilinear or bicubic."""
    crop_fraction: float = 0.875
    """Crop side over resized side in the teacher's evaluation preprocessing."""
    origin: str = field(default="ImageNet's mean and std, assumed", compare=False)
    """Who says so, for people."""

    def overridden(
        self,
        input_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> Preprocessing:
        """The same with what the user set by hand. Raises :class:`ConfigError` for impossible values."""
        flags = {"--input-size": input_size, "--mean": mean, "--std": std}
        given = ", ".join(flag for flag, value in flags.items() if value is not None)
        whole = all(value is not None for value in flags.values())
        return replace(
            self,
            input_size=input_size or self.input_size,
            mean=_three("--mean", mean, low=0.0) or self.mean,
            std=_three("--std", std, low=1e-6) or self.std,
            origin=f"by {given}" + ("" if whole else f"; the rest {self.origin}") if given else self.origin,
        )

    def assumed_for_file(self) -> Preprocessing:
        """The same for weights from a file that may say nothing of its own training."""
        return replace(self, origin=f"{self.origin}, assumed for this weights file; {_ASK}")

    def assumed_of_silent_model(self) -> Preprocessing:
        """The same for a model that says nothing of its training."""
        is_imagenet = (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD)
        whose = "ImageNet's mean and std" if is_imagenet else "what suits the pictures of the data"
        return replace(self, origin=f"{whose}, assumed, for the model says nothing; {_ASK}")

    def in_words(self) -> str:
        """Size, resampling, normalisation and who says so."""
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.input_size} px, {self.interpolation}, mean {mean}, std {std}: {self.origin}"


INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def described(usual: Preprocessing, metadata: Mapping[str, Any]) -> Preprocessing:
    """``usual`` with what a weights file says of its model; :class:`ValueError` for what makes no sense."""
    known = {key: metadata[key] for key in vars(usual) if key in metadata}
    known |= {key: tuple(float(value) for value in known[key]) for key in ("mean", "std") if key in known}
    wanted = replace(usual, **known)
    if not (isinstance(wanted.input_size, int) and wanted.input_size > 0):
        raise ValueError(f"input_size {wanted.input_size!r}")
    if len(wanted.mean) != 3 or len(wanted.std) != 3 or min(wanted.std) <= 0:
        raise ValueError(f"mean {wanted.mean}, std {wanted.std}")
    if wanted.interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation {wanted.interpolation!r} is not one of {', '.join(INTERPOLATIONS)}")
    if not 0 < wanted.crop_fraction <= 1:
        raise ValueError(f"crop_fraction {wanted.crop_fraction!r}")
    return wanted


def _three(flag: str, values: tuple[float, ...] | None, low: float) -> tuple[float, float, float] | None:
    if values is None:
        return None
    if len(values) != 3 or not all(low <= value <= 1 for value in values):
        shown = ",".join(f"{value:g}" for value in values)
        raise ConfigError(
            f"{flag} {shown}: expected three numbers from {low:g} to 1 (pixels are scaled to 0..1)"
        )
    return (values[0], values[1], values[2])
