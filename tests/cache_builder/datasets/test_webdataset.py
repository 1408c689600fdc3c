"""Samples in tar files: ids, labels, and what is wrong with a sample."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash

from cache_builder.datasets import open_source, webdataset
from cache_builder.format.errors import ConfigError, DataError
from tests.cache_builder.datasets.made import (
    COUNT,
    LABELS,
    Entry,
    jpeg,
    json_entry,
    sample,
    write_tar,
)
from tests.cache_builder.datasets.made import webdataset as made


def one(tmp_path: Path, *entries: Entry, options: str = "") -> str:
    """The spec of one shard."""
    return f"webdataset:{write_tar(tmp_path / 'a.tar', entries)}{options}"


def image(row: int, extension: str = "jpg") -> Entry:
    return f"{row:04d}.{extension}", jpeg(row)


def test_rows_ids_and_labels(tmp_path: Path) -> None:
    source = open_source(made(tmp_path))
    assert list(source.ids) == [f"train-00{row // 6}/{row:04d}" for row in range(COUNT)]
    assert source.labels is not None
    assert source.labels.tolist() == LABELS
    for row in (11, 0, 6, 5):
        assert source.read(row).digest == xxhash.xxh64_intdigest(jpeg(row))


def test_keys_alone(tmp_path: Path) -> None:
    assert list(open_source(made(tmp_path) + "?id=key").ids) == [f"{row:04d}" for row in range(COUNT)]


def test_a_folder_of_a_member_is_part_of_its_key(tmp_path: Path) -> None:
    spec = one(tmp_path, ("./cats/1.jpg", jpeg(0)), ("dogs/1.jpg", jpeg(1)))
    assert list(open_source(spec).ids) == ["a/cats/1", "a/dogs/1"]


def test_more_shards_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "_OPEN_SHARDS", 2)
    for row in range(6):
        write_tar(tmp_path / f"{row}.tar", sample(row))
    source = open_source(f"webdataset:{tmp_path}/*.tar")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for row in [*range(6), *range(6)]:
        assert source.read(row).digest == xxhash.xxh64_intdigest(jpeg(row))
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208
    del source
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class TestLabels:
    def test_none(self, tmp_path: Path) -> None:
        source = open_source(one(tmp_path, image(0), image(1)))
        assert source.labels is None
        assert source.class_names is None

    def test_json_numbers(self, tmp_path: Path) -> None:
        entries = [image(0), json_entry(0, {"label": 2}), image(1), json_entry(1, {"label": 0})]
        source = open_source(one(tmp_path, *entries))
        assert source.labels is not None
        assert source.labels.tolist() == [2, 0]
        assert source.class_names == ("0", "1", "2")

    def test_json_names_in_sorted_order(self, tmp_path: Path) -> None:
        entries = [image(0), json_entry(0, {"species": "cat"}), image(1), json_entry(1, {"species": "ant"})]
        source = open_source(one(tmp_path, *entries, options="?label=species"))
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0]
        assert source.class_names == ("ant", "cat")

    def test_cls_before_json(self, tmp_path: Path) -> None:
        source = open_source(one(tmp_path, *sample(0, 1), json_entry(0, {"label": 5, "other": [1]})))
        assert source.labels is not None
        assert source.labels.tolist() == [1]

    def test_json_without_a_label_is_no_label(self, tmp_path: Path) -> None:
        assert open_source(one(tmp_path, image(0), json_entry(0, {"caption": "x"}))).labels is None

    def test_another_extension(self, tmp_path: Path) -> None:
        source = open_source(one(tmp_path, image(0), ("0000.fine", b" 3\n"), options="?label=fine"))
        assert source.labels is not None
        assert source.labels.tolist() == [3]

    def test_names_and_their_number_can_be_given(self, tmp_path: Path) -> None:
        names = tmp_path / "names.txt"
        names.write_text("ant\nbee\ncat\ndog\n")
        spec = one(tmp_path, *sample(0))
        assert open_source(f"{spec}?classes={names}").class_names == ("ant", "bee", "cat", "dog")
        assert len(open_source(f"{spec}?classes=1000").class_names or ()) == 1000

    def test_more_labels_than_names(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="label 7 is beyond the 3 classes"):
            open_source(one(tmp_path, *sample(0, 7), options="?classes=3"))

    @pytest.mark.parametrize("first", [True, False])
    def test_some_have_one_and_some_have_none(self, tmp_path: Path, first: bool) -> None:
        bare, labelled = [image(0 if first else 1)], sample(1 if first else 0)
        entries = [*bare, *labelled] if first else [*labelled, *bare]
        with pytest.raises(
            DataError, match=r"sample '0001' of shard .*a\.tar has (a|no) label, the samples before"
        ):
            open_source(one(tmp_path, *entries))
        assert open_source(one(tmp_path, *entries, options="?label=")).labels is None

    @pytest.mark.parametrize(
        ("entry", "why"),
        [
            (("0000.cls", b"cat"), "label 'cat', expected a class number"),
            (("0000.cls", b""), "label '', expected a class number"),
            (("0000.cls", b"\xff\xfe"), "expected a class number"),
            (("0000.cls", b"1" * 2**20 + b"1"), "no label"),
            (("0000.json", b"{"), r"its \.json cannot be read"),
            (json_entry(0, {"label": [1]}), r"label \[1\], expected a number or a name"),
            (json_entry(0, {"label": 1.5}), r"label 1\.5, expected"),
            (json_entry(0, {"label": True}), "label True, expected"),
        ],
    )
    def test_what_is_no_label(self, tmp_path: Path, entry: Entry, why: str) -> None:
        with pytest.raises(DataError, match=why) as caught:
            open_source(one(tmp_path, image(0), entry))
        assert "'0000' of shard" in str(caught.value)

    def test_a_negative_label(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="'-3': expected a class id"):
            open_source(one(tmp_path, *sample(0, -3)))


class TestImages:
    def test_of_any_kind(self, tmp_path: Path) -> None:
        source = open_source(one(tmp_path, image(0, "JPEG"), image(1, "png"), image(2, "webp")))
        assert [source.read(row).digest for row in range(3)] == [
            xxhash.xxh64_intdigest(jpeg(row)) for row in range(3)
        ]

    def test_which_of_several(self, tmp_path: Path) -> None:
        entries = [("0000.jpg", jpeg(0)), ("0000.png", jpeg(1)), ("0000.mask.png", jpeg(2))]
        with pytest.raises(DataError, match=r"'0000' of shard .* has several images \(jpg, png, mask\.png\)"):
            open_source(one(tmp_path, *entries))
        for extension, row in (("png", 1), ("mask.png", 2)):
            source = open_source(one(tmp_path, *entries, options=f"?image={extension}"))
            assert source.read(0).digest == xxhash.xxh64_intdigest(jpeg(row))

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"sample '0001' of shard .*a\.tar has no image \(.*only: cls, txt"
        ):
            open_source(one(tmp_path, *sample(0), ("0001.cls", b"1"), ("0001.txt", b"words")))

    def test_a_damaged_one_is_named_when_it_is_read(self, tmp_path: Path) -> None:
        source = open_source(one(tmp_path, ("0000.jpg", jpeg(0)[:500]), image(1)))
        with pytest.raises(
            DataError, match=r"cannot read image 'a/0000' of shard .*a\.tar \(500 bytes\): .*[Tt]runcated"
        ):
            source.read(0)
        source.read(1)


class TestUniqueness:
    def test_a_key_twice_in_a_row(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"'0000' of shard .*a\.tar .*its key occurs more than once"):
            open_source(one(tmp_path, image(0), image(0)))

    def test_a_key_twice_in_a_shard(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="sample 'a/0000' occurs more than once"):
            open_source(one(tmp_path, image(0), image(1), image(0)))

    def test_a_key_in_two_shards(self, tmp_path: Path) -> None:
        for name in "ab":
            write_tar(tmp_path / f"{name}.tar", sample(0))
        spec = f"webdataset:{tmp_path}/*.tar"
        assert list(open_source(spec).ids) == ["a/0000", "b/0000"]
        with pytest.raises(DataError, match=r"sample '0000' occurs more than once, again in shard .*b\.tar"):
            open_source(f"{spec}?id=key")

    def test_shards_of_one_name(self, tmp_path: Path) -> None:
        for row, name in enumerate("ab"):
            write_tar(tmp_path / name / "0.tar", sample(row))
        spec = f"webdataset:{tmp_path}/{{a,b}}/0.tar"
        with pytest.raises(DataError, match=r"two shards are named 0\.tar"):
            open_source(spec)
        assert list(open_source(f"{spec}?id=key").ids) == ["0000", "0001"]


def test_shards_that_change_while_they_are_read(tmp_path: Path) -> None:
    source = open_source(one(tmp_path, *sample(0), *sample(1)))
    shard = tmp_path / "a.tar"
    with shard.open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(
        DataError, match=r"'a/0001' of shard .*a\.tar: the shard was cut off since it was opened"
    ):
        source.read(1)
    shard.unlink()
    with pytest.raises(DataError, match=r"'a/0001' of shard .*a\.tar: No such file"):
        open_copy(source).read(1)


def open_copy(source: object) -> webdataset.WebDataset:
    """As a spawned worker has it: no file is open yet."""
    import pickle

    copy = pickle.loads(pickle.dumps(source))
    assert isinstance(copy, webdataset.WebDataset)
    return copy


def test_no_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample in 1 shard"):
        open_source(one(tmp_path, ("README", b"nothing")))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "write webdataset:/data"),
        ("x.tar?id=name", "expected id=key"),
        ("x.tar?labl=y", "did you mean 'label'"),
    ],
)
def test_what_cannot_be_asked_for(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(f"webdataset:{argument}")
