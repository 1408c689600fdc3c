"""CIFAR from files in torchvision's own layout, made here, with its MD5 table set to theirs."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from numpy.typing import NDArray

from cache_builder.datasets import open_source
from cache_builder.format.errors import ConfigError, DataError
from tests.cache_builder.photographs import cut

PER_FILE = 6


def planar(first: int) -> NDArray[np.uint8]:
    """[n, 3072], channel after channel, as the files have it."""
    images = np.stack([cut(first + index, 32, 32) for index in range(PER_FILE)])
    return images.transpose(0, 3, 1, 2).reshape(PER_FILE, -1)


def write(path: Path, content: dict[str, Any]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    kind = torchvision.datasets.CIFAR10
    folder = tmp_path / kind.base_folder

    def batch(name: str, first: int) -> list[str]:
        labels = [(first + index) % 10 for index in range(PER_FILE)]
        return [name, write(folder / name, {"data": planar(first), "labels": labels})]

    monkeypatch.setattr(kind, "train_list", [batch(f"data_batch_{i}", 10 * i) for i in range(1, 6)])
    monkeypatch.setattr(kind, "test_list", [batch("test_batch", 90)])
    names = {"label_names": [f"thing {i}" for i in range(10)]}
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": write(folder / "batches.meta", names)})
    return tmp_path


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    kind = torchvision.datasets.CIFAR100
    folder = tmp_path / kind.base_folder

    def batch(name: str, first: int) -> list[str]:
        labels = [(first + index) % 100 for index in range(PER_FILE)]
        content = {"data": planar(first), "fine_labels": labels, "coarse_labels": [0] * PER_FILE}
        return [name, write(folder / name, content)]

    monkeypatch.setattr(kind, "train_list", [batch("train", 30)])
    monkeypatch.setattr(kind, "test_list", [batch("test", 60)])
    names = {"fine_label_names": [f"thing {i}" for i in range(100)]}
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": write(folder / "meta", names)})
    return tmp_path


@pytest.mark.parametrize("suffix", ["", ":train"])
def test_cifar10_train(cifar10: Path, suffix: str) -> None:
    source = open_source(f"cifar10:{cifar10}{suffix}")
    assert len(source) == 5 * PER_FILE
    assert list(source.ids) == [str(row) for row in range(30)]
    assert source.labels is not None
    assert source.labels.tolist()[:8] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert source.class_names == tuple(f"thing {i}" for i in range(10))
    np.testing.assert_array_equal(source.read(8).value.permute(1, 2, 0).numpy(), cut(22, 32, 32))


def test_cifar10_test(cifar10: Path) -> None:
    source = open_source(f"cifar10:{cifar10}:test")
    assert len(source) == PER_FILE
    np.testing.assert_array_equal(source.read(0).value.permute(1, 2, 0).numpy(), cut(90, 32, 32))


def test_cifar100_has_the_fine_labels(cifar100: Path) -> None:
    source = open_source(f"cifar100:{cifar100}")
    assert source.labels is not None
    assert source.labels.tolist() == [30, 31, 32, 33, 34, 35]
    assert len(source.class_names or ()) == 100
    assert len(open_source(f"cifar100:{cifar100}:test")) == PER_FILE


def test_a_damaged_file_is_not_unpickled(cifar10: Path) -> None:
    with (cifar10 / "cifar-10-batches-py" / "data_batch_3").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="intact"):
        open_source(f"cifar10:{cifar10}")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar-100-python.*downloads nothing.*cifar-100-python\.tar\.gz"):
        open_source(f"cifar100:{tmp_path}")


@pytest.mark.parametrize("spec", ["cifar10", "cifar10:", "cifar100::test"])
def test_a_path_is_needed(spec: str) -> None:
    with pytest.raises(ConfigError, match="PATH"):
        open_source(spec)
