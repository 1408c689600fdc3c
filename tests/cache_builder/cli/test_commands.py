from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from cache_builder.cli import build as cli_build
from cache_builder.cli import inspect as cli_inspect
from cache_builder.cli.build import run_build
from cache_builder.cli.inspect import InspectSettings, run_inspect
from cache_builder.cli.serve import run_serve
from cache_builder.format.errors import ConfigError
from logit_server.settings import Settings
from tests.cache_builder.conftest import settings_for


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the commands print, on a terminal of any width."""
    text = io.StringIO()
    for module in (cli_build, cli_inspect):
        monkeypatch.setattr(module, "Console", lambda: Console(file=text, width=60))
    return text


def build(out: Path, photos: Path, **changes: object) -> None:
    run_build(settings_for(out, photos, **changes))


class TestBuild:
    def test_summary_is_not_broken_into_lines_nor_read_as_markup(
        self, printed: io.StringIO, photos: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "[bold] a folder with a long name, longer than the terminal is wide" / "a.zarr"
        build(out, photos, limit=20)
        assert f"{out}: 20 samples x 3 views" in printed.getvalue()
        assert f"kdcache inspect '{out}'" in printed.getvalue()
        build(out, photos, limit=20)
        assert f"{out} is finished already (cache_id" in printed.getvalue()

    def test_summary_without_labels_and_tail(self, printed: io.StringIO, tmp_path: Path) -> None:
        (tmp_path / "flat").mkdir()
        for index in range(3):
            Image.new("RGB", (20, 20), (80 * index, 0, 0)).save(tmp_path / "flat" / f"{index}.png")
        build(tmp_path / "a.zarr", tmp_path / "flat", top_k=40)
        assert "top-1" not in printed.getvalue()
        assert "rank" not in printed.getvalue()

    def test_summary_says_what_is_lost_and_warns_of_a_blurred_teacher(
        self, printed: io.StringIO, photos: Path, tmp_path: Path
    ) -> None:
        build(tmp_path / "a.zarr", photos, lose=0.6, tail_rank=None)
        text = printed.getvalue()
        assert " of the variance of the teacher's logits, on the views of this cache" in text
        assert "losses: at T = 1 they see " in text
        assert "larger: records of " in text
        assert "WARNING: losses above T = 1 see a blurred teacher" in text
        assert "build again with --lose 0.0" in text

    def test_summary_of_a_faithful_cache_warns_of_nothing(
        self, printed: io.StringIO, photos: Path, tmp_path: Path
    ) -> None:
        build(tmp_path / "a.zarr", photos, lose=0.01, tail_rank=None)
        assert "lost: " in printed.getvalue()
        assert "blurred" not in printed.getvalue()

    def test_summary_tells_clipping(
        self, printed: io.StringIO, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cache_builder.calibration import sketch

        # As if calibration had seen nothing that does not fit half a byte.
        monkeypatch.setattr(sketch, "_column_types", lambda _: (0, 0))
        build(tmp_path / "a.zarr", photos, limit=20, tail_step=0.001, codec="class-sketch")
        assert "records were clipped, which are less faithful" in printed.getvalue()


def test_inspect_prints(printed: io.StringIO, by_command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_inspect(InspectSettings(cache=str(by_command)))
    assert "teacher top-1" in printed.getvalue()
    assert "what a byte buys" in printed.getvalue()
    run_inspect(InspectSettings(cache=str(by_command), as_json=True))
    assert capsys.readouterr().out.startswith('{"location"')


def test_inspect_warns_of_a_blurred_teacher(
    printed: io.StringIO, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "a.zarr", photos, lose=0.6, tail_rank=None)
    printed.truncate(0)
    run_inspect(InspectSettings(cache=str(tmp_path / "a.zarr")))
    assert "losses above T = 1 see a blurred teacher" in " ".join(printed.getvalue().split())
    run_inspect(InspectSettings(cache=str(tmp_path / "a.zarr"), as_json=True))
    body = json.loads(capsys.readouterr().out)
    assert body["fidelity"]["lost"].endswith("on the views of this cache")
    assert [line for line in body["warnings"] if "build again with --lose" in line]


def test_inspect_draws_the_calibration(printed: io.StringIO, by_command: Path, tmp_path: Path) -> None:
    run_inspect(InspectSettings(cache=str(by_command), calibration=str(tmp_path / "bytes.png")))
    with Image.open(tmp_path / "bytes.png") as picture:
        assert picture.width > 800
    with pytest.raises(ConfigError, match="cannot write"):
        run_inspect(InspectSettings(cache=str(by_command), calibration=str(tmp_path / "none" / "b.png")))


def test_serve_without_the_servers_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fastapi", "logit_server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ConfigError, match=r"the server needs fastapi: pip install 'kdcache\[server\]'"):
        run_serve(Settings(caches=("a.zarr",), port=0))
