"""Each operation against torchvision's own code for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandAugment as TheirRandAugment
from torchvision.transforms.v2 import functional

from cache_builder.views import kernels
from cache_builder.views.mixing import SHARE_UNIT, DrawnMix
from cache_builder.views.operations import OPERATIONS, DrawnOperations
from cache_builder.views.photometric import DrawnJitter
from tests.cache_builder.photographs import cut

VIEW = torch.from_numpy(cut(3, 64, 64)).permute(2, 0, 1).contiguous()
OTHER = torch.from_numpy(cut(5, 64, 64)).permute(2, 0, 1).contiguous()
MAGNITUDES = {"Posterize": [8.0, 6.0, 2.0], "Solarize": [1.0, 0.4, 0.0], "Rotate": [30.0, -17.0, 0.0]}


def operations(*steps: tuple[str, float]) -> DrawnOperations:
    names = [operation.name for operation in OPERATIONS]
    kinds = np.array([[names.index(name) for name, _ in steps]], np.int8)
    return DrawnOperations(kinds, np.array([[magnitude for _, magnitude in steps]]))


def theirs(view: Tensor, name: str, magnitude: float, interpolation: str) -> Tensor:
    """What torchvision's RandAugment does with an operation and a magnitude, translations in pixels."""
    if name.startswith("Translate"):
        magnitude *= view.shape[-1]
    policy = TheirRandAugment()
    mode = InterpolationMode(interpolation)
    changed: Tensor = policy._apply_image_or_video_transform(
        view, name, magnitude, interpolation=mode, fill={torch.Tensor: None, type(view): None}
    )
    return changed


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_every_operation_is_torchvisions(name: str, interpolation: str) -> None:
    for magnitude in MAGNITUDES.get(name, [0.27, -0.15, 0.0]):
        ours = kernels.apply_operations(VIEW, operations((name, magnitude)), 0, interpolation)
        assert torch.equal(ours, theirs(VIEW, name, magnitude, interpolation)), magnitude
        assert ours.dtype == torch.uint8


@pytest.mark.parametrize("name", [each.name for each in OPERATIONS if each.name != "Identity"])
def test_every_operation_does_something(name: str) -> None:
    magnitude = MAGNITUDES.get(name, [0.27, 0.27])[1]
    changed = kernels.apply_operations(VIEW, operations((name, magnitude)), 0, "nearest")
    # Photographs are well exposed already, so automatic contrast finds nothing to do.
    assert name == "AutoContrast" or not torch.equal(changed, VIEW)


def test_operations_follow_each_other() -> None:
    ours = kernels.apply_operations(VIEW, operations(("Rotate", 20.0), ("Solarize", 0.5)), 0, "nearest")
    wanted = functional.solarize(functional.rotate(VIEW, 20.0), threshold=127.5)
    assert torch.equal(ours, wanted)


def test_translations_are_fractions_of_the_view() -> None:
    for view in (VIEW, VIEW[:, :32, :32]):
        moved = kernels.apply_operations(view, operations(("TranslateX", 0.25)), 0, "nearest")
        side = view.shape[-1]
        assert torch.equal(moved[:, :, side // 4 :], view[:, :, : -side // 4])
        assert not moved[:, :, : side // 4].any()


def test_jitter_in_the_drawn_order() -> None:
    drawn = DrawnJitter(np.array([[3, 0, 2, 1]], np.int8), np.array([[1.3, 0.7, 1.2, 0.1]]))
    wanted = functional.adjust_hue(VIEW, 0.1)
    wanted = functional.adjust_brightness(wanted, 1.3)
    wanted = functional.adjust_saturation(wanted, 1.2)
    wanted = functional.adjust_contrast(wanted, 0.7)
    assert torch.equal(kernels.apply_jitter(VIEW, drawn, 0), wanted)
    nothing = DrawnJitter(np.array([[3, 0, 2, 1]], np.int8), np.array([[1.0, 1.0, 1.0, 0.0]]))
    assert kernels.apply_jitter(VIEW, nothing, 0) is VIEW


def test_erased() -> None:
    painted = kernels.erased(VIEW, np.array([0.25, 0.5, 0.75, 1.0]), (1, 2, 3))
    wanted = VIEW.clone()
    wanted[:, 16:48, 32:64] = torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]
    assert torch.equal(painted, wanted)
    assert kernels.erased(VIEW, np.zeros(4), (1, 2, 3)) is VIEW


def mix(share: float, box: tuple[float, ...] | None) -> DrawnMix:
    return DrawnMix(
        np.array([1]),
        np.array([True]),
        np.array([share]),
        np.array([box or (0.0, 0.0, 0.0, 0.0)]),
        np.array([box is not None]),
    )


@pytest.mark.parametrize("share", [0, 1, 20000, 32768, 65535, 65536])
def test_mixup_in_integers(share: int) -> None:
    found = kernels.mixed(VIEW, OTHER, mix(share / SHARE_UNIT, None), 0)
    exact = VIEW.double() * (share / SHARE_UNIT) + OTHER.double() * (1 - share / SHARE_UNIT)
    assert torch.equal(found, torch.floor(exact + 0.5).to(torch.uint8))


def test_both_of_a_pair_together_are_both_pictures() -> None:
    ours, other = (
        kernels.mixed(a, b, mix(20000 / SHARE_UNIT, None), 0) for a, b in ((VIEW, OTHER), (OTHER, VIEW))
    )
    assert ((ours.int() + other.int()) - (VIEW.int() + OTHER.int())).abs().max() <= 1


def test_cutmix() -> None:
    found = kernels.mixed(VIEW, OTHER, mix(0.8125, (0.5, 0.25, 0.75, 1.0)), 0)
    wanted = VIEW.clone()
    wanted[:, 32:48, 16:64] = OTHER[:, 32:48, 16:64]
    assert torch.equal(found, wanted)
