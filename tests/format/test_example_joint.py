"""FORMAT.md's examples of codec ``joint-sketch`` are the golden caches that it says they are.

The test of its steps prints the table that should be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import zarr

from cache_builder.format import open_cache
from cache_builder.format.layout import codec_path
from cache_builder.format.manifest import LOGITS
from tests.format import third_party_reader
from tests.format.test_example import TEXT
from tests.format.test_golden import GOLDEN

EXAMPLE, CODED = GOLDEN / "v3/joint-example.zarr", GOLDEN / "v3/joint.zarr"
SECTION = TEXT[TEXT.index("## 12. The record `joint-sketch`") :]


def block() -> bytes:
    """The first block of the field that views share."""
    stored: bytes = np.asarray(zarr.open_array(CODED / "records/logits/sample", mode="r")[0, :2]).tobytes()
    return stored


def steps() -> Iterator[str]:
    """What decoding the first row does, a line an integer."""
    cache = open_cache(CODED)
    paths = (codec_path(cache.manifest, LOGITS, name) for name in ("sample_tables", "sample_low"))
    tables, low = (cache.header_array(path).tolist() for path in paths)
    data = block()[1:]
    state, words = int.from_bytes(data[:4], "little"), iter(np.frombuffer(data[4:-1], "<u2").tolist())

    def filled(state: int) -> tuple[int, str]:
        if state >= 2**16:
            return state, ""
        word = next(words)
        return state * 2**16 + word, f"{word:04x}"

    for table, bits in zip(tables, low, strict=True):
        slot, begun = state % 2**14, state
        place = next(place for place in range(64) if sum(table[: place + 1]) > slot)
        start, frequency = sum(table[:place]), table[place]
        state, first = filled(frequency * (state >> 14) + slot - start)
        between, lower = state, state % 2**bits
        state, second = filled(state >> bits)
        shown = [begun, slot, place, start, frequency, between, first, lower if bits else "", second]
        yield f"| {' | '.join(map(str, [*shown, ((place - 31) << bits) + lower]))} |"


def test_the_block_is_the_one_shown() -> None:
    shown = re.search(r"```\n(00 [0-9a-f ]+)\n```", SECTION)
    assert shown is not None
    data = bytes.fromhex(shown[1])
    assert block() == data.ljust(len(block()), b"\0")


def test_decoding_it_takes_the_steps_shown() -> None:
    lines = list(steps())
    assert all(line in SECTION for line in lines), "\n".join(lines)
    cache = open_cache(CODED)
    shared = cache.codec.integers(cache.codec.unpack(cache.read_page(0)))[0][0]
    assert [int(line.split("|")[-2]) for line in lines] == shared.tolist()


def test_the_record_is_the_one_shown() -> None:
    shown = re.search(r"`((?:[0-9a-f]{2} ){5}[0-9a-f]{2})`", SECTION)
    assert shown is not None
    assert open_cache(EXAMPLE).read_page(0)[0].tobytes() == bytes.fromhex(shown[1])


def test_it_decodes_to_the_logits_shown() -> None:
    shown = re.search(r"```\n((?:[0-9.]+ ){5}[0-9.]+)\n```", SECTION)
    assert shown is not None
    wanted = [float(number) for number in shown[1].split()]
    cache = open_cache(EXAMPLE)
    assert cache.decode(cache.read_page(0))[0].tolist() == wanted
    assert third_party_reader.read_logits(EXAMPLE, 0)[0].tolist() == wanted
