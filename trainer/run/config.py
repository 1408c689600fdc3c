"""Everything a training run can be told, and what it resolved to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from cache_builder.console.names import check_device_name
from cache_builder.format.frozen import Frozen
from cache_builder.format.locations import local_output
from cache_builder.format.manifest import Decoding, NamedConfiguration
from trainer.objective.published import Benchmark
from trainer.objective.terms import Terms
from trainer.run.classes import ClassPlan

Device = str
Optimizer = Literal["sgd", "adamw"]
Precision = Literal["fp32", "bf16", "fp16"]
Triple = tuple[float, float, float]


KEPT_CHECKPOINTS = 3
"""One that rots on the disk must not be the only one."""


class TrainConfig(Frozen):
    """Settings of one run; each field is the flag of the same name. None = decided when the run starts."""

    data: str
    """Training data set spec, e.g. ``imagefolder:/data/train``."""
    out: Path
    """Folder of the run."""
    cache: tuple[str, ...] = ()
    """URLs or paths of the caches, one per teacher; none = no teacher, views are drawn here."""
    val_data: str | None = None
    """Held-out data set spec; None = no evaluation."""
    student: str = "resnet18"
    """Torchvision name, ``cnn3(width=8)``, or ``package.module:factory``."""
    loss: str = "kd"
    """A method's name (its published objective), an expression, JSON or TOML, or a file of either."""
    aux_head: str | None = None
    """Auxiliary head: ``linear`` or ``mlp``, as in ``linear(mix=0.5)``; None = the method's own, if any."""
    classes: Literal["teacher", "data", "both"] | None = None
    """Whose classes the student has (``trainer.run.classes``); None = by the data."""
    published: Literal["auto", "imagenet", "cifar100"] = "auto"
    """Whose published settings a method's name alone means; auto = cifar100 up to 64 pixels."""
    epochs: int = Field(default=30, ge=1)
    """Passes over the training data."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of one optimiser step, over all devices and micro-batches."""
    accumulation: int = Field(default=1, ge=1)
    """Micro-batches of one step on each device."""
    optimizer: Optimizer = "sgd"
    """sgd (Nesterov momentum) or adamw."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; None = 0.1 per 256 samples of a batch (sgd), 1e-3 (adamw)."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD momentum (Nesterov where it is not zero)."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Per unit of learning rate; None = 1e-4 (sgd), 0.05 (adamw)."""
    decay_all: bool = False
    """Also decay normalisation weights and biases."""
    warmup_epochs: float | None = Field(default=None, ge=0)
    """Linear warm-up of the learning rate; None = a twentieth of the epochs."""
    clip_grad: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; None = not clipped."""
    label_smoothing: float = Field(default=0.0, ge=0, le=1)
    """Of cross-entropy terms that do not set their own."""
    image_size: int | None = Field(default=None, ge=1)
    """Side in pixels the student sees; None = the teacher's, without a cache small images' own, else 224."""
    eval_crop: float | None = Field(default=None, gt=0, le=1)
    """Centre crop of held-out images, as a part of the shorter side; None = 1 up to 64 pixels, else 0.875."""
    recipe: str | None = None
    """Views without a cache, e.g. ``pad-crop-flip:flip=0``; with a cache they are the cache's."""
    views: int | None = Field(default=None, ge=1)
    """Recorded views without a cache; None = one per epoch."""
    mean: Triple | None = None
    """Normalisation mean of pixels in 0..1; None = the teacher's, without a cache ImageNet's."""
    std: Triple | None = None
    """Normalisation standard deviation; None likewise."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first N samples of the training data, as in ``kdcache build --limit``."""
    labelled: float | None = Field(default=None, gt=0, le=1)
    """Share of the training samples whose label is used, chosen by the seed; None = all that have one."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of initial weights, order of samples and the student's own randomness."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the student; auto = bf16 on a GPU that has it, else fp32."""
    workers: int | None = Field(default=None, ge=0)
    """Loader processes per device; never changes the result. None = by cores and size of the images."""
    fetch: Literal["auto", "batch", "view"] = "auto"
    """Records by batch, or a whole view once an epoch; auto = a view where it stays below 512 MiB."""
    patience_s: float = Field(default=120.0, ge=0)
    """Seconds a server may be away before the run stops."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Between checkpoints inside an epoch; one is written after every epoch."""
    keep_checkpoints: int = Field(default=KEPT_CHECKPOINTS, ge=1)
    """Checkpoints that are kept; a damaged one is passed over, so one alone is a risk."""
    allow_render_drift: bool = False
    """Train although this machine renders other pictures than the teacher saw."""
    tensorboard: bool = True
    """Write TensorBoard events."""

    @field_validator("out")
    @classmethod
    def _local(cls, value: Path) -> Path:
        """``--out`` is a folder: a URL would be taken for the name of one."""
        return local_output(value)

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        """Whether this machine has it is known only when torch is there."""
        return check_device_name(value)

    @field_validator("cache", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        """One cache may be given without brackets."""
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value


class CacheFacts(Frozen):
    """A cache a run was begun with."""

    cache_id: str
    name: str
    teacher: str
    """Model and weights."""


class RunConfig(Frozen):
    """The resolved configuration, saved beside every checkpoint: nothing in it is undecided."""

    product_version: str
    settings: TrainConfig
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
# fast they go. Caches are compared by their ids instead.
_NOT_COMPARED: dict[str, Any] = {
    "product_version": True,
    "settings": {
        "out": True,
        "cache": True,
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
