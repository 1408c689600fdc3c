"""Recipes on a command line, in a TOML file and in a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.format.errors import ConfigError
from cache_builder.views import RECIPES, Augment, named, parse_recipe, recipe_from
from cache_builder.views.mixing import Mixing
from cache_builder.views.operations import RandAugment
from cache_builder.views.photometric import ColorJitter, Erasing
from cache_builder.views.recipes import CutMix, Mixup, PadCropFlip, RandAugmented, RrcFlip

WHOLE = """
base = { name = "pad-crop-flip", flip = 0 }
strong_views = "odd"

[randaugment]
magnitude = 12

[jitter]
hue = 0.05

[erase]
probability = 0.5
fill = "mean"

[mix]
mixup_alpha = 0.8
cutmix_alpha = 1
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


class TestCommandLine:
    def test_parameters_find_their_section(self) -> None:
        assert parse_recipe("randaugment:magnitude=12,num_ops=3") == RandAugmented(
            randaugment=RandAugment(magnitude=12, num_ops=3)
        )
        assert parse_recipe("mixup:alpha=0.4") == Mixup(mix=Mixing(mixup_alpha=0.4))
        assert parse_recipe("cutmix:alpha=0.5,probability=0.3") == CutMix(
            mix=Mixing(cutmix_alpha=0.5, probability=0.3)
        )
        assert parse_recipe("mixup:flip=0,min_area=0.25") == Mixup(base=RrcFlip(flip=0, min_area=0.25))
        assert parse_recipe("mixup:pad=0.25,base=pad-crop-flip") == Mixup(base=PadCropFlip(pad=0.25))
        assert parse_recipe("rrc-erase:erase.min_area=0.1,base.min_area=0.5").model_dump() == {
            **RECIPES["rrc-erase"]().model_dump(),
            "erase": Erasing(min_area=0.1).model_dump(),
            "base": {"name": "rrc-flip", "configuration": RrcFlip(min_area=0.5).model_dump()},
        }

    def test_a_part_keeps_the_other_values_of_the_recipe(self) -> None:
        assert parse_recipe("cutmix:mix.mixup_alpha=0.2") == CutMix(
            mix=Mixing(mixup_alpha=0.2, cutmix_alpha=1.0)
        )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "mixup:alpha=-1",
                "mix.mixup_alpha: Input should be greater than or equal to 0; those of mix are",
            ),
            (
                "mixup:x=1",
                "recipe 'mixup': x: Extra inputs are not permitted; its parameters are base, strong",
            ),
            ("randaugment:magnitude=31", "randaugment.magnitude: Input should be less than or equal to 30"),
            ("randaugment:num_ops=1.5", "randaugment.num_ops: Input should be a valid integer"),
            (
                "mixup:erase.foo=1",
                "erase.foo: Extra inputs are not permitted; those of erase are probability",
            ),
            ("mixup:base.foo=1", "base.foo: Extra inputs are not permitted; those of base are min_area"),
            ("augment:base=plain", "base: expected rrc-flip or pad-crop-flip, found 'plain'"),
            ("augment:mix.probability=1", "mix: mixup_alpha and cutmix_alpha are both 0"),
            ("trivialaugment:randaugment.num_ops=1", "exclude each other"),
            ("rrc-erase:min_area=0.1", r"min_area could be erase\.min_area or base\.min_area: write which"),
            ("rrc-erase:erase.min_area=0.5", r"erase: min_area = 0.5 is more than max_area = 0.33"),
            ("color-jitter:hue=0.6", "jitter.hue: Input should be less than or equal to 0.5"),
            ("mixup:strong_views=even", "strong_views: Input should be 'all' or 'odd'"),
            ("cutmx", "unknown recipe 'cutmx': did you mean 'cutmix'"),
        ],
    )
    def test_refused(self, text: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            parse_recipe(text)


class TestFile:
    def test_everything(self, tmp_path: Path) -> None:
        assert parse_recipe(written(tmp_path, WHOLE)) == Augment(
            base=PadCropFlip(flip=0),
            strong_views="odd",
            randaugment=RandAugment(magnitude=12),
            jitter=ColorJitter(hue=0.05),
            erase=Erasing(probability=0.5, fill="mean"),
            mix=Mixing(mixup_alpha=0.8, cutmix_alpha=1),
        )

    def test_a_named_recipe_and_a_base_by_name(self, tmp_path: Path) -> None:
        text = 'name = "cutmix"\nbase = "pad-crop-flip"\n[mix]\nprobability = 0.5\n'
        wanted = CutMix(base=PadCropFlip(), mix=Mixing(cutmix_alpha=1, probability=0.5))
        assert parse_recipe(written(tmp_path, text)) == wanted
        assert parse_recipe(written(tmp_path, 'name = "rrc-flip"\nflip = 0\n')) == RrcFlip(flip=0)

    def test_the_manifest_has_it_all(self, tmp_path: Path) -> None:
        """The file may be gone: what is stored is complete, every default written out."""
        recipe = parse_recipe(written(tmp_path, WHOLE))
        stored = named(recipe)
        (tmp_path / "mine.toml").unlink()
        assert recipe_from(stored) == recipe
        assert stored.name == "augment"
        assert stored.configuration["erase"]["max_area"] == 0.33  # type: ignore[index, call-overload]
        assert stored.configuration["trivialaugment"] is None

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[randaugmnt]\n", "randaugmnt: Extra inputs are not permitted; its parameters are base"),
            ("[randaugment]\nmagnitude = 99\n", "randaugment.magnitude: Input should be less than"),
            ("[mix]\nalpha = 1\n", "mix.alpha: Extra inputs are not permitted; those of mix are mixup_alpha"),
            ("[base]\nflip = 0\n", "base: expected rrc-flip or pad-crop-flip, found None"),
            ('name = "mixxup"\n', "unknown recipe 'mixxup': did you mean 'mixup'"),
            ("name = 3\n", "name: expected one of"),
            ("[mix\n", "is not TOML"),
            ("jitter = 1\n", "jitter: Input should be a valid dictionary"),
        ],
    )
    def test_refused_with_file_and_key(self, tmp_path: Path, text: str, said: str) -> None:
        path = written(tmp_path, text)
        with pytest.raises(ConfigError) as caught:
            parse_recipe(path)
        assert said in str(caught.value)
        assert f"recipe file {path}" in str(caught.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
            parse_recipe(str(tmp_path / "none.toml"))
        (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="is not TOML"):
            parse_recipe(str(tmp_path / "binary.toml"))
