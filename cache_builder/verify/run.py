"""``kdcache verify``: every check in its order, printed as it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cache_builder.build.reopen import NotFoundAgainError, reopened
from cache_builder.console.memory import memory_failures
from cache_builder.console.progress import BuildProgress, Progress
from cache_builder.datasets import ImageSource, open_source
from cache_builder.format.errors import ConfigError, DataError, KDCacheError
from cache_builder.format.positions import several_positions
from cache_builder.format.reader import Cache
from cache_builder.verify.data import DataVerifier
from cache_builder.verify.report import Check, Outcome, Report, skipped
from cache_builder.verify.settings import VerifySettings
from cache_builder.verify.store import StoreVerifier
from cache_builder.verify.teacher import TeacherVerifier, sampled_pairs


def run_verify(settings: VerifySettings) -> int:
    """Verify, print, and give the exit code."""
    console = Console()
    told = Console(stderr=True) if settings.as_json else console
    with BuildProgress(told) as progress:
        checks = []
        verification = Verification(settings, progress)
        for check in verification.checks():
            checks.append(check)
            if not settings.as_json:
                console.print(check.line(), highlight=False, soft_wrap=True)
    report = Report(settings.cache, verification.cache_id, checks)
    if settings.as_json:
        sys.stdout.write(json.dumps(report.as_json()) + "\n")
    else:
        style = "bold red" if report.exit_code else "bold green"
        console.print(report.verdict(), style=style, highlight=False, soft_wrap=True, markup=False)
    return report.exit_code


def verify(settings: VerifySettings, progress: Progress) -> Report:
    """All checks of a cache. Raises :class:`FormatError` where there is none."""
    verification = Verification(settings, progress)
    checks = list(verification.checks())
    return Report(settings.cache, verification.cache_id, checks)


class Verification:
    """The checks of one cache, one after the other."""

    def __init__(self, settings: VerifySettings, progress: Progress) -> None:
        self._settings, self._progress = settings, progress
        self.cache_id: str | None = None
        """As the manifest states it, once it was read."""

    def checks(self) -> Iterator[Check]:
        """Each as soon as it is made."""
        store = StoreVerifier(self._settings.cache, self._progress)
        failed: set[str] = set()
        for check in store.checks():
            failed |= {check.name} if check.failed else set()
            yield check
        cache = store.cache
        if cache is None:
            return
        self.cache_id = store.cache_id
        if self._settings.data is None:
            yield skipped("data", "no --data given: ids, labels, pictures and the teacher were not compared")
        elif failed & {"manifest", "headers"}:
            yield skipped("data", "not compared, because manifest or header arrays are damaged")
        else:
            yield from self._outside(cache, self._settings.data, failed)

    def _outside(self, cache: Cache, spec: str, failed: set[str]) -> Iterator[Check]:
        """Data set, by its ``spec``, and teacher."""
        try:
            source = open_source(spec, cache.manifest.input.decoding)
        except DataError as error:
            yield Check("data", Outcome.DIFFERS, str(error))
            return
        rows = self._rows(cache)
        try:
            data = DataVerifier(cache, source, rows, self._progress)
            yield from data.checks()
        except ConfigError as error:  # a recipe that this release does not render
            yield skipped("pictures", str(error))
            yield skipped("teacher", "its pictures cannot be rendered")
            return
        if self._settings.no_teacher:
            yield skipped("teacher", "not wanted")
        elif not data.same_rows:
            yield skipped("teacher", "not asked, because the rows are not the same samples")
        elif cache.manifest.positions.kind != "one":
            yield skipped("teacher", str(several_positions(cache.manifest, cache.location, "verify --data")))
        elif failed:
            yield skipped("teacher", "not asked, because the cache is damaged or unfinished")
        else:
            yield from self._teacher(cache, data.source, rows)

    def _teacher(self, cache: Cache, source: ImageSource, rows: NDArray[np.int64]) -> Iterator[Check]:
        try:
            with memory_failures(self._settings.batch_size):
                plan = reopened(cache, self._settings)
                pairs = sampled_pairs(cache, rows, self._settings.seed)
                yield from TeacherVerifier(cache, plan, source, pairs, self._progress).checks()
        except NotFoundAgainError as error:
            yield skipped("teacher", f"{error} (or --no-teacher)")
        except KDCacheError as error:
            if self._settings.teacher or self._settings.weights:
                yield Check("teacher", Outcome.DIFFERS, str(error))
            else:
                yield skipped("teacher", f"it cannot be opened again: {error}; give --teacher and --weights")

    def _rows(self, cache: Cache) -> NDArray[np.int64]:
        total, wanted = cache.manifest.data.samples, self._settings.samples
        if not wanted or wanted >= total:
            return np.arange(total)
        return np.sort(np.random.default_rng(self._settings.seed).choice(total, wanted, replace=False))
