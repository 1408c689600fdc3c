"""Which samples are seen when: a function of (seed, epoch) alone, known before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import ConfigError
from cache_builder.views.pairing import pairs_first


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    """A permutation of range(samples): Philox words keyed (seed, epoch), sorted.

    Raw words only, so that no library's way of shuffling matters. Do not write to it: it is shared.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(samples)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


Partners = Callable[[int], "NDArray[np.int64] | None"]
"""Of a view, the position of each sample's partner [samples]; None where nothing is mixed."""


@lru_cache(maxsize=4)
def paired_order(
    partners: Partners, views: tuple[int, ...], seed: int, epoch: int, samples: int
) -> NDArray[np.int64]:
    """``epoch_order``, but partners of the first of the views that mixes follow each other.

    So both are in one batch, and each image is read once. Do not write to it: it is shared.
    """
    order = epoch_order(seed, epoch, samples)
    mixed = next((found for view in views if (found := partners(view)) is not None), None)
    if mixed is None:
        return order
    paired = pairs_first(mixed, order)
    paired.flags.writeable = False
    return paired


@dataclass(frozen=True)
class BatchPlan:
    """Every batch of a run, by step. Epochs drop the samples that do not fill a last batch."""

    samples: int
    """Positions 0 to samples - 1 of the data set."""
    batch_size: int
    """Samples of one optimiser step, over all ranks and micro-batches."""
    epochs: int
    views: int
    """V, recorded views to go through."""
    seed: int
    accumulation: int = 1
    """Micro-batches of one step on one rank."""
    rank: int = 0
    world: int = 1
    views_per_sample: int = 1
    """In how many views, n, a batch holds each sample; epoch e uses n e to n e + n - 1, each mod V."""
    partners: Partners | None = None
    """Who is mixed with whom, for recipes that mix: ``ViewDataset.partner_positions``."""

    def __post_init__(self) -> None:
        """Refuse a batch that is larger than the data set or does not divide, and the same view twice."""
        if self.views_per_sample > self.views:
            raise ConfigError(
                f"a batch cannot hold {self.views_per_sample} views of a sample: there are only {self.views}"
            )
        if self.batch_size > self.samples:
            raise ConfigError(
                f"batch size {self.batch_size} exceeds the {self.samples} training samples: "
                "lower --batch-size"
            )
        if self.batch_size % (self.world * self.accumulation):
            raise ConfigError(
                f"batch size {self.batch_size} does not divide among {self.world} process(es) with "
                f"{self.accumulation} micro-batch(es) each: choose a multiple of "
                f"{self.world * self.accumulation}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        return self.samples // self.batch_size

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.epochs * self.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 0, in which a step lies."""
        return step // self.steps_per_epoch

    @property
    def samples_per_micro_batch(self) -> int:
        """B, different samples of one micro-batch on one rank."""
        return self.batch_size // (self.world * self.accumulation)

    def views_of(self, step: int) -> tuple[int, ...]:
        """The views in which a step sees its samples; of two, the weak one first."""
        first = self.epoch_of(step) * self.views_per_sample
        return tuple((first + offset) % self.views for offset in range(self.views_per_sample))

    def micro_batches(self, step: int) -> list[NDArray[np.int64]]:
        """This rank's positions in one step, one array per micro-batch."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if self.partners is None:
            order = epoch_order(self.seed, epoch, self.samples)
        else:
            order = paired_order(self.partners, self.views_of(step), self.seed, epoch, self.samples)
        whole = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        own = np.split(whole, self.world)[self.rank]
        return np.split(own, self.accumulation)

    def stream(self, first_step: int) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
        """(views, positions) of every micro-batch from a step to the end of the run."""
        for step in range(first_step, self.steps):
            for positions in self.micro_batches(step):
                yield self.views_of(step), positions
