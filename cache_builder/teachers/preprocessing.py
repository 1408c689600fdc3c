"""How a teacher wants its images: size, normalisation, resampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cache_builder.format.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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

    def overridden(
        self,
        input_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> Preprocessing:
        """The same with what the user set by hand. Raises :class:`ConfigError` for impossible values."""
        return replace(
            self,
            input_size=input_size or self.input_size,
            mean=_three("--mean", mean, low=0.0) or self.mean,
            std=_three("--std", std, low=1e-6) or self.std,
        )


def _three(flag: str, values: tuple[float, ...] | None, low: float) -> tuple[float, float, float] | None:
    if values is None:
        return None
    if len(values) != 3 or not all(low <= value <= 1 for value in values):
        shown = ",".join(f"{value:g}" for value in values)
        raise ConfigError(
            f"{flag} {shown}: expected three numbers from {low:g} to 1 (pixels are scaled to 0..1)"
        )
    return (values[0], values[1], values[2])
