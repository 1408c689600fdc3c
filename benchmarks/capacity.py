"""The capacity tables of docs/scale.md: what caches take, what serving them takes, what breaks first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from benchmarks.capacity_limits import first_broken, lines
from benchmarks.capacity_model import LOST, USUAL_LOSS, Assumed, Build, Measured, Serving, Store, Work, works
from benchmarks.fleet import Fleet, expected
from benchmarks.report import write_results

TRAINERS = (8, 64, 512, 4096)
IMAGES_S = 1000.0
"""Images a second of a trainer's process with a GPU, as a student of ResNet-50's size takes them."""


def main() -> None:
    """Compute, print and keep the tables."""
    measured, assumed = Measured.read(), Assumed()
    planned = works(measured)
    write_results(
        "capacity", "What caches take", BUILD_COLUMNS, list(_builds(planned, measured)), BUILD_NOTES
    )
    write_results(
        "capacity_bytes",
        "Bytes by what a record may lose",
        BYTES_COLUMNS,
        list(_bytes(measured)),
        BYTES_NOTES,
    )
    write_results(
        "capacity_serving",
        "What serving takes",
        SERVING_COLUMNS,
        list(_servings(planned[0], measured)),
        SERVING_NOTES,
    )
    columns = ["what", "decided in", "allowed", *(work.name for work in planned)]
    limits = [*lines(planned, measured), ["first to break", "", "", *_first(planned, measured)]]
    write_results("capacity_limits", "What breaks first", columns, limits, LIMITS_NOTES)
    assumptions = [[item.name, getattr(assumed, item.name)] for item in fields(assumed)]
    write_results("capacity_assumed", "What is assumed", ["assumption", "value"], assumptions, ASSUMED_NOTES)


BUILD_COLUMNS = [
    "cache", "records", "TB", "objects", "GPU hours", "cores a GPU", "TB read", "hours, 1,000 builders",
    "USD to build", "USD a month",
]  # fmt: skip
BUILD_NOTES = f"""
Records may lose {USUAL_LOSS:g} of the variance (the default). The teacher of pictures is ViT-L/16 at
224 pixels (123 GFLOP a view); that of tokens has 8 billion parameters. Bytes a record are those of
EfficientNet-Lite0's logits; other teachers differ (`benchmarks/results/real_teachers.md`). "Cores a
GPU": below these the teacher waits for pictures. "TB read": the data set is read once for every eight
views. Hours: by the formula of `benchmarks/fleet.py`, builders of one GPU each to which nothing
happens. Prices and machines are assumptions (`capacity_assumed`); transfer out of the store is not in
them. Token caches are a design with measured bytes; no builder makes them.
"""


def _builds(planned: tuple[Work, ...], measured: Measured) -> Iterator[list[object]]:
    assumed = Assumed()
    for work in planned:
        build, store = Build(work, measured, assumed), Store(work)
        hours = expected(work.job(measured, assumed), Fleet()) / 3600
        yield [
            work.name, work.records, store.bytes / 1e12, store.objects, build.gpu_h, build.cores_per_gpu,
            build.read_bytes / 1e12, hours, build.usd, build.month_usd,
        ]  # fmt: skip


BYTES_COLUMNS = ["cache", "lost", "bytes a view", "TB", "in a page, bytes a view", "page of a view, GB"]
BYTES_NOTES = """
Stored bytes of EfficientNet-Lite0's records by the share of the variance that they lose
(`real_teachers`). In a page and on the wire a record is packed, not entropy-coded, and the part that
eight views share is there once (`shared_parts`, whose ratio is applied).
"""


def _bytes(measured: Measured) -> Iterator[list[object]]:
    for place in range(3):
        for lost in LOST:
            work = works(measured, lost)[place]
            yield [
                work.name, lost, work.record_bytes, Store(work).bytes / 1e12, work.packed_bytes,
                work.page_bytes / 1e9,
            ]  # fmt: skip


SERVING_COLUMNS = [
    "trainers", "images/s", "rows/s", "cores that answer", "Gbit/s", "servers", "page of a view, GB",
    "cores a server that unpack", "the same, 0.2 lost",
]  # fmt: skip
SERVING_NOTES = f"""
ImageNet-1k, records that lose {USUAL_LOSS:g}, N trainers of {IMAGES_S:,.0f} images/s that ask for 256
rows at a time and are one training, so that a view is used once an epoch. "Cores that answer" are of
all servers together, once pages are in memory; "unpack": cores of EACH server that bring the
entropy-coded blocks of the next view into pages while this one is used, since every server needs every
block. Servers have 16 cores and 25 Gbit/s, of which seven tenths are used.
"""


def _servings(work: Work, measured: Measured) -> Iterator[list[object]]:
    coarse = works(measured, LOST[0])[0]
    for trainers in TRAINERS:
        serving = Serving(work, trainers, IMAGES_S, measured, Assumed())
        of_coarse = Serving(coarse, trainers, IMAGES_S, measured, Assumed())
        yield [
            trainers, IMAGES_S, serving.rows_s, serving.cores, serving.gbit_s, serving.servers,
            serving.page_bytes / 1e9, serving.unpacking_cores, of_coarse.unpacking_cores,
        ]  # fmt: skip


LIMITS_NOTES = """
How much of what is allowed each cache needs: what is above 100% breaks, the largest first. Memory and
time allowed are choices (a host of 64 GiB a process); the 5 GiB of one PUT are S3's.
"""


def _first(planned: tuple[Work, ...], measured: Measured) -> Iterator[str]:
    for work in planned:
        yield next(iter(first_broken(work, measured)), "nothing")


ASSUMED_NOTES = "Nobody measured these here, and they are no offers: put your own into `Assumed`."


if __name__ == "__main__":
    main()
