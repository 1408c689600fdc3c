"""Is the cache of this data set: ids, labels, source bytes, pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cache_builder.build.classes import agreement
from cache_builder.console.progress import Progress
from cache_builder.datasets import ImageSource, LimitedSource
from cache_builder.format.errors import CorruptCacheError, DataError, IncompleteCacheError
from cache_builder.format.reader import Cache
from cache_builder.format.same_samples import first_difference
from cache_builder.verify.report import Check, Outcome, named, ok, skipped
from cache_builder.views.probe import probe_differences


class DataVerifier:
    """Compares a data set with a cache whose header arrays are intact."""

    def __init__(self, cache: Cache, source: ImageSource, rows: NDArray[np.int64], progress: Progress):
        """``rows``: those whose source bytes are compared."""
        samples = cache.manifest.data.samples
        self.longer = len(source) > samples
        self.source: ImageSource = LimitedSource(source, samples) if self.longer else source
        """The data set, as far as the cache goes."""
        self._total = len(source)
        self._cache, self._rows, self._progress = cache, rows, progress
        self.same_rows = False
        """Whether every row is the same sample, once the ids were compared."""

    def checks(self) -> Iterator[Check]:
        """All checks, in their order."""
        ids = self._ids()
        self.same_rows = not ids.failed
        yield ids
        if not self.same_rows:
            yield skipped("labels", "not compared, because the rows are not the same samples")
            yield skipped("sources", "likewise")
        else:
            yield self._labels()
            yield self._sources()
        yield self._pictures()

    def _ids(self) -> Check:
        cached, found, spec = self._cache.ids, self.source.ids, self.source.spec
        if cached == found:
            more = f", the first {len(cached):,} of its {self._total:,}" if self.longer else ""
            return ok("ids", f"all {len(cached):,} rows are the samples of {spec}{more}")
        row = first_difference(cached, found)
        if row is None or row >= min(len(cached), len(found)):
            return _differs("ids", f"{spec} has {len(found):,} samples, the cache {len(cached):,}")
        said = f"row {row} is {cached[row]!r} in the cache and {found[row]!r} in {spec}"
        if len(cached) == len(found) and set(cached) == set(found):
            said = f"{spec} holds the same samples in another order (shuffled, or ids swapped): {said}"
        return _differs("ids", f"{said}; use the data set the cache was built from")

    def _labels(self) -> Check:
        cached, labels = self._cache.labels, self.source.labels
        if labels is None or (cached < 0).all():
            return skipped("labels", "the data set has none" if labels is None else "the cache has none")
        known = self._cache.class_names
        found = agreement(cached, known, labels, self.source.class_names or ())
        differing = np.flatnonzero((cached != found.labels) & (cached >= 0))
        if not differing.size:
            # What the build says, as inspect does: here the names of classes may be those that it took over.
            how = self._cache.manifest.environment.get("labels", found.how)
            return ok("labels", f"all {len(cached):,} agree: {how}")
        row = int(differing[0])
        return _differs(
            "labels",
            f"{differing.size:,} differ, the first is row {row} ({self._cache.ids[row]!r}): "
            f"{_class(cached[row], known)} in the cache, {_class(found.labels[row], known)} in "
            f"{self.source.spec}, {found.how}; were class folders renamed, added or removed?",
        )

    def _sources(self) -> Check:
        """Digests of the source bytes of some samples."""
        try:
            digests = self._cache.digests
        except (IncompleteCacheError, CorruptCacheError) as error:
            return skipped("sources", f"the cache's own digests cannot be read: {error}")
        rows = self._rows[digests[self._rows] != 0]
        if not rows.size:
            return skipped("sources", "the cache has no digests of them")
        self._progress.start("sources", len(rows), unit="samples")
        changed: list[str] = []
        for done, row in enumerate(rows, start=1):
            problem = self._changed(int(row), digests)
            changed += [problem] if problem else []
            self._progress.update(done, f"{len(changed)} changed", last=done == len(rows))
        if changed:
            said = f"{len(changed)} of {len(rows)} samples changed since the build: {named(changed, 3)}"
            return _differs("sources", f"{said}; restore them or build anew")
        return ok("sources", f"{len(rows):,} of {len(digests):,} samples have the digests of the build")

    def _changed(self, row: int, digests: NDArray[np.uint64]) -> str | None:
        sample_id = self._cache.ids[row]
        try:
            digest = self.source.read(row).digest
        except DataError as error:
            return f"{sample_id!r} cannot be read ({error})"
        if digest == int(digests[row]):
            return None
        elsewhere = np.flatnonzero(digests == np.uint64(digest))
        if elsewhere.size:
            other = int(elsewhere[0])
            return f"{sample_id!r} holds what was {self._cache.ids[other]!r} (shuffled under their ids)"
        return f"{sample_id!r}"

    def _pictures(self) -> Check:
        """Are the views of the probe rendered as the teacher saw them."""
        manifest = self._cache.manifest
        if not manifest.probe.pairs:
            return skipped("pictures", "the cache has no render probe")
        differences = probe_differences(manifest, self._cache.probe_pixels, self.source, self._cache.ids)
        worst = max(differences, key=lambda item: item.difference, default=None)
        if worst is None:
            return skipped("pictures", "the data set lacks the samples of the render probe")
        figures = {"mean_absolute_levels": worst.difference}
        if worst.difference > manifest.probe.tolerance:
            return Check(
                "pictures",
                Outcome.DIFFERS,
                f"{worst.sample_id!r} in view {worst.view} differs by {worst.difference:.1f} levels from "
                f"what the teacher saw, at most {manifest.probe.tolerance:g} are expected: another picture, "
                "or another decoder or resizer; use the libraries of the build "
                f"({', '.join(f'{name} {number}' for name, number in manifest.probe.libraries.items())})",
                figures,
            )
        return ok(
            "pictures", f"{len(differences)} render as they did, {worst.difference:.2f} levels", **figures
        )


def _class(label: int, names: tuple[str, ...] | None) -> str:
    """A class id with its name; no label in words."""
    if label < 0:
        return "no label"
    return f"{label} ({names[label]!r})" if names and label < len(names) else str(label)


def _differs(name: str, said: str) -> Check:
    return Check(name, Outcome.DIFFERS, said)
