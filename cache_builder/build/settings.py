"""Everything a build can be asked for, as one frozen object; and what opens a cache's teacher again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cache_builder.build.names import check_codec_name, check_teacher_name
from cache_builder.console.names import (
    DATA_KINDS,
    check_device_name,
    check_precision_name,
)
from cache_builder.console.options import Names, Option, Settings, ThreeNumbers
from cache_builder.console.recipes import check_recipe
from cache_builder.format.errors import ConfigError
from cache_builder.format.frozen import Decoding

HIDDEN = Option(is_hidden=True)
RAY = Option(panel="Cluster")
DEVICE, PRECISION = Option(check=check_device_name), Option(check=check_precision_name)


class BuildSettings(Settings):
    """Settings of ``kdcache build``; each field is the flag of the same name."""

    teacher: Annotated[Names, Field(min_length=1), Option(check=check_teacher_name)]
    """Name of the teacher: vit_l, vit_b, resnet50, any torchvision classifier, timm:NAME, or
    package.module:factory. Given several times, an ensemble: the mean of the softmax outputs is stored, as
    its log. Its members see the same picture, each normalised its own way, and must have the same classes."""
    data: str = Field(description=f"Data set whose samples the teacher sees: {DATA_KINDS}.")
    out: str
    """Folder of the cache, usually NAME.zarr, or a URL such as s3://bucket/NAME.zarr."""
    views: int = Field(default=8, ge=1)
    """Recorded augmented views of each sample."""
    recipe: Annotated[str | None, Option(check=check_recipe)] = None
    """How views are drawn: rrc-flip, pad-crop-flip or plain, with parameters as in rrc-flip:min_area=0.25;
    with strong views randaugment, trivialaugment, color-jitter, rrc-erase, mixup, cutmix or augment, as in
    mixup:alpha=0.2,base=pad-crop-flip,erase.probability=0.25; or a FILE.toml. View 0 is always crop and flip
    only. Default: what is usual for the data."""
    weights: Annotated[Names, Field(min_length=1)] | None = None
    """Weights of the teacher: default (published), random, or a FILE or folder: safetensors or a state dict,
    no code in it is run. Of raw and averaged (EMA) weights in a file the averaged ones are taken; FILE#ENTRY
    takes another entry, FILE#by-order the tensors by their order, whatever they are called. Of an ensemble:
    once for each teacher, in the same order. Default: default."""
    lose: float | None = Field(default=None, gt=0, lt=1)
    """The most that a record may lose, as a share of the variance of the teacher's logits. Calibration takes
    the smallest record that loses no more, measured on views that fitted nothing, or on all views of a cache
    so small that calibration sees each; inspect shows what others would take. Up to 32 classes are stored one
    by one: nothing is lost but rounding to 8 bits. Not together with --bytes-per-view. Default: 0.02, where
    that is not given."""
    bytes_per_view: float | None = Field(default=None, ge=1)
    """The most bytes that a record should take on disk, instead of --lose. Calibration takes the record below
    it that loses least, and says so where there is none. Default: as many as --lose needs."""
    exact: bool = False
    """Store every logit in 16 bits: float16, or bfloat16 where the teacher computes in it. Nothing is lost
    but rounding; a record takes some 1.8 bytes a class."""
    codec: Annotated[str | None, Option(check=check_codec_name)] = None
    """How logits become records: topk-tail (every class one by one), joint-sketch (a sketch of all classes
    that the views of a sample share, one of each view's own, and some classes put right one by one) or
    class-sketch (that of releases before: each view alone). Default: topk-tail for up to 32 classes, else
    joint-sketch."""
    top_k: int | None = Field(default=None, ge=1)
    """Classes stored one by one. Default: by calibration; all of up to 32."""
    tail_rank: int | None = Field(default=None, ge=1)
    """Coefficients that describe all other classes. Default: by calibration."""
    tail_step: float | None = Field(default=None, gt=0)
    """Quantisation step of these coefficients, in logits. Default: by calibration."""
    value_step: float | None = Field(default=None, gt=0)
    """Quantisation step of the classes stored one by one, in logits. Default: by calibration."""
    batch_size: int = Field(default=64, ge=1)
    """Images per forward pass of the teacher."""
    workers: int | None = Field(default=None, ge=0)
    """Loader processes; their number never changes the result. Default: by device and cores."""
    device: Annotated[str, DEVICE] = "auto"
    """Device that the teacher runs on: auto, cpu, cuda or cuda:N."""
    precision: Annotated[str, PRECISION] = "auto"
    """Arithmetic of the teacher: auto, fp32, bf16 or fp16."""
    compile: bool = False
    """Have torch.compile translate the teacher first: a minute or more at the start, faster batches after.
    Needs a C++ compiler; the cache may be continued without."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of the views (and of random weights)."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first N samples are built."""
    rows: str | None = None
    """Build only rows START:STOP of the data set, a part that kdcache merge joins to others."""
    like: str | None = None
    """A part that was begun: take over its basis, so that the parts fit together."""
    input_size: int | None = Field(default=None, ge=1)
    """Side in pixels of what the teacher sees, also of all of an ensemble. Default: the weights' own."""
    mean: ThreeNumbers | None = None
    """Mean that normalises the pixels, as 0.485,0.456,0.406. Default: the weights' own."""
    std: ThreeNumbers | None = None
    """Standard deviation that normalises the pixels, as 0.229,0.224,0.225. Default: the weights' own."""
    name: str | None = None
    """Name of the cache on a server. Default: from --out."""
    tile_rows: int | None = Field(default=None, ge=1)
    """Rows per tile, the most that a killed build loses. Default: up to 4096."""
    on_error: Literal["fail", "skip"] = "fail"
    """What an unreadable image does: fail ends the build, skip marks its row as invalid."""
    decoding: Decoding | None = None
    """How picture files become pixels, for every kind of data. 2 (default): turned upright by their EXIF
    orientation; of 16 bits the upper 8, floats of 0 to 1 times 255; numbers of which nothing says what is
    white are refused; alpha is dropped. 1: EXIF orientation ignored, as in earlier releases and torchvision's
    ImageFolder. The cache keeps it and kdtrain decodes by it."""
    class_map: Annotated[str | None, Option(metavar="FILE")] = None
    """Which of the teacher's classes each class of the data is, where their names differ: lines such as `my
    folder = tench` or `my folder = 0`, CSV or TSV with these two columns, or JSON such as `{"my folder":
    "tench"}`."""
    repair: Annotated[bool, Option(flag="--repair/--no-repair")] = False
    """Read every byte of a cache that is there, and write the tiles that are damaged anew. What is whole
    stays."""
    share: bool = False
    """Share the work with every other process that runs this same command: any number, on any machines that
    see the output, started by any scheduler, at any time. One calibrates, each then builds row blocks that
    nobody else does, and whoever sees the last tile committed seals the cache. Where a process dies, another
    takes its block over."""
    engine: Annotated[Literal["local", "ray"], RAY] = "local"
    """Where the teacher runs: local, in this process; ray, on the nodes of a Ray cluster, from which any node
    may go and to which others may come. The cache is the same to the byte; either continues what the other
    began."""
    address: Annotated[str | None, RAY, Option(metavar="HOST:PORT")] = None
    """The Ray cluster. Default: the one that RAY_ADDRESS or this machine has, else one of this machine
    alone."""
    ray_teachers: Annotated[int | None, RAY] = Field(default=None, ge=1)
    """Teachers that run at once. Default: one for each GPU, without any one for each --ray-cpus processors;
    more with nodes that come."""
    ray_decoders: Annotated[int | None, RAY] = Field(default=None, ge=0)
    """Processes that render views for the teachers, on any node; 0 has each teacher render its own. Default:
    as many as the cluster has processors, 16 for each GPU at most; 0 without GPUs."""
    ray_cpus: Annotated[int | None, RAY] = Field(default=None, ge=0)
    """Processors that Ray sets aside for each teacher. Default: 1 for one without a GPU, 0 for one with."""
    allow_unrepeatable: bool = False
    """Store a teacher that gives the same picture different answers. Without it such a teacher is refused
    before anything is written."""
    ignore_labels: bool = False
    """The teacher's classes are not the data set's: store its logits without labels. The names of the data's
    classes are kept, and kdtrain --classes both learns them with a head of its own."""

    @property
    def members(self) -> list[tuple[str, str]]:
        """Each teacher with its weights. Raises :class:`ConfigError` where their numbers differ."""
        weights = self.weights or ("default",) * len(self.teacher)
        if len(weights) != len(self.teacher):
            raise ConfigError(
                f"--weights is given {len(weights)} time(s) for {len(self.teacher)} teacher(s): give it once "
                "for each --teacher, in the same order (default, random or a FILE)"
            )
        return list(zip(self.teacher, weights, strict=True))

    @property
    def cache_name(self) -> str:
        """``name``, or the last part of ``out``."""
        return self.name or Path(self.out.rstrip("/")).name.removesuffix(".zarr")


class Reopening(Settings):
    """What the user says about a data set and a teacher that the manifest of a cache names already."""

    data: str | None = Field(
        default=None, description=f"Data set of the cache, where that has moved: {DATA_KINDS}."
    )
    teacher: Annotated[Names, Option(check=check_teacher_name)] = ()
    """Name of the teacher, as for build. Default: the one the manifest names."""
    weights: Names = ()
    """Weights of the teacher, as for build. Default: those the manifest names."""
    batch_size: int = Field(default=64, ge=1)
    """Images per forward pass of the teacher."""
    device: Annotated[str, DEVICE] = "auto"
    """Device that the teacher runs on: auto, cpu, cuda or cuda:N."""
    precision: Annotated[str | None, HIDDEN] = None
    """Arithmetic of the teacher: auto, fp32, bf16 or fp16. Default: the cache's."""
    workers: Annotated[int | None, HIDDEN] = Field(default=None, ge=0)
    """Loader processes; their number never changes the result. Default: by device and cores."""
