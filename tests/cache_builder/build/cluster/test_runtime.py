"""What is said where Ray is not installed, or cannot do what was asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cache_builder.build.cluster.runtime import find_ray
from cache_builder.build.launch import Launch
from cache_builder.build.pipeline import build
from cache_builder.format.errors import ConfigError
from tests.cache_builder.conftest import settings_for


def test_without_ray(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'kdcache\[ray\]'"):
        find_ray()
    with pytest.raises(ConfigError, match=r"pip install 'kdcache\[ray\]'"):
        build(settings_for(tmp_path / "a.zarr", photos, engine="ray"))
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_of_this_machine_is_none_of_the_cluster(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(ConfigError, match="give auto, cuda or cpu"):
        build(settings_for(tmp_path / "a.zarr", photos, engine="ray", device="cuda:1"))


def test_under_torchrun(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(ConfigError, match="run it without torchrun"):
        build(settings_for(tmp_path / "a.zarr", photos, engine="ray"), launch=Launch(1, 2, name="x"))


def test_options_of_a_cluster_need_one(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(ConfigError, match="--address is for --engine ray"):
        build(settings_for(tmp_path / "a.zarr", photos, address="127.0.0.1:6379"))
    with pytest.raises(ConfigError, match="--ray-teachers is for --engine ray"):
        build(settings_for(tmp_path / "a.zarr", photos, ray_teachers=2))
