"""Is the cache what the teacher says: its weights, then live logits beside stored ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cache_builder.build.forward import TeacherForward
from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderTask, ViewRenderer, chunks, render_batches
from cache_builder.console.names import PRECISIONS, Precision
from cache_builder.console.progress import Progress
from cache_builder.datasets import ImageSource
from cache_builder.format.codecs import Fields
from cache_builder.format.probabilities import total_variation
from cache_builder.format.reader import Cache
from cache_builder.tensors.encode import RecordEncoder
from cache_builder.verify.faithful import (
    TEMPERATURES,
    Fidelity,
    Logits,
    compare,
    noise_floor,
    of_other_records,
    rms,
)
from cache_builder.verify.report import Check, Outcome, named, ok, skipped
from cache_builder.views.replay import Replay

Pairs = Sequence[tuple[int, int]]
# A teacher that moves by more than this part of its logits' spread is not measured but guessed at.
_MOST_NOISE = 0.03


@dataclass(frozen=True)
class _Live:
    """Pictures of some (view, row) pairs and what the teacher says about them."""

    pairs: Pairs
    images: torch.Tensor
    """uint8 [n, 3, S, S]."""
    logits: Logits
    """float32 [n, C], masked classes at what the cache keeps of them."""
    as_given: Logits
    """The same as the teacher gave them."""


@dataclass(frozen=True)
class _Stored:
    """What the cache has of some (view, row) pairs."""

    logits: Logits
    """Decoded, float32 [n, C]."""
    shared: Fields | None
    """The fields that the records share with those of other views."""


class TeacherVerifier:
    """Compares a teacher with an intact cache, over pictures of the cache's data set."""

    def __init__(self, cache: Cache, plan: Plan, source: ImageSource, pairs: Pairs, progress: Progress):
        """``pairs``: the (view, row) to compare. ``plan``: carries the teacher that was opened again."""
        self._cache, self._plan, self._source, self._pairs = cache, plan, source, pairs
        self._progress = progress
        self._encoder = RecordEncoder(cache.codec).to(plan.forward.device)
        self._precision = plan.manifest.teacher.precision

    def checks(self) -> Iterator[Check]:
        """All checks, in their order."""
        weights = self._weights()
        yield weights
        yield self._arithmetic()
        live = self._live()
        if not live.pairs:
            yield skipped("faithful", "none of the samples can be read")
            return
        records = self._records(live.pairs)
        stored, shared = self._cache.decode(records), self._shared(records)
        again = self._again(live)
        coded, coded_again = self._coded(live.logits, shared), self._coded(again, shared)
        floor = noise_floor(live.logits, self._precision, self._same_device())
        fidelity = compare(stored, live.logits, again, coded, coded_again, floor)
        yield _repeatable(fidelity.noise, live.logits)
        yield self._faithful(fidelity, _Stored(stored, shared), coded, live, weights)
        yield self._loss(fidelity, coded, live)

    def _weights(self) -> Check:
        found, stored = self._plan.manifest.teacher, self._cache.manifest.teacher
        if found.weights_digest == stored.weights_digest:
            return ok("weights", f"{found.spec}, {found.weights}: digest {found.weights_digest}")
        return Check(
            "weights",
            Outcome.DIFFERS,
            f"another teacher: {found.spec} with {found.weights} has digest {found.weights_digest}, the "
            f"cache was built with {stored.spec}, {stored.weights}, digest {stored.weights_digest}; give the "
            "same --weights",
        )

    def _arithmetic(self) -> Check:
        stored = self._cache.manifest.teacher.precision
        if self._precision == stored:
            return ok("precision", stored)
        said = f"the cache was built in {stored}, this is {self._precision}: leave --precision out"
        return Check("precision", Outcome.DIFFERS, said)

    def _live(self) -> _Live:
        """Render and run the pairs whose samples can be read."""
        renderer = ViewRenderer(self._source, Replay.of(self._cache.manifest))
        tasks = [RenderTask(row, view, view + 1) for view, row in self._pairs]
        self._progress.start("teacher", len(tasks))
        size = self._plan.settings.batch_size
        readable: list[int] = []
        images, logits, done = [], [], 0
        for batch in render_batches(renderer, chunks(tasks, size), 0, False):
            kept = [index for index, error in enumerate(batch.errors) if error is None]
            readable += [done + index for index in kept]
            pictures = batch.images.flatten(0, 1)[kept]
            images.append(pictures)
            if kept:
                logits.append(_run(self._plan.forward, pictures))
            done += len(batch.rows)
            self._progress.update(done, last=done == len(tasks))
        stacked = np.concatenate(logits) if logits else np.zeros((0, 0), np.float32)
        said = [self._pairs[index] for index in readable]
        return _Live(said, torch.cat(images), self._kept(stacked), stacked)

    def _again(self, live: _Live) -> Logits:
        """The same pictures in another order and in batches of another size: the control."""
        size = max(1, self._plan.settings.batch_size // 3)
        pieces = torch.split(live.images.flip(0), size)
        return self._kept(np.concatenate([_run(self._plan.forward, piece) for piece in pieces])[::-1])

    def _kept(self, logits: Logits) -> Logits:
        """Logits with masked classes at what the cache keeps of them."""
        return self._cache.codec.settled(logits) if len(logits) else logits

    def _records(self, pairs: Pairs) -> NDArray[np.uint8]:
        """Packed records of the pairs; each block is read once."""
        out = np.empty((len(pairs), self._cache.record_bytes), np.uint8)
        for view in sorted({view for view, _ in pairs}):
            places = [place for place, pair in enumerate(pairs) if pair[0] == view]
            rows = [pairs[place][1] for place in places]
            out[places] = self._cache.gather(view, rows)
        return out

    def _shared(self, records: NDArray[np.uint8]) -> Fields | None:
        """What the records share with those of other views, which are not looked at."""
        layout = self._cache.codec.layout
        columns = layout.unpack(records)
        return {field.name: np.array(columns[field.name]) for field in layout.fields if field.shared} or None

    def _coded(self, logits: Logits, shared: Fields | None) -> Logits:
        """Through the cache's codec and back, given what the records share with other views."""
        device = self._plan.forward.device
        live = torch.from_numpy(logits.copy()).to(device)  # a reversed one has negative strides
        of_views = {name: torch.from_numpy(column).to(device) for name, column in (shared or {}).items()}
        return self._cache.decode(self._encoder(live, 1, of_views or None).cpu().numpy())

    def _same_device(self) -> bool:
        device = self._plan.forward.device
        here = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        return self._cache.manifest.environment.get("device", here) == here

    def _faithful(
        self, fidelity: Fidelity, stored: _Stored, coded: Logits, live: _Live, weights: Check
    ) -> Check:
        figures = {
            "records": fidelity.records,
            "equal": fidelity.equal,
            "stored_against_codec_of_live_rms": fidelity.stored,
            "live_against_live_rms": fidelity.noise,
            "codec_against_codec_rms": fidelity.noise_coded,
            "bound_rms": fidelity.bound,
            "typical_record_rms": fidelity.typical,
            "typical_bound_rms": fidelity.typical_bound,
        }
        measured = (
            f"stored logits differ from codec(live) by {fidelity.stored:.2e} rms, {fidelity.typical:.2e} in "
            f"a typical record; up to {fidelity.bound:.2e} and {fidelity.typical_bound:.2e} is noise and "
            f"rounding (live against live {fidelity.noise:.2e})"
        )
        if fidelity.is_faithful:
            said = f"{fidelity.records} records are those of the live logits, {fidelity.equal} exactly"
            return ok("faithful", f"{said}: {measured}", **figures)
        why = self._reason(fidelity, stored, coded, live, weights)
        return Check("faithful", Outcome.DIFFERS, f"{measured}; {why}", figures)

    def _reason(self, fidelity: Fidelity, stored: _Stored, coded: Logits, live: _Live, weights: Check) -> str:
        """The sentence that says what is different, as far as it can be found out."""
        if weights.failed:
            return "as it must for another teacher (see weights)"
        exchanged = of_other_records(stored.logits, coded, max(3 * fidelity.bound, 1e-6))
        if exchanged:
            pairs = [
                f"{self._name(live.pairs[i])} has that of {self._name(live.pairs[j])}" for i, j in exchanged
            ]
            return f"the records were shuffled: {named(pairs, 2)}; rebuild the cache"
        other = self._other_precision(fidelity, stored, live)
        if other:
            return (
                f"another precision: they are those of {other} arithmetic, not of {self._precision}; rebuild "
                f"the cache, or verify with --precision {other}"
            )
        worst = self._name(live.pairs[fidelity.worst])
        return (
            f"the teacher is the same, so the pictures or the arithmetic are not (most: {worst}): look at "
            "sources and pictures above, and at the library versions in the manifest's environment"
        )

    def _other_precision(self, fidelity: Fidelity, stored: _Stored, live: _Live) -> Precision | None:
        """A precision whose logits the stored ones are clearly nearer to."""
        forward = self._plan.forward
        best = 0.5 * fidelity.stored
        found: Precision | None = None
        for precision in PRECISIONS:
            if precision == self._precision:
                continue
            other = forward.in_precision(precision)
            pieces = torch.split(live.images, self._plan.settings.batch_size)
            try:
                logits = self._kept(np.concatenate([_run(other, piece) for piece in pieces]))
            except RuntimeError:  # a device that has no kernels for it
                continue
            if not np.isfinite(logits).all():
                continue
            difference = rms(stored.logits - self._coded(logits, stored.shared))
            if difference < best:
                best, found = difference, precision
        return found

    def _name(self, pair: tuple[int, int]) -> str:
        return f"{self._cache.ids[pair[1]]!r} in view {pair[0]}"

    def _loss(self, fidelity: Fidelity, coded: Logits, live: _Live) -> Check:
        """What the codec loses: told, not judged. Masks count as the teacher gave them: they have no part."""
        spread = float(np.std(live.logits - live.logits.mean(axis=1, keepdims=True)))
        figures = {"rms": fidelity.loss, "live_std": spread}
        told = []
        for temperature in TEMPERATURES:
            distances = total_variation(
                coded.astype(np.float64), live.as_given.astype(np.float64), temperature
            )
            figures[f"tv_t{temperature}_mean"] = float(distances.mean())
            figures[f"tv_t{temperature}_max"] = float(distances.max())
            told.append(f"T={temperature} {distances.mean():.2e} (max {distances.max():.2e})")
        return ok(
            "codec",
            f"loses {fidelity.loss:.2e} rms of a spread of {figures['live_std']:.2e}; total variation "
            + ", ".join(told),
            **figures,
        )


def _repeatable(noise: float, live: Logits) -> Check:
    """Whether the teacher says the same twice: its own noise would hide any difference."""
    spread = float(np.std(live - live.mean(axis=1, keepdims=True)))
    said = f"run again in other batches, its logits move by {noise:.2e} rms of a spread of {spread:.2e}"
    if noise <= _MOST_NOISE * spread:
        return ok("repeatable", said, live_against_live_rms=noise, live_std=spread)
    return Check(
        "repeatable",
        Outcome.DIFFERS,
        f"the teacher does not repeat itself: {said}, so nothing can be said of the cache; repair it "
        "(dropout or sampling that ignores eval(), batch statistics)",
        {"live_against_live_rms": noise, "live_std": spread},
    )


def sampled_pairs(cache: Cache, rows: NDArray[np.int64], seed: int) -> list[tuple[int, int]]:
    """One random view for each of the rows that can be read, as (view, row), by rising view."""
    valid = np.setdiff1d(rows, np.array(cache.manifest.invalid_rows, np.int64))
    views = np.random.default_rng(seed).integers(0, cache.manifest.views.count, len(valid))
    return sorted((int(view), int(row)) for view, row in zip(views, valid, strict=True))


@torch.inference_mode()
def _run(forward: TeacherForward, images: torch.Tensor) -> Logits:
    logits: Logits = forward.logits(images).float().cpu().numpy()
    return logits
