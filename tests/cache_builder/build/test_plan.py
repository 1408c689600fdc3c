"""What is decided, and refused, before the first image."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cache_builder.build.output import check_output
from cache_builder.build.plan import Plan, default_recipe, make_plan
from cache_builder.datasets import ArraySource, LimitedSource, open_source
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.manifest import CodecRequest
from cache_builder.teachers import Preprocessing
from cache_builder.views.recipes import PadCropFlip, Plain, RrcFlip
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.models import small
from tests.cache_builder.photographs import write_folder

HERE = "tests.cache_builder.models"


@pytest.fixture
def plan(photos: Path, tmp_path: Path) -> Any:
    def make(folder: Path | None = None, **changes: object) -> Plan:
        return make_plan(settings_for(tmp_path / "a.zarr", folder or photos, **changes))

    return make


class TestManifest:
    def test_of_the_usual_build(self, plan: Any) -> None:
        made = plan()
        manifest = made.manifest
        assert made.table.names.teacher == tuple(f"class_{label:02d}" for label in range(40))
        assert (manifest.data.samples, manifest.classes) == (80, 40)
        assert manifest.data.matched == "position"
        assert manifest.name == "a"
        assert (manifest.input.size, manifest.teacher.precision) == (16, "fp32")
        assert (manifest.codec.name, manifest.requested.codec.tail_rank) == ("joint-sketch", 12)
        assert (manifest.tiling.views, manifest.tiling.rows) == (3, 32)
        assert manifest.views.recipe.name == "pad-crop-flip"
        assert manifest.cache_id is None

    def test_overrides(self, plan: Any) -> None:
        seen = plan(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), input_size=20).manifest.input
        assert (seen.mean, seen.std, seen.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 20)

    def test_tiles(self, plan: Any) -> None:
        assert plan(tile_rows=None).manifest.tiling.rows == 64
        assert plan(tile_rows=1000).manifest.tiling.rows == 80
        assert plan(views=10).manifest.tiling.views == 8

    @pytest.mark.parametrize(
        ("out", "name"), [("x.zarr", "x"), ("x.zarr/", "x"), ("deep/x", "x"), ("s3://bucket/x.zarr", "x")]
    )
    def test_name_from_out(self, photos: Path, out: str, name: str) -> None:
        assert make_plan(settings_for(out, photos)).manifest.name == name

    @pytest.mark.parametrize("out", [".hidden.zarr", "a b.zarr", ".", "é.zarr", "x\n.zarr"])
    def test_a_name_that_no_server_could_have(self, photos: Path, out: str) -> None:
        with pytest.raises(ConfigError, match="give one with --name"):
            make_plan(settings_for(out, photos))
        assert make_plan(settings_for(out, photos, name="good")).manifest.name == "good"


class TestCodec:
    def test_few_classes_are_all_stored(self, plan: Any, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "few", classes=3)
        codec = plan(folder, tail_rank=None).manifest.codec
        assert (codec.top_k, codec.tail_rank, codec.tail_step) == (3, 0, 0)

    def test_top_k_stops_at_the_classes(self, plan: Any) -> None:
        codec = plan(top_k=100).manifest.codec
        assert (codec.top_k, codec.tail_rank) == (40, 0)

    def test_what_was_asked_for_is_kept(self, plan: Any) -> None:
        requested = plan(bytes_per_view=40, tail_rank=7, value_step=0.1).manifest.requested.codec
        assert requested == CodecRequest(bytes_per_view=40, tail_rank=7, value_step=0.1)

    def test_a_budget_says_nothing_where_every_class_is_stored(self, plan: Any) -> None:
        assert plan(top_k=40, bytes_per_view=40).manifest.requested.codec == CodecRequest(top_k=40)

    @pytest.mark.parametrize("rank", [40, 64])
    def test_rank_beyond_the_classes(self, plan: Any, rank: int) -> None:
        with pytest.raises(ConfigError, match=f"--tail-rank {rank}: the teacher has 40 classes"):
            plan(tail_rank=rank)


class TestRecipes:
    def test_defaults(self, photos: Path) -> None:
        large, small_images = Preprocessing(input_size=224), Preprocessing(input_size=32)
        files = open_source(f"imagefolder:{photos}")
        assert default_recipe(files, large) == RrcFlip()
        assert default_recipe(files, small_images) == PadCropFlip()
        pictures = np.zeros((2, 32, 32, 3), np.uint8)
        small_ones = ArraySource("array", pictures, np.zeros(2, np.int32), ("a",))
        assert default_recipe(small_ones, large) == PadCropFlip()
        assert default_recipe(open_source("digits:train"), large) == PadCropFlip(flip=0)

    def test_plain_has_one_view(self, plan: Any) -> None:
        with pytest.raises(
            ConfigError, match=r"'plain' is deterministic: 2 views would be equal; use --views 1"
        ):
            plan(recipe="plain", views=2)

    def test_plain_crops_as_the_teacher_does(self, plan: Any) -> None:
        digits = make_plan(settings_for(Path("x.zarr"), Path(), data="digits", views=1, recipe="plain",
                                        teacher=f"{HERE}:small", tail_rank=None))  # fmt: skip
        assert digits.replay.recipe == Plain(crop_fraction=1.0)
        assert plan(recipe="plain:crop_fraction=0.5", views=1).replay.recipe == Plain(crop_fraction=0.5)

    def test_unknown(self, plan: Any) -> None:
        with pytest.raises(ConfigError, match="did you mean 'rrc-flip'"):
            plan(recipe="rcc-flip")


class TestClasses:
    def test_another_number(self, plan: Any) -> None:
        with pytest.raises(
            ConfigError, match=r"(?s)60 logits, imagefolder:.* has 40 classes.*--ignore-labels"
        ):
            plan(teacher=f"{HERE}:fixed_60")

    def test_ignore_labels(self, plan: Any) -> None:
        made = plan(teacher=f"{HERE}:fixed_60", ignore_labels=True)
        assert (made.table.labels == -1).all()
        assert not made.has_labels
        assert made.table.names.teacher is None
        assert len(made.table.names.own) == made.manifest.data.own_classes == 40

    def names(self, tmp_path: Path, names: list[str]) -> str:
        path = tmp_path / "named.safetensors"
        card = str({"class_names": names}).replace("'", '"')
        save_file(small(len(names)).state_dict(), path, metadata={"kdcache": card})
        return str(path)

    def test_another_order(self, plan: Any, tmp_path: Path) -> None:
        names = [f"class_{label:02d}" for label in range(40)]
        swapped = [names[1], names[0], *names[2:]]
        made = plan(weights=self.names(tmp_path, swapped))
        assert made.table.names.teacher == tuple(swapped)
        assert made.table.labels.tolist() == np.repeat([1, 0, *range(2, 40)], 2).tolist()
        assert made.manifest.environment["labels"] == "40 classes, matched by name"

    def test_other_names_are_refused_with_three_ways_on(self, plan: Any, tmp_path: Path) -> None:
        names = [f"class_{label:02d}" for label in range(39)] + ["thing"]
        ways = r"(?s)1 of its 40 classes.*'class_39'.*'class_39' here and 'thing' there.*--class-map FILE"
        with pytest.raises(DataError, match=ways + ".*--ignore-labels.*another --teacher"):
            plan(weights=self.names(tmp_path, names))

    def test_more_names_than_logits(self, plan: Any, tmp_path: Path) -> None:
        card = '{"class_names": ["only", "two"]}'
        save_file(small().state_dict(), tmp_path / "a.safetensors", metadata={"kdcache": card})
        with pytest.raises(ConfigError, match="40 logits, its weights name 2 classes"):
            plan(teacher=f"{HERE}:only_16", weights=str(tmp_path / "a.safetensors"))

    def test_a_single_class(self, plan: Any, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "one", classes=1)
        with pytest.raises(ConfigError, match="1 logit per image, expected one for each of two classes"):
            plan(folder, tail_rank=None)

    def test_a_flat_folder(self, plan: Any, tmp_path: Path) -> None:
        Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
        Image.new("RGB", (20, 20)).save(tmp_path / "b.png")
        made = plan(tmp_path)
        assert made.manifest.classes == 40
        assert not made.has_labels


class TestTeacher:
    @pytest.mark.parametrize("size", [15, 17])
    def test_a_size_the_model_refuses(self, plan: Any, size: int) -> None:
        with pytest.raises(ConfigError, match=f"image of {size} x {size} pixels: Wrong image height"):
            plan(teacher=f"{HERE}:only_16", input_size=size)

    def test_too_small_a_size(self, plan: Any) -> None:
        with pytest.raises(ConfigError, match="image of 1 x 1 pixels"):
            plan(input_size=1)

    def test_no_classifier(self, plan: Any) -> None:
        with pytest.raises(ConfigError, match=r"returned \[1, 3, 256\], expected logits of shape"):
            plan(teacher=f"{HERE}:tokens")


class TestWorkers:
    def test_asked_for(self, plan: Any) -> None:
        assert plan(workers=3).workers == 3

    def test_by_itself_never_more_than_cores(self, plan: Any) -> None:
        assert 0 <= plan(workers=None).workers <= max(1, torch.get_num_threads())


class TestLimit:
    def test_the_first_samples(self, photos: Path) -> None:
        whole = open_source(f"imagefolder:{photos}")
        limited = LimitedSource(whole, 7)
        assert len(limited) == 7
        assert list(limited.ids) == list(whole.ids[:7])
        assert limited.labels is not None
        assert limited.labels.tolist() == [0, 0, 1, 1, 2, 2, 3]
        assert limited.class_names == whole.class_names
        assert limited.read(6).digest == whole.read(6).digest
        assert limited.ids is limited.ids

    def test_beyond_the_end(self, photos: Path) -> None:
        assert len(LimitedSource(open_source(f"imagefolder:{photos}"), 1000)) == 80


class TestOutput:
    def test_free_places(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for out in ("new.zarr", "new.zarr/", "deep/er/new.zarr", "empty"):
            check_output(str(tmp_path / out))
        check_output("memory://plan/x.zarr")

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("mine")
        with pytest.raises(ConfigError, match="exists and is not a cache"):
            check_output(str(tmp_path / "x"))
        with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'x'} is not a folder")):
            check_output(str(tmp_path / "x" / "y.zarr"))

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("mine")
        with pytest.raises(ConfigError, match="choose another --out"):
            check_output(str(tmp_path))

    def test_a_place_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Root may write everywhere, so the question itself is answered here.
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        with pytest.raises(ConfigError, match=re.escape(f"{tmp_path} cannot be written to")):
            check_output(str(tmp_path / "new.zarr"))


def test_environment_names_the_libraries(plan: Any) -> None:
    environment = SimpleNamespace(**plan().manifest.environment)
    assert environment.torch == torch.__version__.partition("+")[0] or torch.__version__.startswith(
        environment.torch
    )
    assert environment.device == "cpu"
