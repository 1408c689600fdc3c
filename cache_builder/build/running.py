"""Running a plan's teacher over rendered batches; what goes wrong names the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderedBatch, RenderTask, ViewRenderer, render_batches
from cache_builder.console.memory import is_exhausted
from cache_builder.format.codecs.all_logits import LARGEST
from cache_builder.format.codecs.masking import is_masked
from cache_builder.format.errors import DataError, KDCacheError

_NAMED_IN_ERRORS = 5


Renders = Callable[[Plan, Iterable[list[RenderTask]]], Iterator[RenderedBatch]]
"""What renders the batches of a plan, in their order: here, or elsewhere."""


def rendered(plan: Plan, batches: Iterable[list[RenderTask]]) -> Iterator[RenderedBatch]:
    """Render batches; an unreadable image stops the build unless it is to be skipped."""
    renderer = ViewRenderer(plan.source, plan.replay)
    pin = plan.forward.device.type == "cuda"
    return readable(plan, render_batches(renderer, batches, plan.workers, pin))


def readable(plan: Plan, batches: Iterable[RenderedBatch]) -> Iterator[RenderedBatch]:
    """The same batches; raises :class:`DataError` at an unreadable image that is not to be skipped."""
    for batch in batches:
        problem = next((error for error in batch.errors if error), None)
        if problem and plan.settings.on_error == "fail":
            raise DataError(f"{problem}; repair or remove it, or use --on-error skip to mark its row invalid")
        yield batch


@contextmanager
def teacher_failures(plan: Plan, rows: list[int]) -> Iterator[None]:
    """Turn what a teacher raises into a :class:`KDCacheError` that names the samples it was looking at."""
    try:
        yield
    except KDCacheError:
        raise
    except Exception as error:
        if is_exhausted(error):
            raise  # told by whoever knows the batch size
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise KDCacheError(
            f"teacher {plan.manifest.teacher.spec} failed on a batch of {len(rows)} sample(s), "
            f"{named(rows, plan)}: {said}; committed tiles are kept and the same command continues"
        ) from error


def check_finite(finite: NDArray[np.bool_], rows: list[int], plan: Plan) -> None:
    """Raise :class:`DataError` naming the samples for which the teacher gave no usable logits."""
    bad = list(dict.fromkeys(rows[index] for index in np.flatnonzero(~finite)))
    if bad:
        raise DataError(
            "the teacher gave non-finite logits (or a span beyond float16, or a new mask) for "
            f"{len(bad)} sample(s) of a batch: {named(bad, plan)}; try --precision fp32, or look at the "
            "weights"
        )


def check_held(finite: NDArray[np.bool_], live: NDArray[np.float32], rows: list[int], plan: Plan) -> None:
    """Raise :class:`DataError` where a record of 16 bits has no room for a row's logits [rows, n, C].

    ``finite`` [rows]: which of the rows have usable records.
    """
    bad = np.flatnonzero(~finite)
    of_bad = live[bad].reshape(-1, live.shape[2])
    counted = ~is_masked(of_bad)
    above = of_bad.max(axis=1, where=counted, initial=-np.inf)
    below = of_bad.min(axis=1, where=counted, initial=np.inf)
    largest = float(max(np.abs(of_bad).max(where=counted, initial=0.0), (above - below).max(initial=0.0)))
    if not np.isfinite(largest) or largest <= LARGEST["float16"]:
        return
    ways = "--codec joint-sketch holds them"
    if plan.settings.codec == "all-logits":
        ways += ", and so does --exact with --precision bf16"
    who = f"{len(bad)} sample(s) of a batch: {named([rows[index] for index in bad], plan)}"
    raise DataError(
        f"the teacher's logits reach {largest:.3g} (or span as much), more than the {LARGEST['float16']:g} "
        f"of float16, in {who}; {ways}"
    )


def named(rows: list[int], plan: Plan) -> str:
    """The first few sample ids."""
    more = ", ..." if len(rows) > _NAMED_IN_ERRORS else ""
    return ", ".join(plan.source.ids[row] for row in rows[:_NAMED_IN_ERRORS]) + more
