"""Whether a node sees what the driver sees: the data set, and the output that it holds."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Self

import numpy as np

from cache_builder.datasets import ImageSource
from cache_builder.format.errors import ConfigError, DataError, KDCacheError
from cache_builder.format.locations import is_remote
from cache_builder.format.locks.lock import JoinedHold

_TRIED = 16


@dataclass(frozen=True)
class Witness:
    """A sample that the driver could read.

    With ``--on-error skip`` a node without the pictures would else record nothing but invalid rows.
    """

    row: int
    digest: int

    @classmethod
    def of(cls, source: ImageSource) -> Self | None:
        """The first readable one of a few; None where the driver itself can read none of them."""
        for row in np.linspace(0, len(source) - 1, _TRIED).astype(int).tolist():
            try:
                return cls(row, source.read(row).digest)
            except DataError:
                continue
        return None

    def check(self, source: ImageSource) -> None:
        """Raise :class:`ConfigError` where this node reads something else, or nothing."""
        try:
            found = source.read(self.row).digest
        except KDCacheError as error:
            raise ConfigError(
                f"node {socket.gethostname()} does not see the data set as the driver does: {error}. Every "
                "node needs the same --data: put it on a disk that all share, or on an object store "
                "(webdataset:s3://…, parquet:s3://…)"
            ) from error
        if found != self.digest:
            raise ConfigError(
                f"node {socket.gethostname()} reads other bytes than the driver for sample "
                f"{source.ids[self.row]!r}: every node needs the same data set"
            )


def held_output(out: str, launch: str) -> JoinedHold:
    """The driver's lock as an actor sees it; :class:`ConfigError` where this node cannot see the output."""
    hold = JoinedHold(out, launch)
    try:
        hold.check()
    except KDCacheError as error:
        remedy = (
            "look at the network and the credentials there"
            if is_remote(out)
            else "choose a folder that all nodes share, or an object store such as s3://bucket/NAME.zarr"
        )
        raise ConfigError(
            f"node {socket.gethostname()} does not see that the driver holds --out {out} ({error}): {remedy}"
        ) from error
    return hold
