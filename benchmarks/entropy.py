"""Coding small integers: the entropy coder of ``joint-sketch`` against Blosc with zstd.

    python -m benchmarks entropy

Integers of a discrete Laplace distribution, each column narrower than the one before, as the coefficients of
a sketch are. The tables of the entropy coder are of other rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from benchmarks.report import alternate, write_results
from cache_builder.calibration.joint_fit import runs_of, tables_of
from cache_builder.format.codecs.digits import Digits
from cache_builder.format.codecs.entropy import EntropyCoder

COLUMNS = 160
HEIGHTS = (4096, 512, 64)
WIDEST, FALL = 6.0, 0.75
"""Width of the first column, and the power by which the others fall."""
ROUNDS = 5
_LEVEL = 5

Integers = NDArray[np.int64]


def laplace(rows: int, seed: int) -> Integers:
    """Integers [rows, COLUMNS]."""
    widths = WIDEST / np.arange(1, COLUMNS + 1) ** FALL
    drawn = np.random.default_rng(seed).laplace(size=(rows, COLUMNS)) * widths
    return np.rint(drawn).astype(np.int64)


def entropy_bytes(integers: Integers) -> float:
    """Bytes of a row by the entropy of each column, as often as each value is in these rows."""
    bits = 0.0
    for column in integers.T:
        share = np.unique(column, return_counts=True)[1] / len(integers)
        bits -= float((share * np.log2(share)).sum())
    return bits / 8


def candidates(
    integers: Integers, coder: EntropyCoder, digits: Digits
) -> Iterator[tuple[str, int, Callable[[], Integers]]]:
    """Name, bytes of the block, and what decodes it."""
    rows = len(integers)
    block = coder.encode(integers)
    yield "entropy coder", len(block), lambda: coder.decode(block, rows)
    for shuffle, name in ((Blosc.NOSHUFFLE, "no shuffle"), (Blosc.BITSHUFFLE, "bit shuffle")):
        yield f"zstd, {name}", *_zstd(integers, shuffle, 0)
    yield "zstd, a block per integer", *_zstd(integers, Blosc.NOSHUFFLE, rows)
    packed = np.ascontiguousarray(digits.pack(integers).T)
    blosc = Blosc(cname="zstd", clevel=_LEVEL, shuffle=Blosc.NOSHUFFLE, blocksize=rows)
    stored = blosc.encode(packed)

    def unpacked() -> Integers:
        columns = np.frombuffer(blosc.decode(stored), np.uint8).reshape(digits.bytes, rows)
        return digits.unpack(np.ascontiguousarray(columns.T))

    yield "zstd, a block per byte of several integers", len(stored), unpacked


def _zstd(integers: Integers, shuffle: int, blocksize: int) -> tuple[int, Callable[[], Integers]]:
    """Column by column, one byte an integer."""
    blosc = Blosc(cname="zstd", clevel=_LEVEL, shuffle=shuffle, blocksize=blocksize)
    stored = blosc.encode(np.ascontiguousarray(integers.T).astype(np.int8))

    def decoded() -> Integers:
        found = np.frombuffer(blosc.decode(stored), np.int8).reshape(integers.shape[::-1])
        return found.T.astype(np.int64)

    return len(stored), decoded


def compare(height: int) -> Iterator[list[object]]:
    """A line for each way to keep a block of so many rows."""
    fitting = laplace(4096, seed=1)
    integers = laplace(height, seed=0).clip(-127, 127)
    low, tables = tables_of(fitting)
    found = list(candidates(integers, EntropyCoder(tables, low), Digits.of_runs(runs_of(fitting * 2))))
    bound = entropy_bytes(laplace(16384, seed=2))
    timed = alternate({name: lambda decode=decode: seconds(decode) for name, _, decode in found}, ROUNDS)
    for name, size, decode in found:
        assert (decode() == integers).all()
        per_row = size / height
        yield [height, name, per_row, per_row / bound, 1e6 * statistics.median(timed[name]) / height]


def seconds(decode: Callable[[], Integers]) -> float:
    """Processor time of decoding a block: other work on the machine does not count."""
    begun = time.process_time()
    decode()
    return time.process_time() - begun


NOTES = f"""
{COLUMNS} integers a row, of Laplace distributions that begin {WIDEST:g} wide and fall by the power {FALL:g}
of the column's number. "Of the entropy" is against that of the columns, as often as each value is in 16,384
rows. The tables of the entropy coder are of 4,096 other rows and are not counted: a cache keeps them once.
zstd is level {_LEVEL} in Blosc, columns one after the other, a byte an integer; in the last line integers of
few values share a byte, as ``Digits`` packs them.

Decoding is the processor time of one thread for a whole block, medians of {ROUNDS} rounds taken in turn;
zstd's is in C. The coder's is NumPy: one round of calls for each integer and 16 rows of a state, so that a
block takes about the same time however few rows it has.
"""


def main() -> None:
    """Write ``benchmarks/results/entropy.md``."""
    rows = [line for height in HEIGHTS for line in compare(height)]
    columns = ["rows in a block", "how", "bytes a row", "of the entropy", "decoding, us a row"]
    write_results("entropy", "Coding small integers", columns, rows, NOTES)


if __name__ == "__main__":
    main()
