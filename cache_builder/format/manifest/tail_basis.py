"""The arrays of a tail sketch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import FormatError
from cache_builder.format.manifest.codec_sections import Codec, SketchSection


class TailBasis:
    """The arrays that turn tail coefficients into logits: ``logits ≈ mean + (step * coef) @ basis``.

    ``mean`` is float32 [C], ``basis`` float32 [r, C] with orthonormal rows; ``centres`` int16 [C, r], the
    usual coefficients of samples whose best class is c; None for a codec without them.
    """

    def __init__(
        self,
        mean: NDArray[np.float32],
        basis: NDArray[np.float32],
        centres: NDArray[np.int16] | None = None,
    ) -> None:
        self.mean = np.ascontiguousarray(mean, dtype=np.float32)
        self.basis = np.ascontiguousarray(basis, dtype=np.float32)
        self._centres = None if centres is None else np.ascontiguousarray(centres, dtype=np.int16)
        self._ranking: tuple[float, NDArray[np.uint16]] | None = None
        self._places: tuple[float, NDArray[np.uint16]] | None = None

    @property
    def centres(self) -> NDArray[np.int16]:
        """int16 [C, r]; :class:`FormatError` where nobody gave them: zeros would decode to wrong logits."""
        if self._centres is None:
            raise FormatError("codec class-sketch needs codec/centres, and this tail basis was made without")
        return self._centres

    @classmethod
    def read(cls, codec: Codec, array: Callable[[str], NDArray[Any]]) -> TailBasis:
        """From the header arrays of a cache's codec; ``array`` reads the one of that name."""
        centres = array("centres") if isinstance(codec, SketchSection) else None
        return cls(array("mean"), array("basis"), centres)

    def ranking(self, tail_step: float) -> NDArray[np.uint16]:
        """For each best class [C] all classes [C] in their usual order, the class itself first.

        By falling ``mean / step + centres @ basis`` in fixed-point numbers of 15 binary places, equal ones by
        class id: sums of integers, so that every machine finds the same order.
        """
        if self._ranking is None or self._ranking[0] != tail_step:
            self._ranking = tail_step, _ranking(self.mean, self.basis, self.centres, tail_step)
        return self._ranking[1]

    def places(self, tail_step: float) -> NDArray[np.uint16]:
        """The inverse of :meth:`ranking`: for each best class, where every class stands."""
        if self._places is None or self._places[0] != tail_step:
            usual = self.ranking(tail_step)
            places = np.empty_like(usual)
            np.put_along_axis(places, usual, np.arange(len(usual), dtype=usual.dtype)[None], axis=1)
            self._places = tail_step, places
        return self._places[1]


_FIXED_POINT = 2.0**15


def _ranking(
    mean: NDArray[np.float32], basis: NDArray[np.float32], centres: NDArray[np.int16], tail_step: float
) -> NDArray[np.uint16]:
    # Integers in float64, which is exact up to 2^53 in whatever order they are added.
    scores = centres.astype(np.float64) @ np.rint(basis.astype(np.float64) * _FIXED_POINT)
    scores += np.rint(mean.astype(np.float64) * (_FIXED_POINT / tail_step))
    np.fill_diagonal(scores, np.inf)
    return np.argsort(-scores, axis=1, kind="stable").astype(np.uint16)
