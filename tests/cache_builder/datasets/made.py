"""The same twelve photographs of three classes, as every kind of data set on disk."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from tests.cache_builder.photographs import cut

CLASSES = ("ant", "bee", "cat")
PER_CLASS = 4
COUNT = len(CLASSES) * PER_CLASS
LABELS = [row // PER_CLASS for row in range(COUNT)]

Entry = tuple[str, bytes]


def jpeg(row: int, height: int = 40, width: int = 48) -> bytes:
    """A photograph; rows differ."""
    buffer = io.BytesIO()
    Image.fromarray(cut(row, height, width)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_tar(path: Path, entries: Iterable[Entry]) -> Path:
    """A tar file of named bytes, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(row: int, label: object = None) -> list[Entry]:
    """A webdataset sample: image and number."""
    number = LABELS[row] if label is None else label
    return [(f"{row:04d}.jpg", jpeg(row)), (f"{row:04d}.cls", str(number).encode())]


def webdataset(folder: Path) -> str:
    """Two shards of six samples."""
    for shard in range(2):
        rows = range(shard * COUNT // 2, (shard + 1) * COUNT // 2)
        write_tar(folder / f"train-{shard:03d}.tar", (entry for row in rows for entry in sample(row)))
    return f"webdataset:{folder}/train-{{000..001}}.tar"


def imagefolder(folder: Path) -> str:
    """A folder for each class."""
    for row in range(COUNT):
        path = folder / CLASSES[LABELS[row]] / f"{row:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(row))
    return f"imagefolder:{folder}"


def table_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a table beside that folder."""
    imagefolder(folder / "images")
    return [
        {
            "path": f"images/{CLASSES[LABELS[row]]}/{row:04d}.jpg",
            "label": CLASSES[LABELS[row]],
            "id": f"n{row}",
        }
        for row in range(COUNT)
    ]


def csv_table(folder: Path) -> str:
    """Columns path, label, id."""
    rows = table_rows(folder)
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "id"])
        writer.writeheader()
        writer.writerows(rows)
    return f"csv:{folder}/train.csv"


def parquet_table(folder: Path) -> str:
    """The same columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(table_rows(folder)), folder / "train.parquet", row_group_size=5)
    return f"parquet:{folder}/train.parquet"


def hugging_face(folder: Path) -> str:
    """One split, images as bytes."""
    import datasets

    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    features = datasets.Features(kinds | {"name": datasets.Value("string")})
    rows = [
        {"image": {"bytes": jpeg(row), "path": None}, "label": LABELS[row], "name": f"n{row}"}
        for row in range(COUNT)
    ]
    data = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict({"train": data, "test": data.select(range(3))}).save_to_disk(str(folder))
    return f"hf:{folder}:train"


def eurosat(folder: Path) -> str:
    """torchvision's EuroSAT: folders below ``eurosat/2750``."""
    imagefolder(folder / "eurosat" / "2750")
    return f"torchvision:EuroSAT:{folder}"


MAKERS = {
    "imagefolder": imagefolder,
    "webdataset": webdataset,
    "hf": hugging_face,
    "csv": csv_table,
    "parquet": parquet_table,
    "torchvision": eurosat,
}


def json_entry(row: int, content: object) -> Entry:
    """The ``.json`` of a webdataset sample."""
    return f"{row:04d}.json", json.dumps(content).encode()
