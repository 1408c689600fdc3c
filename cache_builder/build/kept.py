"""Measures what records keep, while they are made: some of each batch are decoded and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.build.rendering import RenderedBatch
from cache_builder.format.codecs import Ranked
from cache_builder.format.codecs.masking import is_masked
from cache_builder.format.kept import KD_TEMPERATURES, KeptSums
from cache_builder.format.probabilities import softmax

# Samples of a cache whose records are decoded, and logits of a view that they have at most.
_SAMPLES, _LOGITS = 512, 2**21
# A student half-way between knowing nothing and the teacher, as calibration has it.
_LEARNED = np.float32(0.5)


class KeptMeter:
    """Adds up what the records of every so many rows keep of their logits: of codecs that have a mean.

    The rows are those of the data set, whatever the batches, so that the sums of a tile are the same however
    often its build was interrupted.
    """

    def __init__(self, codec: Ranked[Any], samples: int) -> None:
        self._codec = codec
        self._mean: NDArray[np.float32] | None = codec.arrays.get("mean")
        self._every = max(1, samples // max(1, min(_SAMPLES, _LOGITS // codec.width)))
        self._records = 0
        self._sums = np.zeros((2 + 3 * len(KD_TEMPERATURES),))

    def add(self, batch: RenderedBatch, records: NDArray[np.uint8], logits: Tensor) -> None:
        """Look at some rows: records uint8 [rows * views, record_bytes], live logits [rows * views, C]."""
        places = self._places(batch)
        if self._mean is None or not places:
            return
        views = len(records) // len(batch.rows)
        chosen = (np.array(places)[:, None] * views + np.arange(views)).ravel()
        live = logits[chosen.tolist()].float().cpu().numpy()
        decoded = self._codec.decode(self._codec.unpack(records[chosen]))
        self._records += len(chosen)
        self._sums += [*_sums(live, decoded, self._mean)]

    def _places(self, batch: RenderedBatch) -> list[int]:
        """Where in the batch the rows are that are looked at: every so many, of those that could be read."""
        rows = enumerate(zip(batch.rows, batch.errors, strict=True))
        return [place for place, (row, error) in rows if error is None and row % self._every == 0]

    def take(self) -> KeptSums | None:
        """The sums since the last call, which are then forgotten; None where no record was looked at."""
        if not self._records:
            return None
        error, variance, *gradients = self._sums.tolist()
        one, four = gradients[:3], gradients[3:]
        product, decoded, live = zip(one, four, strict=True)
        found = KeptSums(
            records=self._records,
            error=error,
            variance=variance,
            product=product,
            decoded=decoded,
            live=live,
        )
        self._records = 0
        self._sums[:] = 0
        return found


def _sums(
    live: NDArray[np.float32], decoded: NDArray[np.float32], mean: NDArray[np.float32]
) -> Iterator[float]:
    """Error, variance, and for each temperature the products of :class:`KeptSums`."""
    masked = is_masked(live)
    # A masked class says nothing that could be lost, and its distance to anything would hide what is.
    live, decoded = np.where(masked, mean, live), np.where(masked, mean, decoded)
    yield float(np.square(decoded - live, dtype=np.float64).sum())
    yield float(np.square(live - mean, dtype=np.float64).sum())
    student = mean + _LEARNED * (live - mean)
    for temperature in map(np.float32, KD_TEMPERATURES):
        known = softmax(student / temperature)
        ours = (known - softmax(decoded / temperature)).astype(np.float64)
        theirs = (known - softmax(live / temperature)).astype(np.float64)
        yield from (float(np.vdot(a, b)) for a, b in ((ours, theirs), (ours, ours), (theirs, theirs)))
