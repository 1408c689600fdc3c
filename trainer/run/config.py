"""What a training run resolved to."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from cache_builder.console.options import Triple
from cache_builder.format.frozen import Decoding, Frozen
from cache_builder.format.manifest import NamedConfiguration
from trainer.objective.published import Benchmark
from trainer.objective.terms import Terms
from trainer.run.classes import ClassPlan
from trainer.run.settings import TrainSettings

Precision = Literal["fp32", "bf16", "fp16"]


class DecidedSettings(TrainSettings):
    """What was asked for, with every None and auto decided that the result depends on."""

    image_size: int = Field(ge=1)
    """Side in pixels the student sees."""
    batch_size: int = Field(ge=1)
    """Images of one optimiser step."""
    lr: float = Field(gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(ge=0)
    """Decay per unit of learning rate."""
    warmup_epochs: float = Field(ge=0)
    """Epochs of linear warm-up of the learning rate."""
    eval_crop: float = Field(gt=0, le=1)
    """Centre crop of held-out images, as a part of the shorter side."""
    mean: Triple
    """Normalisation mean of pixels in 0..1."""
    std: Triple
    """Normalisation standard deviation of pixels in 0..1."""


class CacheFacts(Frozen):
    """A cache a run was begun with."""

    cache_id: str
    name: str
    teacher: str
    """Model and weights."""


class RunConfig(Frozen):
    """The resolved configuration, saved beside every checkpoint: nothing in it is undecided."""

    product_version: str
    settings: DecidedSettings
    """As asked for, with every None and auto decided that the result depends on."""
    objective: Terms
    """What is minimised."""
    objective_source: str | None
    """Where a method's own objective was published; null for one that was written out."""
    objective_benchmark: Benchmark
    """Whose settings a method's name alone stands for here."""
    classes: int
    """Outputs of the student's main head."""
    class_names: tuple[str, ...] | None
    class_choice: Literal["teacher", "data", "both"] = "teacher"
    """Whose they are: the teacher's, the data's alone, or the data's beside a head for the teacher's."""
    columns: tuple[tuple[int, ...], ...] = ()
    """Of each cache: the teacher's class ids that the student has, where it has the data's alone."""
    teacher_classes: int | None = None
    """Outputs of the head that learns the teacher's logits, where that is one of its own."""
    label_names: dict[str, int] = Field(default_factory=dict)
    """Names that labels may come under, those of the data's classes, with the class ids that they mean."""
    samples: int
    """Training samples."""
    set_aside: int = 0
    """Further samples that never train the student: a loss learns from them (tgeo)."""
    labelled: int
    """How many of all these have a label that is used."""
    view_count: int
    """V, recorded views."""
    views_per_sample: int = 1
    """n, views of each sample in a batch; epoch e uses views n e to n e + n - 1, each mod V."""
    view_seed: int
    """Key of the views."""
    view_recipe: NamedConfiguration
    """The augmentation policy of the views."""
    interpolation: str
    """Resampling of training and evaluation images."""
    decoding: Decoding = 1
    """The rule by which picture files become pixels; 1 in runs of releases that had no other."""
    caches: tuple[CacheFacts, ...]
    """One per teacher; the first one's size and normalisation are the student's by default."""

    @property
    def class_plan(self) -> ClassPlan:
        """What the student's classes are."""
        return ClassPlan(
            self.class_choice,
            self.classes,
            self.class_names,
            self.columns,
            self.teacher_classes,
            self.label_names,
        )

    @property
    def data_in_words(self) -> str:
        """How many samples, in which views, with which labels."""
        views = f"{self.view_count} view(s) by {self.view_recipe.name}"
        if self.views_per_sample > 1:
            views += f", {self.views_per_sample} of each sample in a batch"
        text = f"{self.samples:,} samples at {self.settings.image_size} px, {views}"
        if self.labelled < self.samples + self.set_aside:
            text += f"; {self.labelled:,} have a label"
        if self.set_aside:
            from trainer.losses import find_loss

            names = {term.name: None for term in self.objective if find_loss(term.name).needs_held_out}
            text += f"; {self.set_aside:,} more are set aside for {', '.join(names)}"
        return text


# What may change between the command that began a run and the one that resumes it: where things lie and how
# fast they go. Caches are compared by their ids instead, ``accumulation`` with the checkpoint's number of
# processes (``trainer.run.division``).
_NOT_COMPARED: dict[str, Any] = {
    "product_version": True,
    "settings": {
        "out": True,
        "cache": True,
        "accumulation": True,
        "device": True,
        "workers": True,
        "fetch": True,
        "patience_s": True,
        "checkpoint_minutes": True,
        "keep_checkpoints": True,
        "allow_render_drift": True,
        "tensorboard": True,
    },
}


def differing_fields(stored: RunConfig, wanted: RunConfig) -> list[str]:
    """The fields in which two runs differ, one ``field: stored -> wanted`` line each."""
    old = _flatten(stored.model_dump(mode="json", exclude=_NOT_COMPARED))
    new = _flatten(wanted.model_dump(mode="json", exclude=_NOT_COMPARED))
    return [
        f"{path}: {old.get(path)!r} -> {new.get(path)!r}"
        for path in sorted(old | new)
        if old.get(path) != new.get(path)
    ]


def _flatten(value: dict[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for key, item in value.items():
        if isinstance(item, list) and any(isinstance(part, dict) for part in item):
            item = {str(index): part for index, part in enumerate(item)}
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
