"""What a cache keeps of its teacher, in the same words for builds, ``inspect``, the server and kdtrain."""

from __future__ import annotations

import math
from collections.abc import Callable

from cache_builder.console.limits import FEW, allowed_loss, limit_in_words
from cache_builder.console.one_by_one import stored_one_by_one
from cache_builder.format.manifest import CalibrationSection, Manifest, RatePoint

CALIBRATED_VIEWS = "views at calibration"
"""Key of the manifest's ``environment`` in extended caches: how many views there were before."""
BLURRED = 0.95
"""A loss whose gradient has a smaller cosine with that from live logits sees a blurred teacher."""
_AS_LIVE, _LITTLE = 0.99, 0.8
# Held-out views differ: by so much a record may lose more than was asked for without a word.
_NOISE = 0.1
# A larger record is worth naming where it loses less than this share of what is lost now.
_WORTH_IT = 0.8
# Bytes of a number of the basis on disk, and of a cache whose size is told in kB.
_BASIS_ENTRY, _SMALL = 1.3, 1e5
_ALIKE = (
    "the teacher answers every picture alike, so there is nothing to lose, and nothing that a student could "
    "learn from it: are its weights in place?"
)


def chosen_point(manifest: Manifest) -> RatePoint | None:
    """The row of the calibration's table that the cache uses; None where nothing was chosen."""
    found = manifest.calibration
    return None if found.chosen is None else found.table[found.chosen]


def frontier(section: CalibrationSection) -> list[int]:
    """Rows that no smaller row is as faithful as, by rising bytes; the chosen one is always there."""
    found: list[int] = []
    least = float("inf")
    table = section.table
    is_measured = all(point.lost is not None for point in table)
    for index in sorted(range(len(table)), key=lambda index: table[index].bytes_per_view):
        lost = _lost(table[index], is_measured)
        if lost < least or index == section.chosen:
            found.append(index)
            least = min(least, lost)
    return found


def _lost(point: RatePoint, is_measured: bool) -> float:
    """The share of the variance; of tables of releases that did not measure it, that of the gradient."""
    return point.lost or 0.0 if is_measured else 1 - point.gradient_cosine


def fidelity_facts(manifest: Manifest) -> dict[str, str]:
    """What is lost, what that means for losses, and what a larger record would give: sentences by a key."""
    point = chosen_point(manifest)
    if point is None:
        return stored_one_by_one(manifest)
    if manifest.calibration.is_alike:
        return {"lost": _ALIKE}
    facts = {} if point.lost is None else {"lost": _lost_in_words(manifest, point.lost)}
    facts["losses"] = _losses_in_words(point)
    larger = next_larger(manifest)
    if larger is not None:
        facts["larger"] = _larger_in_words(manifest, larger)
    return facts


def fidelity_warnings(manifest: Manifest) -> list[str]:
    """What a user should know before training from the cache, with the way out."""
    point = chosen_point(manifest)
    if point is None or manifest.calibration.is_alike:
        return []
    asked, warnings = _limit(manifest), []
    if asked is not None and point.lost is not None and point.lost > (1 + _NOISE) * asked:
        warnings.append(
            f"WARNING: the record loses {share_in_words(point.lost)} of the logits' variance, more than "
            f"{limit_in_words(manifest.requested.codec)} allows: {_how_to_keep(manifest, asked)}"
        )
    if point.kd_cosines is not None and point.kd_cosines[1] < BLURRED:
        warnings.append(
            "WARNING: losses above T = 1 see a blurred teacher (gradient cosine "
            f"{cosine_in_words(point.kd_cosines[1])} at T = 4, where 1 is the live teacher): "
            f"{way_out(manifest)}"
        )
    elif point.kd_cosines is None and point.gradient_cosine < BLURRED:
        warnings.append(
            "WARNING: some losses see a blurred teacher (the worst of a few has gradient cosine "
            f"{cosine_in_words(point.gradient_cosine)}, where 1 is the live teacher): {way_out(manifest)}"
        )
    return warnings


def at_temperature_1(row: RatePoint) -> float:
    """Gradient cosine of kd at T = 1; of the worst loss in tables of earlier releases."""
    return row.gradient_cosine if row.kd_cosines is None else row.kd_cosines[0]


def at_temperature_4(row: RatePoint) -> float:
    """Gradient cosine of kd at T = 4; of the worst loss in tables of earlier releases."""
    return row.gradient_cosine if row.kd_cosines is None else row.kd_cosines[1]


def of_worst_loss(row: RatePoint) -> float:
    """Gradient cosine of the worst of a few losses."""
    return row.gradient_cosine


def way_out(manifest: Manifest, measure: Callable[[RatePoint], float] = at_temperature_4) -> str:
    """How to build a cache that a loss sees clearly: by the smallest row of the table that does it."""
    for row in _reachable(manifest):
        if measure(row) >= BLURRED:
            return (
                f"build again with {_option(manifest, row)}, {row.bytes_per_view:.1f} bytes a view with "
                f"gradient cosine {cosine_in_words(measure(row))}"
            )
    point = chosen_point(manifest)
    if manifest.codec.name == "class-sketch" and point is not None:
        return _twice_the_bytes(point)
    if point is None or not point.lost:
        return "build again with --lose 0.02 or less"
    least = min((row.lost for row in _reachable(manifest) if row.lost), default=point.lost)
    if least >= point.lost:
        return f"build again {_more(manifest)}"
    return f"build again with a smaller --lose, such as {rounded_up(least / 2):g}"


def _limit(manifest: Manifest) -> float | None:
    """The most that the record was to lose; None where its size was given, or nothing can be told."""
    request = manifest.requested.codec
    return allowed_loss(request) if manifest.codec.name == "joint-sketch" else request.lose


def _reachable(manifest: Manifest) -> list[RatePoint]:
    """Rows of the table that an option gives, by rising bytes; none of a larger --lose than was asked."""
    rows = sorted(manifest.calibration.table, key=lambda row: row.bytes_per_view)
    asked = _limit(manifest)
    if asked is None or manifest.codec.name != "joint-sketch":
        return rows
    return [row for row in rows if not row.lost or rounded_up(row.lost) < asked]


def _how_to_keep(manifest: Manifest, asked: float) -> str:
    """What to build with, where the record loses more than was asked."""
    point = chosen_point(manifest)
    assert point is not None
    kept = [row for row in _reachable(manifest) if row.lost and row.lost <= asked]
    if kept:
        return f"build again with {_option(manifest, kept[0])} to keep that limit"
    if manifest.codec.name == "class-sketch":
        return _twice_the_bytes(point)
    return f"no smaller --lose keeps that limit here, build again {_more(manifest)}"


def _more(manifest: Manifest) -> str:
    """What helps where no smaller limit does: the basis leaves out more than that."""
    basis = (
        "without --tail-rank" if manifest.requested.codec.tail_rank else "with more samples or more --views"
    )
    return f"{basis}, or with --exact, which stores every logit"


def _twice_the_bytes(point: RatePoint) -> str:
    """For a codec that is chosen by its size alone."""
    return f"build again with a larger --bytes-per-view, such as {math.ceil(2 * point.bytes_per_view)}"


def next_larger(manifest: Manifest) -> RatePoint | None:
    """The smallest row of the table that takes more bytes than the cache's and loses clearly less."""
    point = chosen_point(manifest)
    if point is None:
        return None
    better = [
        row
        for row in _reachable(manifest)
        if row.bytes_per_view > point.bytes_per_view and _loss_of(row) < _WORTH_IT * _loss_of(point)
    ]
    return min(better, key=lambda row: row.bytes_per_view, default=None)


def measured_views(manifest: Manifest) -> str:
    """What the table's figures are of."""
    known, count = calibrated_views(manifest), manifest.views.count
    if known == count:
        return "the views of this cache" if saw_all_records(manifest) else "held-out views"
    if saw_all_records(manifest):
        return f"the views that it was fitted to, the first {known} of {count}"
    return f"held-out views among the first {known} of {count}"


def saw_all_records(manifest: Manifest) -> bool:
    """Whether calibration looked at every record that the cache had then, so that its figures are of these.

    The other codecs fit one half of what they see and measure the other.
    """
    readable = manifest.data.samples - len(manifest.invalid_rows)
    is_joint = manifest.codec.name == "joint-sketch"
    return is_joint and manifest.calibration.pairs >= readable * calibrated_views(manifest)


def calibrated_views(manifest: Manifest) -> int:
    """Views of the cache when it was calibrated; those that ``kdcache extend`` added came later."""
    return int(manifest.environment.get(CALIBRATED_VIEWS, manifest.views.count))


def _lost_in_words(manifest: Manifest, lost: float) -> str:
    return f"{share_in_words(lost)} of the variance of the teacher's logits, on {measured_views(manifest)}"


def _losses_in_words(point: RatePoint) -> str:
    worst = f"the worst of a few losses has {cosine_in_words(point.gradient_cosine)}"
    if point.kd_cosines is None:
        return f"{worst} as gradient cosine (1 is the live teacher)"
    at_1, at_4 = point.kd_cosines
    return (
        f"at T = 1 they see {_seen(at_1)} (gradient cosine {cosine_in_words(at_1)}, where 1 is the live "
        f"teacher), at T = 4 {_seen(at_4)} ({cosine_in_words(at_4)}); {worst}"
    )


def _seen(cosine: float) -> str:
    if cosine >= _AS_LIVE:
        return "the teacher as if it were live"
    if cosine >= BLURRED:
        return "the teacher nearly as it is"
    return "a blurred teacher" if cosine >= _LITTLE else "little of the teacher"


def _larger_in_words(manifest: Manifest, row: RatePoint) -> str:
    point = chosen_point(manifest)
    assert point is not None
    total = row.bytes_per_view * manifest.data.samples * manifest.views.count
    total += _BASIS_ENTRY * row.tail_rank * manifest.classes
    gives = [] if row.lost is None else [f"lose {share_in_words(row.lost)}"]
    gives.append(
        f"have gradient cosine {cosine_in_words(row.gradient_cosine)} for the worst loss"
        if row.kd_cosines is None
        else f"have gradient cosine {cosine_in_words(row.kd_cosines[1])} at T = 4"
    )
    size = f"about {megabytes(total)} with the basis for this data set"
    return (
        f"records of {row.bytes_per_view:.1f} bytes a view where these take {point.bytes_per_view:.1f} by "
        f"the same measure, {size}, {' and '.join(gives)}: "
        f"{_option(manifest, row)}"
    )


def megabytes(size: float) -> str:
    """A number of bytes as people read it."""
    if size < _SMALL:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def _option(manifest: Manifest, row: RatePoint) -> str:
    """The option of ``kdcache build`` that gives this row, or one that is no worse."""
    if row.lost and manifest.codec.name == "joint-sketch":
        is_fewer = manifest.requested.codec.top_k is not None or row.top_k < FEW
        return f"--lose {rounded_up(row.lost):g}" + (f" --top-k {row.top_k}" if is_fewer else "")
    return f"--bytes-per-view {math.ceil(row.bytes_per_view)}"


def rounded_up(value: float) -> float:
    """To two significant digits, so that what is built by it is found within the limit."""
    digits = 1 - math.floor(math.log10(value))
    # What a float cannot hold exactly must not count as a step further.
    return round(math.ceil(round(value * 10.0**digits, 6)) / 10.0**digits, digits)


def _loss_of(row: RatePoint) -> float:
    return 1 - row.gradient_cosine if row.lost is None else row.lost


def share_in_words(lost: float) -> str:
    """Of the variance, as people read it."""
    return f"{100 * lost:.2g} %"


def cosine_in_words(value: float) -> str:
    """Of two gradients, as people read it."""
    return f"{value:.4f}"
