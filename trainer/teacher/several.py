"""Several caches teach one student only where their rows and views are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cache_builder.format import ConfigError
from cache_builder.format.same_samples import contradictions, first_difference, same_ids
from cache_builder.views import recipe_from
from trainer.teacher.client import TeacherCache


def check_caches_agree(caches: Sequence[TeacherCache]) -> None:
    """Raise :class:`ConfigError` naming the first thing in which a cache differs from the first one."""
    for index, cache in enumerate(caches):
        for earlier in caches[:index]:
            if earlier.cache_id == cache.cache_id:
                raise ConfigError(
                    f"--cache {earlier.location} and --cache {cache.location} are one cache "
                    f"({cache.cache_id}): give each teacher's cache once"
                )
    for cache in caches[1:]:
        difference = next(_differences(caches[0], cache), None)
        if difference is not None:
            raise ConfigError(
                f"caches {caches[0].location} and {cache.location} cannot teach together: {difference}; "
                "build both from the same data with the same --limit, --recipe, --seed and --decoding"
            )


_FACTS: tuple[tuple[str, Callable[[TeacherCache], object]], ...] = (
    ("numbers of samples", lambda cache: cache.manifest.data.samples),
    ("numbers of classes", lambda cache: cache.manifest.classes),
    ("view recipes", lambda cache: cache.manifest.views.recipe),
    ("view seeds", lambda cache: cache.manifest.views.seed),
    ("rules of decoding pictures", lambda cache: cache.manifest.input.decoding),
    ("interpolations", lambda cache: cache.manifest.input.interpolation),
)


def _differences(first: TeacherCache, other: TeacherCache) -> Iterator[str]:
    """What differs, from the cheapest to look at to the dearest."""
    for what, read in _FACTS:
        ours, theirs = read(first), read(other)
        if ours != theirs:
            yield f"their {what} differ ({ours} and {theirs})"
    ours_named, theirs_named = first.class_names, other.class_names
    if ours_named and theirs_named and ours_named != theirs_named:
        yield f"their class names differ ({_told_difference(ours_named, theirs_named)})"
    if not same_ids(first.manifest, other.manifest):
        yield f"their sample ids differ ({_told_difference(first.ids, other.ids)})"
    invalid = first.manifest.invalid_rows, other.manifest.invalid_rows
    views = first.manifest.views
    if invalid[0] != invalid[1] and recipe_from(views.recipe).mixes_any(views.count):
        yield "their unreadable samples differ, and their recipe mixes samples with each other"
    labels = contradictions(first.labels, other.labels)
    digests = first.digests != other.digests
    digests[[*first.manifest.invalid_rows, *other.manifest.invalid_rows]] = False
    for what, contradiction in (("labels", labels), ("source files", digests)):
        if contradiction.any():
            yield f"their {what} differ, e.g. of sample {first.ids[int(contradiction.argmax())]!r}"


def _told_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    place = first_difference(ours, theirs)
    assert place is not None  # whoever asks has found a difference
    return f"the first at {place}: {ours[place]!r} and {theirs[place]!r}"
