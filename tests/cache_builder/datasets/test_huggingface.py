"""Folders that ``save_to_disk`` of Hugging Face's ``datasets`` wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import xxhash

from cache_builder.datasets import open_source
from cache_builder.format.errors import ConfigError, DataError
from tests.cache_builder.datasets.made import CLASSES, COUNT, LABELS, hugging_face, jpeg

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a training and a test split. Read only."""
    return hugging_face(tmp_path_factory.mktemp("hf") / "photos")


def saved(folder: Path, rows: list[dict[str, Any]], **kinds: Any) -> str:
    """A data set without splits."""
    data = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    data.save_to_disk(str(folder / "saved"))
    return f"hf:{folder}/saved"


def pictures(count: int, **more: list[Any]) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": jpeg(row), "path": None}} | {name: values[row] for name, values in more.items()}
        for row in range(count)
    ]


def test_rows_labels_and_names(spec: str) -> None:
    source = open_source(spec)
    assert list(source.ids) == [str(row) for row in range(COUNT)]
    assert source.labels is not None
    assert source.labels.tolist() == LABELS
    assert source.class_names == CLASSES
    # The file's bytes, not the pixels: what the folder of images would give.
    assert source.read(7).digest == xxhash.xxh64_intdigest(jpeg(7))


def test_a_column_of_ids(spec: str) -> None:
    assert list(open_source(f"{spec}?id=name").ids) == [f"n{row}" for row in range(COUNT)]


def test_splits(spec: str) -> None:
    folder = spec.removesuffix(":train")
    assert len(open_source(f"{folder}:test")) == 3
    assert len(open_source(f"{folder}/test")) == 3
    with pytest.raises(ConfigError, match=r"say which split, as in hf:.*:train; it has train, test"):
        open_source(folder)
    with pytest.raises(ConfigError, match="it has train, test"):
        open_source(f"{folder}:val")


def test_one_split_needs_no_name(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(pictures(2), features=datasets.Features({"image": datasets.Image()}))
    datasets.DatasetDict({"all": data}).save_to_disk(str(tmp_path / "d"))
    source = open_source(f"hf:{tmp_path}/d")
    assert len(source) == 2
    assert source.labels is None


def test_rows_that_were_picked_and_shuffled(tmp_path: Path) -> None:
    """An index over the rows is part of the order."""
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_list(pictures(4, label=[0, 1, 2, 3]), features=kinds).select([3, 1])
    data.save_to_disk(str(tmp_path / "d"))
    source = open_source(f"hf:{tmp_path}/d")
    assert source.labels is not None
    assert source.labels.tolist() == [3, 1]
    assert source.read(0).digest == xxhash.xxh64_intdigest(jpeg(3))


class TestColumns:
    def test_two_of_labels(self, tmp_path: Path) -> None:
        fine, coarse = datasets.ClassLabel(names=["a", "b"]), datasets.ClassLabel(names=["x"])
        rows = pictures(2, fine_label=[1, 0], coarse_label=[0, 0])
        spec = saved(tmp_path, rows, image=datasets.Image(), fine_label=fine, coarse_label=coarse)
        with pytest.raises(ConfigError, match=r"fine_label, coarse_label: say which with \?label=COLUMN"):
            open_source(spec)
        source = open_source(f"{spec}?label=fine_label")
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0]
        assert open_source(f"{spec}?label=").labels is None

    def test_two_of_images(self, tmp_path: Path) -> None:
        rows = [row | {"mask": {"bytes": jpeg(9), "path": None}} for row in pictures(1)]
        spec = saved(tmp_path, rows, image=datasets.Image(), mask=datasets.Image())
        with pytest.raises(ConfigError, match=r"2 columns of images.*\?image=COLUMN"):
            open_source(spec)
        assert open_source(f"{spec}?image=mask").read(0).digest == xxhash.xxh64_intdigest(jpeg(9))

    def test_bytes_that_are_not_declared_images(self, tmp_path: Path) -> None:
        spec = saved(tmp_path, [{"jpg": jpeg(0)}], jpg=datasets.Value("binary"))
        with pytest.raises(ConfigError, match="no columns of images among jpg"):
            open_source(spec)
        assert open_source(f"{spec}?image=jpg").read(0).digest == xxhash.xxh64_intdigest(jpeg(0))

    def test_names_as_text(self, tmp_path: Path) -> None:
        rows = pictures(3, label=["b", "a", None])
        source = open_source(saved(tmp_path, rows, image=datasets.Image(), label=datasets.Value("string")))
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0, -1]
        assert source.class_names == ("a", "b")

    def test_hidden_labels(self, tmp_path: Path) -> None:
        kind = datasets.ClassLabel(names=["a", "b"])
        source = open_source(
            saved(tmp_path, pictures(2, label=[-1, None]), image=datasets.Image(), label=kind)
        )
        assert source.labels is not None
        assert source.labels.tolist() == [-1, -1]

    def test_unknown(self, spec: str) -> None:
        with pytest.raises(ConfigError, match=r"no column 'fine' for label, only image, label, name"):
            open_source(f"{spec}?label=fine")
        with pytest.raises(ConfigError, match="unknown option of hf 'split'"):
            open_source(f"{spec}?split=x")


class TestImages:
    def test_files_outside(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(jpeg(5))
        kind = {"path": datasets.Value("string"), "bytes": datasets.Value("binary")}
        # save_to_disk takes the files of an Image column in; other writers leave them outside.
        spec = saved(tmp_path, [{"file": {"path": str(path), "bytes": None}}], file=kind) + "?image=file"
        assert open_source(spec).read(0).digest == xxhash.xxh64_intdigest(jpeg(5))
        path.unlink()
        with pytest.raises(DataError, match=r"a\.jpg of sample '0' of hf:.*No such file"):
            open_source(spec).read(0)

    @pytest.mark.parametrize(
        ("content", "why"),
        [(b"damaged", "not an image"), (None, "neither bytes nor a path"), (b"", "neither bytes")],
    )
    def test_unreadable(self, tmp_path: Path, content: bytes | None, why: str) -> None:
        rows = [*pictures(1), {"image": None if content is None else {"bytes": content, "path": None}}]
        source = open_source(saved(tmp_path, rows, image=datasets.Image()))
        with pytest.raises(DataError, match=rf"sample '1' of hf:.*{why}"):
            source.read(1)
        source.read(0)


class TestNothingThere:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist or is not a folder"):
            open_source(f"hf:{tmp_path}/x:train")

    def test_no_path(self) -> None:
        with pytest.raises(ConfigError, match="write hf:PATH"):
            open_source("hf:")

    def test_some_other_folder(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"holds no state\.json: expected a folder that .*save_to_disk wrote"
        ):
            open_source(f"hf:{tmp_path}")

    def test_no_rows(self, tmp_path: Path) -> None:
        kinds = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict({"image": []}, features=kinds).save_to_disk(str(tmp_path / "d"))
        with pytest.raises(DataError, match="no rows"):
            open_source(f"hf:{tmp_path}/d")

    @pytest.mark.parametrize("damage", ["cut", "json", "gone"])
    def test_damaged_files(self, tmp_path: Path, damage: str) -> None:
        spec = saved(tmp_path, pictures(3), image=datasets.Image())
        (arrow,) = (tmp_path / "saved").glob("*.arrow")
        if damage == "cut":
            arrow.write_bytes(arrow.read_bytes()[:700])
        elif damage == "json":
            (tmp_path / "saved" / "state.json").write_text("{")
        else:
            arrow.unlink()
        with pytest.raises(DataError, match="saved cannot be opened"):
            open_source(spec)

    def test_without_the_package(self, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ConfigError, match=r"pip install 'kdcache\[hf\]'"):
            open_source(spec)
