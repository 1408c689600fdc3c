"""Builds whose recipes have strong views: stored is what the teacher says of the view rendered here."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cache_builder.build.forward import TeacherForward
from cache_builder.build.mixed_pairs import ImagesRead
from cache_builder.build.plan import based_on
from cache_builder.build.rendering import RenderTask, ViewRenderer, in_pairs
from cache_builder.datasets import DATASETS, ImageFolder, ImageSample, LimitedSource, Sample, open_source
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.layout import Tile
from cache_builder.format.reader import Cache, open_cache
from cache_builder.views import RECIPES, parse_recipe, recipe_from
from cache_builder.views.pairing import Pairing
from cache_builder.views.recipes import Mixup, PadCropFlip, RrcFlip
from cache_builder.views.replay import Replay
from tests.cache_builder.conftest import Build
from tests.cache_builder.models import small
from tests.cache_builder.trees import logits, objects
from tests.cache_builder.views import by_hand

STRONG = [name for name, kind in RECIPES.items() if kind().is_strong(1)]
EVERYTHING = (
    "augment:randaugment.num_ops=1,jitter.hue=0.1,erase.probability=0.5,mix.mixup_alpha=1,mix.cutmix_alpha=1"
)


def differs_from_live(path: Path, data: str, classes: int, limit: int | None = None) -> float:
    """Largest difference between stored logits and the live teacher's on views rendered by hand, in spans."""
    cache = open_cache(path)
    manifest, source = cache.manifest, open_source(data)
    if limit:
        source = LimitedSource(source, limit)  # type: ignore[assignment]
    seen_by, recipe = manifest.input, recipe_from(manifest.views.recipe)
    forward = TeacherForward(small(classes).eval(), seen_by.mean, seen_by.std, torch.device("cpu"), "fp32")
    worst = 0.0
    for view in range(manifest.views.count):
        rows = [row for row in range(len(source)) if row not in manifest.invalid_rows]
        seen = [
            by_hand.rendered(
                recipe, manifest.views.seed, view, row, seen_by.size, len(source),
                lambda wanted: source.read(wanted).value, manifest.invalid_rows,
            )
            for row in rows
        ]  # fmt: skip
        live, stored = forward.logits(torch.stack(seen)).numpy(), logits(cache, view)[rows]
        spans = live.max(axis=1) - live.min(axis=1)
        worst = max(worst, float((np.abs(stored - live).max(axis=1) / spans).max()))
    return worst


@pytest.mark.parametrize("recipe", [*STRONG, EVERYTHING, "mixup:strong_views=odd"])
def test_records_are_the_live_teachers(run_build: Build, tmp_path: Path, recipe: str) -> None:
    run_build(
        data="digits:train", limit=61, recipe=recipe, views=4, tile_rows=25, tail_rank=None, batch_size=10
    )
    # Every class is stored, in 255 steps of the span.
    assert differs_from_live(tmp_path / "cache.zarr", "digits:train", 10, 61) < 1 / 400


def test_many_views_in_two_groups(run_build: Build, tmp_path: Path) -> None:
    run_build(data="digits:train", limit=24, recipe="mixup:alpha=1", views=11, tail_rank=None)
    assert differs_from_live(tmp_path / "cache.zarr", "digits:train", 10, 24) < 1 / 400


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_never_change_a_byte(run_build: Build, tmp_path: Path, workers: int) -> None:
    for name, count in (("a", 0), ("b", workers)):
        run_build(out=tmp_path / f"{name}.zarr", recipe=EVERYTHING, workers=count, name="same", batch_size=8)
    kept = [objects(tmp_path / f"{name}.zarr", "records", "samples", "probe", "commits") for name in "ab"]
    assert kept[0] == kept[1]


def test_ordinary_views_are_those_of_the_base(run_build: Build, tmp_path: Path) -> None:
    for name, recipe in (("base", "rrc-flip"), ("mixed", "mixup:base=rrc-flip,strong_views=odd")):
        run_build(out=tmp_path / f"{name}.zarr", recipe=recipe, top_k=40, tail_rank=None)
    base, mixed = (open_cache(tmp_path / f"{name}.zarr") for name in ("base", "mixed"))
    for view, same in ((0, True), (1, False), (2, True)):
        assert np.allclose(logits(base, view), logits(mixed, view), atol=1e-3) == same


class TestUnreadable:
    def test_partners_are_not_mixed(self, run_build: Build, own_photos: Path, tmp_path: Path) -> None:
        ids = open_source(f"imagefolder:{own_photos}").ids
        for row in (9, 40, 41):
            (own_photos / ids[row]).write_bytes(b"")
        run_build(
            folder=own_photos, recipe="mixup:alpha=4", on_error="skip", top_k=40, tail_rank=None, batch_size=6
        )
        cache: Cache = open_cache(tmp_path / "cache.zarr")
        assert cache.manifest.invalid_rows == (9, 40, 41)
        for view in range(3):
            assert np.flatnonzero(np.isnan(logits(cache, view)).all(axis=1)).tolist() == [9, 40, 41]
        assert differs_from_live(tmp_path / "cache.zarr", f"imagefolder:{own_photos}", 40) < 1 / 400


class Changing(ImageFolder):
    """Row 3 is another picture every time it is read after the first; row 5 is there every other time."""

    what = 3

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.times = 0

    def read(self, index: int) -> ImageSample:
        sample = super().read(index)
        if index != self.what:
            return sample
        self.times += 1
        if index == 5 and self.times % 2:
            raise DataError("row 5 is away")
        return Sample(sample.value, sample.digest + self.times)


class TestChangedPartners:
    @pytest.mark.parametrize("row", [3, 5])
    def test_are_told(self, run_build: Build, monkeypatch: pytest.MonkeyPatch, row: int) -> None:
        """Nothing but the digests could tell: the records would be of a picture that nobody has any more."""
        monkeypatch.setattr(Changing, "what", row)
        monkeypatch.setitem(DATASETS, "imagefolder", Changing)
        with pytest.raises(
            DataError, match=r"1 sample\(s\) of .* changed, or could be read at one time only"
        ):
            run_build(recipe="mixup", top_k=40, tail_rank=None, batch_size=3, on_error="skip")

    def test_also_between_runs(self, run_build: Build, own_photos: Path, tmp_path: Path) -> None:
        """Rows 0 to 31 were recorded before; later rows are mixed with some of them."""
        build = {"folder": own_photos, "recipe": "mixup", "top_k": 40, "tail_rank": None, "batch_size": 6}
        run_build(**build)
        out = tmp_path / "cache.zarr"
        for commit in sorted((out / "commits").glob("g*"))[1:]:
            commit.unlink()
        ids = open_source(f"imagefolder:{own_photos}").ids
        partner = next(
            row for row in Pairing(5, 1, 80).partners(np.arange(32, 80)).tolist() if row < 32 and row > 0
        )
        Image.new("RGB", (40, 40)).save(own_photos / ids[partner])
        with pytest.raises(DataError, match=f"while others were mixed with them: {ids[partner]}"):
            run_build(**build)

    def test_notes(self) -> None:
        read = ImagesRead(5)
        assert read.note({0: 7, 3: 0}) == []
        assert read.note({0: 7, 3: 0, 4: 1}) == []
        assert read.note({3: 9, 0: 8, 4: 1}) == [3, 0]
        assert read.note_all(np.arange(2), np.array([8, 1], np.uint64)) == []


class Counting(ImageFolder):
    """Keeps book of what is read."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.rows: list[int] = []

    def read(self, index: int) -> ImageSample:
        self.rows.append(index)
        return super().read(index)


def replay(text: str, samples: int) -> Replay:
    return Replay(parse_recipe(text), 5, 2, samples, 8, "bilinear")


class TestOrder:
    def test_partners_stand_side_by_side(self) -> None:
        tile = Tile(0, 1, 0, 2, 20, 60)
        order = in_pairs(replay("mixup", 70), tile)
        assert sorted(order) == list(range(20, 60))
        partners = Pairing(5, 1, 70).partners(np.arange(70))
        inside = [row for row in order if partners[row] in tile.rows and partners[row] != row]
        apart = [abs(order.index(row) - order.index(int(partners[row]))) for row in inside]
        assert set(apart) == {1}
        assert len(inside) > 10

    @pytest.mark.parametrize("tile", [Tile(0, 0, 0, 1, 0, 30), Tile(1, 0, 8, 16, 0, 30)], ids=str)
    def test_ascending_where_nothing_is_mixed(self, tile: Tile) -> None:
        assert in_pairs(replay("rrc-flip", 70), tile) == list(range(30))
        assert in_pairs(replay("randaugment", 70), tile) == list(range(30))

    def test_a_pair_in_one_batch_is_read_once(self, photos: Path) -> None:
        source = Counting(str(photos))
        renderer = ViewRenderer(source, replay("mixup", 80))
        order = in_pairs(renderer.replay, Tile(0, 0, 0, 2, 0, 80))
        for first, second in list(pairwise(order))[::2][:5]:
            source.rows.clear()
            items = renderer.__getitems__([RenderTask(row, 0, 2) for row in (first, second)])
            assert source.rows == [first, second]
            assert [item[0] for item in items] == [first, second]
            assert all(item[2].shape == (2, 3, 8, 8) for item in items)


class TestPlan:
    def test_the_usual_crops_of_the_data(self) -> None:
        usual = PadCropFlip(flip=0)
        assert based_on(parse_recipe("mixup"), usual) == Mixup(base=usual)
        assert based_on(parse_recipe("mixup:base=rrc-flip"), usual) == Mixup()
        assert based_on(parse_recipe("rrc-erase"), usual) == parse_recipe("rrc-erase")
        assert based_on(RrcFlip(), usual) == RrcFlip()

    @pytest.mark.parametrize("recipe", STRONG)
    def test_one_view_would_hold_nothing_of_it(self, run_build: Build, recipe: str) -> None:
        with pytest.raises(ConfigError, match=rf"'{recipe}' keeps view 0 ordinary .* use --views 2 or more"):
            run_build(recipe=recipe, views=1)

    def test_other_parameters_are_refused_by_name(self, run_build: Build, tmp_path: Path) -> None:
        run_build(recipe="mixup", top_k=40, tail_rank=None)
        wanted = r"views\.recipe\.configuration\.mix\.mixup_alpha: 0\.2 -> 0\.4"
        with pytest.raises(ConfigError, match=wanted):
            run_build(recipe="mixup:alpha=0.4", top_k=40, tail_rank=None)
