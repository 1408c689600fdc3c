"""The recipes by name: crop and flip alone, or with what makes a strong view of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer, model_validator

from cache_builder.views.crops import Box, PadCropFlip, Plain, Recipe, RrcFlip
from cache_builder.views.mixing import Mixing
from cache_builder.views.operations import RandAugment, TrivialAugment
from cache_builder.views.photometric import ColorJitter, Erasing

__all__ = [
    "BASES",
    "RECIPES",
    "Augment",
    "Box",
    "CutMix",
    "Erased",
    "Jittered",
    "Mixup",
    "PadCropFlip",
    "Plain",
    "RandAugmented",
    "Recipe",
    "RrcFlip",
    "TrivialAugmented",
]

BASES: dict[str, type[Recipe]] = {"rrc-flip": RrcFlip, "pad-crop-flip": PadCropFlip}
"""What an ``Augment`` can begin with."""


def _base_from(value: Any) -> Any:
    """``"rrc-flip"``, ``{"name": ..., "configuration": {...}}``, or the parameters beside the name."""
    if isinstance(value, tuple(BASES.values())):
        return value
    given: Any = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or given.get("name") not in BASES:
        found = given.get("name") if isinstance(given, Mapping) else value
        raise ValueError(f"expected {' or '.join(BASES)}, found {found!r}")
    parameters = {key: item for key, item in given.items() if key not in ("name", "configuration")}
    return BASES[given["name"]].model_validate({**given.get("configuration", {}), **parameters})


def _base_as_json(base: Recipe) -> dict[str, Any]:
    name = next(name for name, kind in BASES.items() if type(base) is kind)
    return {"name": name, "configuration": base.model_dump(mode="json")}


Base = Annotated[Recipe, BeforeValidator(_base_from), PlainSerializer(_base_as_json)]


class Augment(Recipe):
    """A base of crop and flip; strong views have the rest on top, in the order of the fields.

    View 0 is always an ordinary view: the base alone.
    """

    sections: ClassVar[tuple[str, ...]] = ("randaugment", "trivialaugment", "jitter", "erase", "mix")
    main: ClassVar[str | None] = None
    """The section a named recipe is about: its parameters may be written without the section's name."""

    base: Base = RrcFlip()
    """Crop and flip: rrc-flip or pad-crop-flip."""
    strong_views: Literal["all", "odd"] = "all"
    """Which views are strong: all but view 0, or the odd ones, for losses of a weak and a strong view."""
    randaugment: RandAugment | None = None
    """None = none, here and below."""
    trivialaugment: TrivialAugment | None = None
    jitter: ColorJitter | None = None
    erase: Erasing | None = None
    mix: Mixing | None = None

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, data: Any) -> Any:
        """A section given in part keeps the other values that this recipe gives it."""
        if not isinstance(data, Mapping):
            return data
        completed = dict(data)
        for section in cls.sections:
            default, given = cls.model_fields[section].default, completed.get(section)
            if default is not None and isinstance(given, Mapping):
                completed[section] = {**default.model_dump(), **given}
        return completed

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.randaugment and self.trivialaugment:
            raise ValueError("randaugment and trivialaugment exclude each other: leave one out")
        return self

    def numbers(self) -> int:
        """The base's."""
        return self.base.numbers()

    def box(self, numbers: NDArray[np.float64], height: int, width: int) -> Box:
        """The base's."""
        return self.base.box(numbers, height, width)

    def flip_probability(self) -> float:
        """The base's."""
        return self.base.flip_probability()

    def is_strong(self, view: int) -> bool:
        """As ``strong_views`` says."""
        has_more = any(getattr(self, section) is not None for section in self.sections)
        return has_more and (view % 2 == 1 if self.strong_views == "odd" else view > 0)

    def mixes(self, view: int) -> bool:
        """Strong views of a recipe with ``mix``."""
        return self.mix is not None and self.is_strong(view)

    def min_views(self) -> int:
        """Two where anything is strong: view 0 is ordinary."""
        return 2 if self.is_strong(1) else 1


class RandAugmented(Augment):
    """``randaugment``: base and RandAugment (Cubuk et al. 2020)."""

    main = "randaugment"
    randaugment: RandAugment | None = RandAugment()


class TrivialAugmented(Augment):
    """``trivialaugment``: base and TrivialAugment Wide (Müller & Hutter 2021)."""

    main = "trivialaugment"
    trivialaugment: TrivialAugment | None = TrivialAugment()


class Jittered(Augment):
    """``color-jitter``: base and colour jitter."""

    main = "jitter"
    jitter: ColorJitter | None = ColorJitter()


class Erased(Augment):
    """``rrc-erase``: random resized crop, flip and random erasing (Zhong et al. 2020)."""

    main = "erase"
    erase: Erasing | None = Erasing()


class Mixup(Augment):
    """``mixup``: base and mixup (Zhang et al. 2018); alpha 0.2 as for ImageNet there."""

    main = "mix"
    mix: Mixing | None = Mixing(mixup_alpha=0.2)


class CutMix(Augment):
    """``cutmix``: base and CutMix (Yun et al. 2019); alpha 1 as there."""

    main = "mix"
    mix: Mixing | None = Mixing(cutmix_alpha=1.0)


RECIPES: dict[str, type[Recipe]] = {
    "plain": Plain,
    "rrc-flip": RrcFlip,
    "pad-crop-flip": PadCropFlip,
    "randaugment": RandAugmented,
    "trivialaugment": TrivialAugmented,
    "color-jitter": Jittered,
    "rrc-erase": Erased,
    "mixup": Mixup,
    "cutmix": CutMix,
    "augment": Augment,
}
