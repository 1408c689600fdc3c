"""What was imported is compared with its labels, and rows or classes in another order are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cache_builder.datasets import open_source
from cache_builder.format import open_cache
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.interchange.importing import run_import
from cache_builder.interchange.row_order import torchvision_order
from cache_builder.interchange.settings import ImportSettings

# By path: cat big, cat-big, cat, dog; torchvision: cat, cat big, cat-big, dog.
CLASSES = ("cat", "cat big", "cat-big", "dog")
EACH = 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for index in range(EACH):
            pixels = np.full((8, 8, 3), 40 * label + index, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def logits(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    found = np.full((len(labels), len(CLASSES)), -4, np.float32)
    found[np.arange(len(labels)), labels] = 4
    return found


def run(tmp_path: Path, array: NDArray[np.float32], data: Path | None, **changes: object) -> None:
    np.save(tmp_path / "l.npy", array)
    given = {"source": tmp_path / "l.npy", "form": "dense", "out": str(tmp_path / "o.zarr")}
    spec = f"imagefolder:{data}" if data else None
    run_import(ImportSettings.model_validate(given | {"data": spec} | changes))


@pytest.fixture
def by_torchvision(folders: Path) -> NDArray[np.float32]:
    """A perfect teacher's answers, a row for each sample as torchvision goes through them."""
    source = open_source(f"imagefolder:{folders}")
    assert source.labels is not None
    return logits(source.labels[torchvision_order(source.ids)])


def test_the_right_order_gives_every_row_its_sample(
    tmp_path: Path, folders: Path, by_torchvision: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, by_torchvision, folders, order="torchvision")
    printed = capsys.readouterr().out
    assert "teacher top-1 100.00% over 24 labelled records, rows in torchvision's order" in printed
    assert "WARNING" not in printed
    cache = open_cache(tmp_path / "o.zarr")
    assert (cache.decode(cache.read_page(0)).argmax(axis=1) == cache.labels).all()
    names = cache.class_names or ()
    assert [names[label] for label in cache.labels] == [sample_id.split("/")[0] for sample_id in cache.ids]


def test_a_wrong_order_is_told_with_the_accuracy_of_each(
    tmp_path: Path, folders: Path, by_torchvision: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, by_torchvision, folders, order="path")
    printed = capsys.readouterr().out
    assert "teacher top-1 25.00% over 24 labelled records" in printed
    assert "no more often than by guessing" in printed
    assert "25.0% by --order path, 100.0% by --order torchvision" in printed


def test_a_shuffled_list_is_told_too(
    tmp_path: Path, folders: Path, by_torchvision: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = list(open_source(f"imagefolder:{folders}").ids)
    (tmp_path / "list").write_text("\n".join(ids[EACH:] + ids[:EACH]))
    run(tmp_path, by_torchvision, folders, order=f"file:{tmp_path}/list")
    printed = capsys.readouterr().out
    assert "WARNING" in printed
    assert "100.0% by --order torchvision" in printed


def test_no_order_is_a_refusal_that_leaves_nothing(
    tmp_path: Path, folders: Path, by_torchvision: NDArray[np.float32]
) -> None:
    with pytest.raises(ConfigError, match="say --order torchvision"):
        run(tmp_path, by_torchvision, folders)
    assert not (tmp_path / "o.zarr").exists()


def test_labels_of_another_order_name_it(
    tmp_path: Path, folders: Path, by_torchvision: NDArray[np.float32]
) -> None:
    np.save(tmp_path / "labels.npy", by_torchvision.argmax(axis=1))
    with pytest.raises(DataError, match="they are those of --order torchvision"):
        run(tmp_path, by_torchvision, folders, order="path", labels=tmp_path / "labels.npy")


def test_classes_in_another_order_are_told(
    tmp_path: Path, folders: Path, by_torchvision: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    many = np.tile(by_torchvision, (20, 1))
    labels = np.tile(by_torchvision.argmax(axis=1), 20)
    np.save(tmp_path / "labels.npy", (labels + 1) % len(CLASSES))
    run(tmp_path, many, None, labels=tmp_path / "labels.npy")
    printed = capsys.readouterr().out
    assert "teacher top-1 0.00%" in printed
    assert "class numbers one lower" in printed
    assert "import again with --data" in printed


def test_without_labels_nothing_is_said_of_accuracy(
    tmp_path: Path, by_torchvision: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, by_torchvision, None)
    printed = capsys.readouterr().out
    assert "top-1" not in printed
    assert "WARNING" not in printed


def test_a_good_teacher_of_few_samples_is_no_guesser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.array([0, 1, 2, 3])
    np.save(tmp_path / "labels.npy", labels)
    run(tmp_path, logits(np.array([0, 1, 2, 2])), None, labels=tmp_path / "labels.npy")
    printed = capsys.readouterr().out
    assert "teacher top-1 75.00% over 4 labelled records" in printed
    assert "WARNING" not in printed


def test_an_order_beside_ids_or_without_data_is_refused(
    tmp_path: Path, by_torchvision: NDArray[np.float32], folders: Path
) -> None:
    (tmp_path / "ids").write_text("\n".join(open_source(f"imagefolder:{folders}").ids))
    with pytest.raises(ConfigError, match="--order path: the rows have ids"):
        run(tmp_path, by_torchvision, folders, order="path", ids=tmp_path / "ids")
    with pytest.raises(ConfigError, match="add --data"):
        run(tmp_path, by_torchvision, None, order="torchvision")
    run(tmp_path, by_torchvision, None, order=f"file:{tmp_path}/ids")
    assert "cat big/0.png" in open_cache(tmp_path / "o.zarr").ids


def test_the_cache_keeps_how_it_was_done(
    tmp_path: Path, folders: Path, by_torchvision: NDArray[np.float32]
) -> None:
    run(tmp_path, by_torchvision, folders, order="torchvision")
    manifest = open_cache(tmp_path / "o.zarr").manifest
    assert manifest.environment["imported.rows"] == "in torchvision's order"


@pytest.mark.parametrize(
    ("order", "said", "decoding"), [("torchvision", None, 1), ("path", None, 2), ("torchvision", 2, 2)]
)
def test_pictures_are_decoded_as_whoever_gave_the_order_does(
    tmp_path: Path,
    folders: Path,
    by_torchvision: NDArray[np.float32],
    order: str,
    said: int | None,
    decoding: int,
) -> None:
    run(tmp_path, by_torchvision, folders, order=order, decoding=said)
    assert open_cache(tmp_path / "o.zarr").manifest.input.decoding == decoding


@pytest.mark.parametrize("flag", ["ids", "labels"])
def test_a_file_that_nobody_would_look_at_is_refused(tmp_path: Path, flag: str) -> None:
    given = {"source": tmp_path, "classes": 1000, flag: tmp_path / "list"}
    with pytest.raises(ConfigError, match=f"--{flag} .*would not be looked at"):
        run_import(
            ImportSettings.model_validate(given | {"form": "tinyvit", "out": str(tmp_path / "o.zarr")})
        )
