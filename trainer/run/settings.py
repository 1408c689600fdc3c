"""Everything a training run can be asked for. What it resolved to is a ``trainer.run.config.RunConfig``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cache_builder.console.names import DATA_KINDS, check_device_name
from cache_builder.console.options import Names, Option, Settings, ThreeNumbers
from cache_builder.console.recipes import check_recipe
from trainer.run.names import check_objective, check_student
from trainer.run.run_location import run_location

# Headings of --help.
DATA, STUDENT = Option(panel="Data and teacher"), Option(panel="Student and objective")
OPTIMISER, MACHINE = Option(panel="Optimiser"), Option(panel="Run and machine")

KEPT_CHECKPOINTS = 3
"""One that rots on the disk must not be the only one."""


class SharedSettings(Settings):
    """What ``kdtrain`` and ``kdtrain compare`` have in common; None = decided when the run starts."""

    data: Annotated[str, DATA] = Field(description=f"Training images: {DATA_KINDS}.")
    cache: Annotated[Names, DATA] = ()
    """URL (http://host:8000/v1/caches/NAME) or path of the teacher's cache. Several teachers: once for each,
    built from the same data with the same views. Default: no teacher, views are drawn here."""
    val_data: Annotated[str | None, DATA] = None
    """Held-out images, evaluated on centre crops. Default: no evaluation."""
    student: Annotated[str, STUDENT, Option(check=check_student)] = "resnet18"
    """Model that is trained: any torchvision classifier, cnn3, resnet20, with arguments as in cnn3(width=8),
    or package.module:factory."""
    published: Annotated[Literal["auto", "imagenet", "cifar100"], STUDENT] = "auto"
    """Whose settings a method's name stands for: imagenet, cifar100, auto (cifar100 up to 64 pixels)."""
    epochs: Annotated[int, OPTIMISER] = Field(default=30, ge=1)
    """Passes over the training images."""
    batch_size: Annotated[int | None, OPTIMISER] = Field(default=None, ge=1)
    """Images of one optimiser step, over all devices and micro-batches. Default: 128, or all where there are
    fewer."""
    optimizer: Annotated[Literal["sgd", "adamw"], OPTIMISER] = "sgd"
    """How weights are updated: sgd (Nesterov) or adamw."""
    lr: Annotated[float | None, OPTIMISER] = Field(default=None, gt=0)
    """Peak learning rate. Default: 0.1 per 256 images of a batch (sgd), 1e-3 (adamw)."""
    weight_decay: Annotated[float | None, OPTIMISER] = Field(default=None, ge=0)
    """Decay per unit of learning rate. Default: 1e-4 (sgd), 0.05 (adamw)."""
    image_size: Annotated[int | None, DATA] = Field(default=None, ge=1)
    """Side in pixels of what the student sees. Default: what the teacher saw; without a cache small images'
    own size, else 224."""
    limit: Annotated[int | None, DATA] = Field(default=None, ge=1)
    """Only the first N images are used, as in kdcache build --limit."""
    out: Annotated[str, MACHINE, Option(metavar="<path>"), BeforeValidator(run_location)]
    """Folder of the run, or its URL on an object store, where it is copied to after each checkpoint."""
    device: Annotated[str, MACHINE, Option(check=check_device_name)] = "auto"
    """Device that the student is trained on: auto, cpu, cuda or cuda:N."""
    workers: Annotated[int | None, MACHINE] = Field(default=None, ge=0)
    """Loader processes per device; their number never changes the result. Default: by cores and size of the
    images."""
    allow_render_drift: Annotated[bool, MACHINE] = False
    """Train although this machine renders other pictures than the teacher saw."""


class TrainSettings(SharedSettings):
    """Settings of one run; each field is the flag of the same name. None = decided when the run starts."""

    loss: Annotated[str, STUDENT, Option(check=check_objective)] = "kd"
    """What is minimised: a method's name (its published objective), a weighted sum, or a .json or .toml file;
    see kdtrain losses. package.module:Name is a loss of your own."""
    aux_head: Annotated[str | None, STUDENT] = None
    """A second classifier on the same features, for terms with head=aux: linear, mlp, mlp(hidden=200,
    dropout=0.1), linear(mix=0.5, temperature=1); mix is its share in the student's answer. Default: what the
    method has (dho, binary_kl)."""
    classes: Literal["teacher", "data", "both"] | None = None
    """Whose classes the student has. `teacher`: all of the teacher's; labels of the data are found among them
    by name. `data`: those of the data alone, which are some of the teacher's; of its logits only these are
    looked at. `both`: the data's classes are other ones; the student learns its labels with its own head and
    the teacher's logits with a second head, and is evaluated on the labels. Default: both where no label of
    the data is a class of the teacher and a loss learns labels, else teacher."""
    label_smoothing: Annotated[float, STUDENT] = Field(default=0.0, ge=0, le=1)
    """Label smoothing of cross-entropy terms that do not set their own."""
    accumulation: Annotated[int, OPTIMISER] = Field(default=1, ge=1)
    """Micro-batches of one step on each device."""
    momentum: Annotated[float, OPTIMISER] = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd, of Nesterov's kind where it is not zero."""
    decay_all: Annotated[bool, OPTIMISER] = False
    """Also decay the weights and biases of normalisation layers, and all other biases."""
    warmup_epochs: Annotated[float | None, OPTIMISER] = Field(default=None, ge=0)
    """Epochs of linear warm-up of the learning rate. Default: a twentieth of the epochs."""
    clip_grad: Annotated[float | None, OPTIMISER] = Field(default=None, gt=0)
    """Largest norm of the gradient. Default: it is not clipped."""
    seed: Annotated[int, OPTIMISER] = Field(default=0, ge=0, lt=2**32)
    """Seed of initial weights, order of samples and the student's own randomness."""
    eval_crop: Annotated[float | None, DATA] = Field(default=None, gt=0, le=1)
    """Centre crop of held-out images, as a part of the shorter side. Default: 1 up to 64 pixels, else
    0.875."""
    recipe: Annotated[str | None, DATA, Option(check=check_recipe)] = None
    """How views are drawn without a cache: pad-crop-flip, rrc-flip or plain, as in rrc-flip:flip=0, or with
    strong views randaugment, trivialaugment, color-jitter or rrc-erase; see kdcache build --help."""
    views: Annotated[int | None, DATA] = Field(default=None, ge=1)
    """Different views of each image without a cache. Default: one per epoch."""
    mean: Annotated[ThreeNumbers | None, DATA] = None
    """Mean that normalises the pixels, as 0.485,0.456,0.406. Default: the teacher's; without a cache
    ImageNet's."""
    std: Annotated[ThreeNumbers | None, DATA] = None
    """Standard deviation that normalises the pixels, as 0.229,0.224,0.225. Default: the teacher's; without a
    cache ImageNet's."""
    labelled: Annotated[float | None, DATA] = Field(default=None, gt=0, le=1)
    """Use the labels of this share of the images only, chosen by the seed, as in 0.1: for semi-supervised
    training, e.g. --loss dho."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], MACHINE] = "auto"
    """Arithmetic of the student: auto (bf16 on a GPU that has it, else fp32), fp32, bf16 or fp16."""
    fetch: Annotated[Literal["auto", "batch", "view"], MACHINE] = "auto"
    """How records are fetched: by batch, a whole view once an epoch, or auto (a view where it stays below 512
    MiB)."""
    patience_s: Annotated[float, MACHINE] = Field(default=120.0, ge=0)
    """Seconds a server may be away before the run stops."""
    checkpoint_minutes: Annotated[float, MACHINE] = Field(default=10.0, gt=0)
    """Minutes between checkpoints inside an epoch; each epoch ends with one."""
    keep_checkpoints: Annotated[int, MACHINE] = Field(default=KEPT_CHECKPOINTS, ge=1)
    """How many of the last checkpoints are kept. One that was damaged on the disk is passed over by --resume,
    which then goes on from the one before."""
    tensorboard: Annotated[bool, MACHINE] = True
    """Write TensorBoard events into the folder of the run."""
