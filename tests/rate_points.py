"""Rows of a calibration's table, for tests of what is said and drawn of them."""

from __future__ import annotations

from cache_builder.format.manifest import CalibrationSection, CodecRequest, Manifest, RatePoint
from tests.caches import synthetic_manifest


def rate_point(
    size: float,
    lost: float | None = 0.01,
    kd_cosines: tuple[float, float] | None = (0.999, 0.99),
    worst: float = 0.97,
) -> RatePoint:
    """A row of ``size`` bytes a view; None for what earlier releases did not measure."""
    return RatePoint(
        top_k=5,
        tail_rank=8,
        tail_step=0.2,
        value_step=0.05,
        bytes_per_view=size,
        tv=(0.1, 0.2, 0.3, 0.4),
        gradient_cosine=worst,
        logit_error=0.1,
        lost=lost,
        kd_cosines=kd_cosines,
    )


def with_table(
    *points: RatePoint,
    chosen: int = 0,
    lose: float | None = None,
    budget: float | None = None,
    manifest: Manifest | None = None,
) -> Manifest:
    """A manifest (synthetic: 100 samples in 3 views) whose calibration found these rows."""
    manifest = manifest or synthetic_manifest()
    section = CalibrationSection(pairs=200, logit_std=1, tail_error=0.1, table=points, chosen=chosen)
    requested = manifest.requested.model_copy(
        update={"codec": CodecRequest(lose=lose, bytes_per_view=budget)}
    )
    return manifest.model_copy(update={"calibration": section, "requested": requested})
