"""What a dump of another program must tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

NO_TAIL_SHAPE = (
    "the shape of the tail: the mass outside the top K is spread evenly, which is right at temperature 1 and "
    "wrong above"
)
NO_SCALE = "the logits' additive constant: stored are log-probabilities, up to a constant for each record"


class Dump(Protocol):
    """Logits of N samples in V views."""

    @property
    def views(self) -> int:
        """V."""

    @property
    def classes(self) -> int:
        """C."""

    @property
    def top_k(self) -> int | None:
        """Classes stored one by one, all others alike; None = every logit is known."""

    @property
    def ids(self) -> Sequence[str] | None:
        """Of each row; None = nobody named them."""

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """[N], -1 where a sample has none; None where there are none."""

    @property
    def own_views(self) -> bool:
        """Whether another program drew the views, so that kdcache cannot draw them again."""

    @property
    def lacks(self) -> Sequence[str]:
        """What a cache that kdcache built would know and this one does not."""

    @property
    def stored_precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """Numbers of the dump."""

    def __len__(self) -> int:
        """N."""

    def block(self, views: range, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits [views, rows, C]. Raises :class:`DataError` for what cannot be read."""
