"""Several teachers as one, against a log-mean-exp by NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache_builder.build.forward import TeacherForward
from cache_builder.build.plan import Plan, make_plan
from cache_builder.format.errors import ConfigError
from cache_builder.format.reader import open_cache
from cache_builder.teachers import Preprocessing, Teacher, combined
from cache_builder.teachers.ensemble import Ensemble, ensemble_digest
from cache_builder.teachers.teacher import freeze
from cache_builder.tensors.normalise import normalise
from tests.cache_builder.conftest import Build, settings_for
from tests.cache_builder.models import SmallNet
from tests.cache_builder.trees import logits

HERE = "tests.cache_builder.models"
CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FIRST = Preprocessing(16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
OTHER = Preprocessing(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.25), interpolation="bicubic")


def member(seed: int, seen: Preprocessing = FIRST, classes: int = 12, names: Any = None) -> Teacher:
    torch.manual_seed(seed)
    return freeze(f"m{seed}", SmallNet(classes), f"weights {seed}", seen, names)


def log_mean_exp(members: list[NDArray[np.floating]]) -> NDArray[np.float64]:
    """log of the mean of the softmax outputs, in float64."""
    log_p = [
        one
        - np.log(np.exp(one - one.max(1, keepdims=True)).sum(1, keepdims=True))
        - one.max(1, keepdims=True)
        for one in np.asarray(members, np.float64)
    ]
    peak = np.max(log_p, axis=0)
    return np.asarray(peak + np.log(np.mean([np.exp(one - peak) for one in log_p], axis=0)))


def answer(teacher: Teacher, precision: Any = "fp32") -> Tensor:
    seen = teacher.preprocessing
    return TeacherForward(teacher.model, seen.mean, seen.std, CPU, precision).logits(IMAGES)


class TestMean:
    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_against_numpy_each_member_in_its_own_normalisation(self, count: int) -> None:
        teachers = [member(seed, OTHER if seed % 2 else FIRST) for seed in range(count)]
        own = [
            one.model(normalise(IMAGES, one.preprocessing.mean, one.preprocessing.std)).numpy()
            for one in teachers
        ]
        np.testing.assert_allclose(
            answer(combined(teachers)).numpy(), log_mean_exp(own), rtol=1e-4, atol=1e-4
        )

    def test_it_is_the_mean_of_the_probabilities(self) -> None:
        teachers = [member(0), member(1, OTHER)]
        wanted = torch.stack([answer(teacher).softmax(1) for teacher in teachers]).mean(0)
        torch.testing.assert_close(answer(combined(teachers)).softmax(1), wanted, rtol=1e-4, atol=1e-6)

    def test_extreme_logits_stay_finite(self) -> None:
        """A mean of probabilities, taken naively, would be log 0."""
        one, other = torch.tensor([[300.0, 0.0, -300.0]]), torch.tensor([[-300.0, 200.0, -250.0]])
        given = iter([one, other])

        class Fixed(nn.Module):
            def forward(self, pixels: Tensor) -> Tensor:
                return next(given)

        found = Ensemble([Fixed(), Fixed()], ["a", "b"])(torch.zeros(1))
        np.testing.assert_allclose(found.numpy(), log_mean_exp([one.numpy(), other.numpy()]), rtol=1e-6)
        assert found.isfinite().all()

    def test_float32_also_under_autocast(self) -> None:
        teachers = [member(0), member(1)]
        found = answer(combined(teachers), "bf16")
        assert found.dtype == torch.float32
        own = [answer(one, "bf16").float().numpy() for one in teachers]
        np.testing.assert_allclose(found.numpy(), log_mean_exp(own), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.logsumexp(1).numpy(), 0, atol=1e-5)

    def test_one_of_a_kind_twice_is_that_one(self) -> None:
        single = answer(member(3)).log_softmax(1)
        torch.testing.assert_close(answer(combined([member(3), member(3)])), single)


class TestCombined:
    def test_a_single_teacher_is_itself(self) -> None:
        teacher = member(0)
        assert combined([teacher]) is teacher

    def test_what_it_is_called(self) -> None:
        teachers = [member(0), member(1, OTHER)]
        both = combined(teachers)
        assert (both.spec, both.weights) == ("m0+m1", "weights 0 + weights 1")
        assert both.preprocessing == FIRST
        assert both.digest == ensemble_digest(teachers)
        assert not any(module.training for module in both.model.modules())

    def test_the_digest_follows_from_weights_order_and_normalisation(self) -> None:
        zero, one = member(0), member(1)
        digests = {
            ensemble_digest(members)
            for members in (
                [zero, one],
                [one, zero],
                [zero, member(2)],
                [zero, one, one],
                [zero, member(1, OTHER)],
            )
        }
        assert len(digests) == 5
        assert ensemble_digest([zero, one]) == ensemble_digest([member(0), member(1)])

    def test_different_sizes(self) -> None:
        large = replace(FIRST, input_size=24)
        with pytest.raises(ConfigError, match=r"different sides in pixels: m0 16, m1 24; .*--input-size"):
            combined([member(0), member(1, large)])

    def test_different_numbers_of_classes(self) -> None:
        both = combined([member(0), member(1, classes=9)])
        with pytest.raises(
            ConfigError, match="same classes: m0 gives 12 for a picture; m1 gives 9 for a picture"
        ):
            answer(both)

    def test_different_declared_numbers_of_classes_are_refused_before_a_picture(self) -> None:
        twelve, nine = replace(member(0), outputs={"logits": 12}), replace(member(1), outputs={"logits": 9})
        with pytest.raises(ConfigError, match="same classes: m0 gives 12 for a picture; m1 gives 9"):
            combined([twelve, nine])
        assert combined([twelve, twelve]).outputs == {"logits": 12}
        assert combined([twelve, member(2)]).outputs == {}

    def test_members_that_give_no_logits(self) -> None:
        class Pair(nn.Module):
            def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
                return pixels, pixels

        pair = freeze("pair", Pair(), "none", FIRST, None)
        with pytest.raises(ConfigError, match=r"pair returned tuple, expected logits"):
            answer(combined([member(0), pair]))

    def test_class_names_in_another_order(self) -> None:
        names = tuple("abcdefghijkl")
        with pytest.raises(ConfigError, match="m0 and m1 have the same class names in another order"):
            combined([member(0, names=names), member(1, names=names[::-1])])
        assert combined([member(0), member(1, names=names)]).class_names == names


class TestBuild:
    @pytest.fixture
    def plan(self, photos: Path, tmp_path: Path) -> Any:
        def make(**changes: object) -> Plan:
            return make_plan(settings_for(tmp_path / "a.zarr", photos, **changes))

        return make

    def test_random_members_of_a_kind_differ(self, plan: Any) -> None:
        teacher = plan(teacher=(f"{HERE}:SmallNet",) * 2, weights=("random", "random")).manifest.teacher
        assert teacher.spec == f"{HERE}:SmallNet+{HERE}:SmallNet"
        assert teacher.weights == "random (seed 5) + random (seed 6)"

    @pytest.mark.parametrize("weights", [("random",), ("random",) * 3, "random"])
    def test_weights_once_for_each(self, plan: Any, weights: object) -> None:
        with pytest.raises(ConfigError, match=r"given \d time\(s\) for 2 teacher\(s\)"):
            plan(teacher=(f"{HERE}:small", f"{HERE}:SmallNet"), weights=weights)

    def test_different_classes(self, plan: Any) -> None:
        with pytest.raises(
            ConfigError, match=f"{HERE}:small gives 40 for a picture; {HERE}:fixed_60 gives 60"
        ):
            plan(teacher=(f"{HERE}:small", f"{HERE}:fixed_60"))

    def test_a_size_for_all(self, plan: Any) -> None:
        pytest.importorskip("timm")
        both, random = (f"{HERE}:small", "timm:test_vit"), ("random", "random")
        with pytest.raises(ConfigError, match=r"models:small 224, timm:test_vit 160; choose one"):
            plan(teacher=both, weights=random, input_size=None)
        assert plan(teacher=both, weights=random, input_size=64).manifest.input.size == 64

    def test_the_cache_holds_the_mean(self, run_build: Build, tmp_path: Path) -> None:
        """All classes stored, so that what is read is what the members said, but for 8 bits."""
        names = (f"{HERE}:small", f"{HERE}:other")
        own = []
        for index, name in enumerate(names):
            run_build(out=tmp_path / f"{index}.zarr", teacher=name, top_k=40)
            own.append(logits(open_cache(tmp_path / f"{index}.zarr"), 1))
        run_build(out=tmp_path / "both.zarr", teacher=names, top_k=40)
        found = logits(open_cache(tmp_path / "both.zarr"), 1)
        wanted = log_mean_exp(own)
        rounding = max(np.ptp(one, axis=1).max() for one in [*own, wanted]) / 255
        np.testing.assert_allclose(found, wanted, atol=rounding)
        assert np.abs(found - log_mean_exp(own[:1])).max() > 10 * rounding

    def test_other_members_are_other_settings(self, run_build: Build) -> None:
        run_build(teacher=(f"{HERE}:small", f"{HERE}:constant"))
        assert run_build(teacher=(f"{HERE}:small", f"{HERE}:constant")).was_finished
        with pytest.raises(ConfigError, match=r"teacher\.spec: .* -> "):
            run_build(teacher=(f"{HERE}:constant", f"{HERE}:small"))
