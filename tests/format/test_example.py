"""FORMAT.md's example is the golden cache that it says it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from cache_builder.format import manifest, open_cache
from tests.format import third_party_reader
from tests.format.test_golden import GOLDEN

EXAMPLE = GOLDEN / "v3/example.zarr"
TEXT = (Path(manifest.__file__).parents[1] / "FORMAT.md").read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("## 3. An example") : TEXT.index("## 4.")]
RECORD, LOGITS = re.findall(r"```\n([^`]+?)\n```\n\n(?=\||The)", SECTION)


def test_the_manifest_is_the_one_shown() -> None:
    shown = re.search(r"```json\n(.+?)\n```", SECTION, re.DOTALL)
    assert shown is not None
    assert json.loads(shown[1]) == open_cache(EXAMPLE).body


def test_the_record_is_the_one_shown() -> None:
    cache = open_cache(EXAMPLE)
    record = cache.read_page(0)[:1]
    assert record.tobytes() == bytes.fromhex(RECORD)
    fields = {name: column[0] for name, column in cache.codec.unpack(record).items()}
    rows = re.findall(r"^\| `([0-9a-f ]+)` \| `(\w+)` \| `records/logits/(\w+)`", SECTION, re.MULTILINE)
    assert [(name, array) for _, name, array in rows] == [(name, name) for name in fields]
    for shown, name, _ in rows:
        assert np.asarray(fields[name]).tobytes() == bytes.fromhex(shown)


def test_it_decodes_to_the_logits_shown() -> None:
    wanted = [float(number) for number in LOGITS.split()]
    cache = open_cache(EXAMPLE)
    assert cache.decode(cache.read_page(0))[0].tolist() == wanted
    assert third_party_reader.read_logits(EXAMPLE, 0)[0].tolist() == wanted
