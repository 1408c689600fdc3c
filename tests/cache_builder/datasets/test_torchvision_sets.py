"""torchvision's own data sets, from files in its layouts made here."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import xxhash
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from cache_builder.datasets import open_source, torchvision_sets
from cache_builder.datasets.torchvision_sets import TorchvisionSource
from cache_builder.format.errors import ConfigError, DataError
from tests.cache_builder.datasets.made import CLASSES, COUNT, LABELS, eurosat, imagefolder, jpeg
from tests.cache_builder.photographs import cut

GREY = np.stack([cut(index, 28, 28)[..., 0] for index in range(6)])


def idx(array: NDArray[np.uint8]) -> bytes:
    """MNIST's own file format."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(root: Path, name: str = "MNIST") -> Path:
    """Six digits for training, four to test on."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 6), ("t10k", 4)):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(GREY[:count]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
    return root


def opened(spec: str) -> TorchvisionSource:
    source = open_source(f"torchvision:{spec}")
    assert isinstance(source, TorchvisionSource)
    assert source.labels is not None
    assert source.labels.dtype == np.int32
    assert len(source.ids) == len(source.labels) == len(source)
    return source


class TestMnist:
    def test_grey_pictures_become_rgb(self, tmp_path: Path) -> None:
        source = opened(f"MNIST:{mnist(tmp_path)}")
        assert list(source.ids) == list("012345")
        assert source.labels is not None
        assert source.labels.tolist() == list(range(6))
        assert source.class_names == tuple(torchvision.datasets.MNIST.classes)
        sample = source.read(4)
        pixels = np.repeat(GREY[4][..., None], 3, axis=2)
        np.testing.assert_array_equal(sample.value.permute(1, 2, 0).numpy(), pixels)
        assert sample.digest == xxhash.xxh64_intdigest(pixels.tobytes())
        assert (source.side, source.mirrors, source.reads_files) == (28, False, False)

    def test_parts(self, tmp_path: Path) -> None:
        mnist(tmp_path)
        assert len(opened(f"MNIST:{tmp_path}:train")) == 6
        assert len(opened(f"MNIST:{tmp_path}:test")) == 4
        with pytest.raises(ConfigError, match="has the parts 'train' and 'test', not 'val'"):
            open_source(f"torchvision:MNIST:{tmp_path}:val")

    def test_writing_is_not_mirrored_and_clothes_are(self, tmp_path: Path) -> None:
        assert opened(f"FashionMNIST:{mnist(tmp_path, 'FashionMNIST')}").mirrors

    def test_a_split_and_a_part(self, tmp_path: Path) -> None:
        """EMNIST takes ``split``, and ``train`` through its base class."""
        folder = tmp_path / "EMNIST" / "raw"
        folder.mkdir(parents=True)
        for part, count in (("train", 6), ("test", 4)):
            start = folder / f"emnist-digits-{part}"
            Path(f"{start}-images-idx3-ubyte").write_bytes(idx(GREY[:count]))
            Path(f"{start}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
        assert len(opened(f"EMNIST:{tmp_path}:test?split=digits")) == 4
        with pytest.raises(ConfigError, match=r"EMNIST says: .*split"):
            open_source(f"torchvision:EMNIST:{tmp_path}")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"it looked for .*MNIST/raw and says: Dataset not found"
        ) as caught:
            open_source(f"torchvision:MNIST:{tmp_path}")
        assert "download=True" not in str(caught.value)

    def test_damaged(self, tmp_path: Path) -> None:
        folder = mnist(tmp_path) / "MNIST" / "raw"
        (folder / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03" + b"\x00" * 8)
        with pytest.raises((DataError, ConfigError), match="torchvision:MNIST"):
            open_source(f"torchvision:MNIST:{tmp_path}")


class TestFolders:
    def test_eurosat(self, tmp_path: Path) -> None:
        source = opened(eurosat(tmp_path).removeprefix("torchvision:"))
        assert source.labels is not None
        assert source.labels.tolist() == LABELS
        assert source.class_names == CLASSES
        assert (source.side, source.mirrors, source.reads_files) == (None, True, True)
        image = np.asarray(Image.open(tmp_path / "eurosat" / "2750" / "bee" / "0006.jpg"))
        np.testing.assert_array_equal(source.read(6).value.permute(1, 2, 0).numpy(), image)
        with pytest.raises(ConfigError, match="EuroSAT has no splits: leave 'train' out"):
            open_source(f"torchvision:EuroSAT:{tmp_path}:train")

    def test_country211(self, tmp_path: Path) -> None:
        imagefolder(tmp_path / "country211" / "valid")
        assert len(opened(f"Country211:{tmp_path}:valid")) == COUNT
        with pytest.raises(ConfigError, match="Country211 says: Unknown value 'val' for argument split"):
            open_source(f"torchvision:Country211:{tmp_path}:val")

    def test_an_image_that_is_damaged_or_gone(self, tmp_path: Path) -> None:
        spec = eurosat(tmp_path)
        source = open_source(spec)
        bee = tmp_path / "eurosat" / "2750" / "bee"
        (bee / "0005.jpg").write_bytes(jpeg(5)[:300])
        (bee / "0006.jpg").unlink()
        for row in (5, 6):
            with pytest.raises(DataError, match=f"cannot read image {row} of torchvision:EuroSAT"):
                source.read(row)

    def test_missing_files_are_named(self, tmp_path: Path) -> None:
        for name, place in (
            ("EuroSAT", "eurosat"),
            ("Food101", "food-101"),
            ("Flowers102", "flowers-102"),
            ("OxfordIIITPet", "oxford-iiit-pet"),
            ("FGVCAircraft", "fgvc-aircraft"),
            ("DTD", "dtd"),
            ("GTSRB", "gtsrb"),
            ("CIFAR10", "cifar-10-batches-py"),
            ("STL10", "stl10_binary"),
            ("SVHN", "train_32x32.mat"),
        ):
            with pytest.raises(
                DataError, match=rf"torchvision's {name} are not there; it looked for .*{place}"
            ):
                open_source(f"torchvision:{name}:{tmp_path}")


class TestPickledArrays:
    def test_cifar_is_the_same_as_by_its_own_kind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = torchvision.datasets.CIFAR10
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        images = np.stack([cut(index, 32, 32) for index in range(5)])
        planar = images.transpose(0, 3, 1, 2).reshape(5, -1)
        (folder / "test_batch").write_bytes(pickle.dumps({"data": planar, "labels": [3, 1, 4, 1, 5]}))
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
        monkeypatch.setattr(kind, "train_list", [])
        monkeypatch.setattr(kind, "test_list", [["test_batch", None]])
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": None})
        source, own = opened(f"cifar10:{tmp_path}:test"), open_source(f"cifar10:{tmp_path}:test")
        assert source.labels is not None
        assert source.labels.tolist() == [3, 1, 4, 1, 5]
        assert (source.class_names, source.ids) == (own.class_names, own.ids)
        assert (source.side, source.mirrors, source.reads_files) == (own.side, own.mirrors, own.reads_files)
        for row in range(5):
            assert source.read(row).digest == own.read(row).digest
            assert torch.equal(source.read(row).value, own.read(row).value)

    def test_svhn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        images = np.stack([cut(index, 32, 32) for index in range(4)], axis=-1)
        savemat(tmp_path / "test_32x32.mat", {"X": images, "y": np.array([[1], [10], [3], [2]])})
        monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5: True)
        source = opened(f"SVHN:{tmp_path}:test")
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0, 3, 2]
        assert source.class_names == ("0", "1", "2", "3")
        np.testing.assert_array_equal(source.read(2).value.permute(1, 2, 0).numpy(), cut(2, 32, 32))


class TestLabels:
    def test_of_a_hidden_list_without_decoding(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        base = tmp_path / "dtd" / "dtd"
        (base / "labels").mkdir(parents=True)
        for row in range(COUNT):
            path = base / "images" / CLASSES[LABELS[row]] / f"{row}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(row))
        names = [f"{CLASSES[LABELS[row]]}/{row}.jpg\n" for row in range(COUNT)]
        (base / "labels" / "train2.txt").write_text("".join(names))
        decoded: list[int] = []
        item = torchvision.datasets.DTD.__getitem__
        monkeypatch.setattr(
            torchvision.datasets.DTD,
            "__getitem__",
            lambda self, index: decoded.append(index) or item(self, index),
        )
        source = opened(f"DTD:{tmp_path}:train?partition=2")
        assert source.labels is not None
        assert source.labels.tolist() == LABELS
        assert source.class_names == CLASSES
        assert decoded == [0]

    def test_pairs(self, tmp_path: Path) -> None:
        for label in range(2):
            folder = tmp_path / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}"
            folder.mkdir(parents=True)
            for row in range(2):
                Image.fromarray(cut(label + row, 20, 22)).save(folder / f"{row}.ppm")
        source = opened(f"GTSRB:{tmp_path}")
        assert source.labels is not None
        assert source.labels.tolist() == [0, 0, 1, 1]
        assert source.class_names == ("0", "1")
        assert not source.mirrors

    def test_of_items_where_nothing_else_has_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torchvision_sets, "_kept_labels", lambda data: iter(()))
        spec = eurosat(tmp_path)
        assert opened(spec.removeprefix("torchvision:")).labels.tolist() == LABELS  # type: ignore[union-attr]
        (tmp_path / "eurosat" / "2750" / "bee" / "0005.jpg").write_bytes(b"damaged")
        with pytest.raises(DataError, match="the labels cannot be read"):
            open_source(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "unknown torchvision data set ''"),
        ("CIFAR11:/", "did you mean 'CIFAR10'"),
        ("VisionDataset:/", "unknown torchvision data set"),
        ("MNIST", r"write torchvision:MNIST:PATH\[:SPLIT\]"),
        ("FakeData:/", "FakeData takes no folder"),
        ("CocoDetection:/", "CocoDetection says: .*annFile"),
        ("DTD:/?partition=two", "partition=two, expected something like 1"),
        ("DTD:/?partitoin=2", "did you mean 'partition'"),
        ("DTD:/?download=1", "unknown option of torchvision:DTD 'download'"),
        ("CIFAR10:/?train=maybe", "train=maybe, expected something like True"),
    ],
)
def test_what_cannot_be_asked_for(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(f"torchvision:{spec}")


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    """SEMEION would, by default."""
    with pytest.raises(DataError, match=r"SEMEION are not there; it looked for .*semeion\.data"):
        open_source(f"torchvision:SEMEION:{tmp_path}")


def test_what_has_no_images_to_classify(tmp_path: Path) -> None:
    folder = tmp_path / "flickr"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(0))
    (folder / "captions.txt").write_text("a.jpg#0\tA photograph.\n")
    source = open_source(f"torchvision:Flickr30k:{folder}?ann_file={folder}/captions.txt")
    assert source.labels is None
    assert source.class_names is None
