import os
import subprocess
import sys
from pathlib import Path

from cache_builder.format import open_cache
from logit_server.run import serving
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache

EXAMPLE = Path(__file__).parents[2] / "examples" / "read_records.py"


def test_the_example_reads_what_the_server_has(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "a.zarr", synthetic_logits(2, 64, 10), sketch=True)
    cache = open_cache(tmp_path / "a.zarr")
    with serving(Settings.checked(caches=(f"a={tmp_path / 'a.zarr'}",), port=0, token="secret")) as base:
        ran = subprocess.run(
            [sys.executable, EXAMPLE, base, cache.ids[7], tmp_path / "view"],
            env=os.environ | {"KDCACHE_TOKEN": "secret", "PYTHONPATH": str(EXAMPLE.parents[1])},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    assert "is_ready=True" in ran.stdout
    assert "['a']" in ran.stdout
    assert "(2, 1, 10)" in ran.stdout
    assert (tmp_path / "view").read_bytes() == cache.read_page(0).tobytes()
