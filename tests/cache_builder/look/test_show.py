"""``kdcache inspect --show``: the picture, and what is said where there can be none."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from cache_builder.build.pipeline import build
from cache_builder.cli.app import app
from cache_builder.console.progress import BuildProgress
from cache_builder.datasets import open_source
from cache_builder.format.errors import ConfigError, DataError, UnknownSampleError
from cache_builder.format.reader import open_cache
from cache_builder.look.show import look, shorten_left, show_view
from cache_builder.views import parse_recipe
from cache_builder.views.pairing import Pairing
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.trees import logits
from tests.cache_builder.views import by_hand

SAMPLE = "class_03/img_1.jpg"  # row 7
RECIPE = (
    "augment:randaugment.num_ops=1,jitter.hue=0.1,erase.probability=1,mix.mixup_alpha=1,mix.cutmix_alpha=1"
)


def invoke(*command: str) -> Result:
    return CliRunner().invoke(app, ["inspect", *command], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all 80 photographs, every class stored. Read only."""
    out = tmp_path_factory.mktemp("show") / "cache.zarr"
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings_for(out, photos, recipe=RECIPE, top_k=40, tail_rank=None), progress)
    return out


class TestLook:
    @pytest.mark.parametrize("view", [0, 1, 2])
    def test_is_what_the_teacher_saw_and_said(self, cache: Path, photos: Path, view: int) -> None:
        seen, row = look(str(cache), SAMPLE, view, None)
        source = open_source(f"imagefolder:{photos}")
        wanted = by_hand.rendered(
            parse_recipe(RECIPE + ",base=pad-crop-flip"),
            5,
            view,
            7,
            16,
            80,
            lambda each: source.read(each).value,
        )
        assert row == 7
        assert torch.equal(seen.seen, wanted)
        stored = logits(open_cache(cache), view)[7].astype(np.float64)
        likely = np.exp(stored - stored.max()) / np.exp(stored - stored.max()).sum()
        best = np.argsort(-likely, kind="stable")[:10]
        assert seen.names == [f"class_{index:02d}" for index in best]
        np.testing.assert_allclose(seen.probabilities, likely[best])
        partner = int(Pairing(5, view, 80).partners(np.array([7]))[0])
        labels = {3} if view == 0 else {3, partner // 2}
        assert seen.is_label == [int(index) in labels for index in best]

    def test_sources_and_words(self, cache: Path) -> None:
        ordinary, mixed = (look(str(cache), SAMPLE, view, None)[0] for view in (0, 1))
        assert [len(each.sources) for each in (ordinary, mixed)] == [1, 2]
        assert "class_03/img_1.jpg\n48 x 40, label class_03" in mixed.sources[0].title
        assert mixed.sources[0].crop[2:] == (40, 48)
        said = "; ".join(mixed.drawn)
        for word in (
            "mirrored",
            "operations: ",
            "jitter: ",
            "hue",
            "erased",
            "row",
            "own share",
            "partner: ",
        ):
            assert word in said
        assert len(ordinary.drawn) == 1

    def test_data_elsewhere(self, cache: Path, photos: Path, tmp_path: Path) -> None:
        moved = shutil.copytree(photos, tmp_path / "moved")
        here, there = (look(str(cache), SAMPLE, 1, data)[0] for data in (None, f"imagefolder:{moved}"))
        assert torch.equal(here.seen, there.seen)


class TestRefused:
    def test_unknown_sample(self, cache: Path) -> None:
        with pytest.raises(UnknownSampleError, match=r"nope\.jpg"):
            show_view(str(cache), "nope.jpg", 0, None, None)

    def test_view_out_of_range(self, cache: Path) -> None:
        with pytest.raises(DataError, match="view 3 is out of range: the cache has views 0 to 2"):
            show_view(str(cache), SAMPLE, 3, None, None)

    def test_no_data(self, cache: Path) -> None:
        with pytest.raises(DataError, match="'/nowhere' does not exist"):
            show_view(str(cache), SAMPLE, 0, "imagefolder:/nowhere", None)

    def test_data_that_moved(
        self, run_build: Callable[..., object], own_photos: Path, tmp_path: Path
    ) -> None:
        run_build(folder=own_photos)
        own_photos.rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match=r"does not exist.*; say where the images are with --data"):
            show_view(str(tmp_path / "cache.zarr"), SAMPLE, 0, None, None)

    @pytest.mark.parametrize("which", ["own", "partner"])
    def test_changed_images(self, cache: Path, photos: Path, tmp_path: Path, which: str) -> None:
        changed = Path(shutil.copytree(photos, tmp_path / "changed"))
        partner = int(Pairing(5, 1, 80).partners(np.array([7]))[0])
        name = SAMPLE if which == "own" else open_cache(cache).ids[partner]
        Image.new("RGB", (40, 40)).save(changed / name)
        with pytest.raises(DataError, match=f"{name}' changed since the cache was built"):
            show_view(str(cache), SAMPLE, 1, f"imagefolder:{changed}", None)

    def test_images_that_are_gone(self, cache: Path, photos: Path, tmp_path: Path) -> None:
        fewer = Path(shutil.copytree(photos, tmp_path / "fewer"))
        (fewer / SAMPLE).unlink()
        with pytest.raises(DataError, match=f"has no sample '{SAMPLE}'.*--data"):
            show_view(str(cache), SAMPLE, 1, f"imagefolder:{fewer}", None)

    def test_unreadable_when_built(
        self, run_build: Callable[..., object], own_photos: Path, tmp_path: Path
    ) -> None:
        (own_photos / SAMPLE).write_bytes(b"")
        run_build(folder=own_photos, on_error="skip", recipe="mixup")
        out = str(tmp_path / "cache.zarr")
        with pytest.raises(DataError, match="could not be read when the cache was built"):
            look(out, SAMPLE, 0, None)
        partner = open_cache(out).ids[int(Pairing(5, 1, 80).partners(np.array([7]))[0])]
        seen, _ = look(out, partner, 1, None)
        assert "row 7 could not be read, so nothing was mixed" in seen.drawn
        assert len(seen.sources) == 1

    @pytest.mark.parametrize(
        ("out", "said"), [("a.jpg", r"expected a \.png"), ("no/a.png", "there is no folder")]
    )
    def test_out(self, cache: Path, tmp_path: Path, out: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            show_view(str(cache), SAMPLE, 0, None, tmp_path / out)


class TestCommand:
    def test_writes_a_picture(self, cache: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.png"
        ended = invoke(str(cache), "--show", SAMPLE, "--view", "1", "--out", str(out))
        assert ended.exit_code == 0, ended.output
        assert ended.output == f"wrote {out}\n"
        with Image.open(out) as picture:
            assert picture.format == "PNG"
            width, height = picture.size
            pixels = np.asarray(picture.convert("RGB"))
        assert width > 2 * height
        # The frame of the crop, and the teacher's bars, which may be green.
        assert (np.abs(pixels.astype(int) - (255, 127, 14)).sum(axis=2) < 12).sum() > 200
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100

    def test_default_name(self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert invoke(str(cache), "--show", SAMPLE).output == "wrote view0-row7.png\n"
        assert (tmp_path / "view0-row7.png").exists()

    def test_refused_with_a_sentence(self, cache: Path) -> None:
        ended = invoke(str(cache), "--show", "nope.jpg")
        assert ended.exit_code != 0
        assert "nope.jpg" in ended.output
        assert "Traceback" not in ended.output
        ended = invoke(str(cache), "--out", "a.png")
        assert ended.exit_code == 2
        assert "--data and --out are for --show ID" in ended.output

    def test_the_recipe_in_words(self, cache: Path) -> None:
        text = " ".join(invoke(str(cache)).output.split())
        assert (
            "recipe augment (base.name=pad-crop-flip, base.pad=0.125, base.flip=0.5, strong_views=all" in text
        )
        assert "mix.cutmix_alpha=1" in text
        assert "trivialaugment" not in text


def test_long_names() -> None:
    assert shorten_left("a" * 40) == "a" * 40
    assert shorten_left("folder/" * 10 + "end.png", 20).endswith("end.png")
    assert len(shorten_left("x" * 90, 20)) == 20
