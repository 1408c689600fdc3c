"""Data sets on an object store: the same samples as on a disk, read in few requests, and what goes wrong."""

from __future__ import annotations

import csv
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache_builder.build.finished import BuildResult
from cache_builder.build.pipeline import build
from cache_builder.datasets import ImageSource, open_source
from cache_builder.datasets import object_paths as module
from cache_builder.datasets.object_paths import ObjectFile, ObjectPath, joined, matching
from cache_builder.format.errors import DataError, StorageError
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.datasets.made import COUNT, LABELS, imagefolder, jpeg, webdataset
from tests.cache_builder.trees import contents
from tests.object_store import BUCKET, s3_server


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def shards(client: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of two shards on a disk, which are also in the bucket below ``shards/``."""
    folder = tmp_path_factory.mktemp("shards")
    spec = webdataset(folder)
    for path in folder.iterdir():
        client.put_object(Bucket=BUCKET, Key=f"shards/{path.name}", Body=path.read_bytes())
    return spec


@pytest.fixture(scope="module")
def tables(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures and two tables of them in a folder, and in the bucket below ``tables/``."""
    folder = tmp_path_factory.mktemp("tables")
    imagefolder(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    columns = {"path": names, "label": LABELS}
    pq.write_table(pa.table(columns), folder / "train.parquet")
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], *zip(*columns.values(), strict=True)])
    for path in folder.rglob("*.*"):
        client.put_object(
            Bucket=BUCKET, Key=f"tables/{path.relative_to(folder).as_posix()}", Body=path.read_bytes()
        )
    return folder


def samples(source: ImageSource) -> dict[str, Any]:
    """Everything that a builder sees of a data set."""
    labels = None if source.labels is None else source.labels.tolist()
    digests = [source.read(row).digest for row in (*range(len(source)), 7, 2)]
    return {"ids": list(source.ids), "labels": labels, "names": source.class_names, "digests": digests}


class TestShards:
    @pytest.mark.parametrize("pattern", ["train-{000..001}.tar", "train-*.tar", "train-00[01].tar"])
    def test_the_samples_are_those_of_the_disk(self, shards: str, pattern: str) -> None:
        remote = open_source(f"webdataset:s3://{BUCKET}/shards/{pattern}")
        assert samples(remote) == samples(open_source(shards))

    def test_options_are_those_of_the_disk(self, shards: str) -> None:
        remote = open_source(f"webdataset:s3://{BUCKET}/shards/train-*.tar?id=key&label=")
        assert samples(remote) == samples(open_source(f"{shards}?id=key&label="))

    def test_it_can_be_sent_to_another_process(self, shards: str) -> None:
        remote = open_source(f"webdataset:s3://{BUCKET}/shards/train-{{000..001}}.tar")
        remote.read(3)
        assert samples(pickle.loads(pickle.dumps(remote))) == samples(remote)

    def test_a_build_and_its_loader_processes_need_no_pictures_on_disk(
        self, shards: str, tmp_path: Path
    ) -> None:
        def built(name: str, data: str, workers: int) -> BuildResult:
            settings = settings_for(
                tmp_path / name, tmp_path, data=data, workers=workers, name="same", tail_rank=None
            )
            return build(settings)

        built("local.zarr", shards, 0)
        built("remote.zarr", f"webdataset:s3://{BUCKET}/shards/train-*.tar", 2)
        local, remote = contents(tmp_path / "local.zarr"), contents(tmp_path / "remote.zarr")
        assert remote.pop("cache_id") != local.pop("cache_id")  # it names the data set
        assert remote == local

    def test_neighbours_come_with_one_request(self, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
        remote = open_source(f"webdataset:s3://{BUCKET}/shards/train-{{000..001}}.tar")
        asked: list[range] = []
        read = module.read_range
        monkeypatch.setattr(module, "read_range", lambda *given: asked.append(given[2]) or read(*given))
        for row in range(6):
            remote.read(row)
        assert len(asked) <= 2  # of six rows; the first alone says nothing of the next

    def test_what_is_not_there(self, shards: str) -> None:
        with pytest.raises(DataError, match=r"1 of 3 shards .*, s3://bucket/shards/train-002.tar, does"):
            open_source(f"webdataset:s3://{BUCKET}/shards/train-{{000..002}}.tar")
        with pytest.raises(DataError, match="no file has such a name"):
            open_source(f"webdataset:s3://{BUCKET}/shards/x-*.tar")
        with pytest.raises(StorageError, match="no bucket of this name"):
            open_source("webdataset:s3://nobodys-bucket/a.tar")

    def test_what_is_no_tar_file(self, client: Any) -> None:
        client.put_object(Bucket=BUCKET, Key="odd/a.tar", Body=jpeg(0))
        with pytest.raises(DataError, match=r"a\.tar is no tar file but a JPEG picture"):
            open_source(f"webdataset:s3://{BUCKET}/odd/a.tar")

    def test_a_store_that_goes_away_is_no_unreadable_picture(
        self, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote = open_source(f"webdataset:s3://{BUCKET}/shards/train-{{000..001}}.tar")

        def unreachable(*_: object) -> bytes:
            raise StorageError("s3://bucket cannot be reached")

        monkeypatch.setattr(module, "read_range", unreachable)
        with pytest.raises(StorageError, match="cannot be reached"):
            remote.read(0)


class TestTables:
    @pytest.mark.parametrize("table", ["csv:{}/train.csv", "parquet:{}/train.parquet"])
    def test_the_samples_are_those_of_the_disk(self, tables: Path, table: str) -> None:
        remote = open_source(table.format(f"s3://{BUCKET}/tables"))
        assert samples(remote) == samples(open_source(table.format(tables)))

    def test_a_table_on_disk_may_name_urls(self, tables: Path, tmp_path: Path) -> None:
        table = tmp_path / "urls.csv"
        names = sorted(path.relative_to(tables).as_posix() for path in tables.rglob("*.jpg"))
        table.write_text("path\n" + "\n".join(f"s3://{BUCKET}/tables/{name}" for name in names))
        source = open_source(f"csv:{table}")
        of_disk = open_source(f"csv:{tables}/train.csv")
        assert [source.read(row).digest for row in range(COUNT)] == samples(of_disk)["digests"][:COUNT]

    def test_a_batch_is_read_at_once(self, tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source: Any = open_source(f"csv:s3://{BUCKET}/tables/train.csv")
        expected = samples(source)["digests"][:COUNT]
        calls: list[list[str]] = []
        read = module.read_many
        monkeypatch.setattr(module, "read_many", lambda store, keys: calls.append(keys) or read(store, keys))
        source.read_ahead(range(COUNT))
        assert [source.read(row).digest for row in range(COUNT)] == expected
        assert len(calls) == 1

    def test_a_picture_that_is_not_there(self, client: Any) -> None:
        client.put_object(Bucket=BUCKET, Key="odd/a.csv", Body=b"path\nnone.jpg\n")
        source: Any = open_source(f"csv:s3://{BUCKET}/odd/a.csv")
        source.read_ahead([0])
        with pytest.raises(DataError, match=r"odd/none.jpg \(row 0 .*there is no such object"):
            source.read(0)

    def test_a_table_that_is_not_there(self, client: Any) -> None:
        with pytest.raises(DataError, match=r"odd/b\.csv' does not exist"):
            open_source(f"csv:s3://{BUCKET}/odd/b.csv")


def test_a_web_server_will_do(tables: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tables))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            source = open_source(f"csv:http://127.0.0.1:{server.server_port}/train.csv")
            assert samples(source) == samples(open_source(f"csv:{tables}/train.csv"))
        finally:
            server.shutdown()
            thread.join()


class TestPaths:
    def test_parts_of_a_url(self) -> None:
        path = ObjectPath.of("s3://bucket/a/b.tar")
        assert (str(path), path.name, path.suffix, str(path.parent)) == (
            "s3://bucket/a/b.tar", "b.tar", ".tar", "s3://bucket/a",
        )  # fmt: skip
        assert str(path.parent / "c/d.jpg") == "s3://bucket/a/c/d.jpg"
        assert str(ObjectPath.of("s3://bucket").parent / "x") == "s3://bucket/x"

    def test_what_a_table_names(self) -> None:
        assert str(joined(ObjectPath.of("s3://b/t"), "x/1.jpg")) == "s3://b/t/x/1.jpg"
        assert str(joined(Path("/t"), "s3://b/1.jpg")) == "s3://b/1.jpg"
        assert joined(Path("/t"), "1.jpg") == Path("/t/1.jpg")

    def test_patterns_stay_in_their_folder(self, client: Any) -> None:
        for key in ("glob/a1.tar", "glob/a2.tar", "glob/sub/a3.tar"):
            client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
        found = [path.key for path in matching(f"s3://{BUCKET}/glob/a*.tar")]
        assert found == ["glob/a1.tar", "glob/a2.tar"]
        assert [path.key for path in matching(f"s3://{BUCKET}/glob/**/a?.tar")] == [*found, "glob/sub/a3.tar"]
        assert [path.key for path in matching(f"s3://{BUCKET}/glob/*/a[0-9].tar")] == ["glob/sub/a3.tar"]

    def test_a_file_of_an_object(self, client: Any) -> None:
        body = bytes(range(256)) * 40
        client.put_object(Bucket=BUCKET, Key="file", Body=body)
        path = ObjectPath.of(f"s3://{BUCKET}/file")
        file = ObjectFile(path, ahead=1000)
        for offset, size in ((0, 10), (10, 5), (300, 700), (5000, 3), (10_230, 100), (20_000, 5)):
            assert file.at(offset, size) == body[offset : offset + size]
        with path.open("rb") as whole:
            assert whole.read() == body
            whole.seek(-6, 2)
            assert whole.read(3) == body[-6:-3]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.png", "train/a.png"),
        ("./a.png", "train/a.png"),
        ("../img/a.png", "img/a.png"),
        ("x//a", "train/x/a"),
    ],
)
def test_a_table_in_a_bucket_takes_the_paths_that_one_on_a_disk_takes(name: str, key: str) -> None:
    assert joined(ObjectPath("s3://bucket", "train"), name) == ObjectPath("s3://bucket", key)


@pytest.mark.parametrize("name", ["/data/a.png", "../../a.png", "."])
def test_a_path_that_leaves_the_bucket_is_no_file_of_it(name: str) -> None:
    with pytest.raises(DataError, match="expected a path below"):
        joined(ObjectPath("s3://bucket", "" if name == "." else "train"), name)
