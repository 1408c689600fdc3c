"""Which files a pattern names, and tar files that are not what they should be."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from cache_builder.datasets.shards import expand_braces, find_shards, samples_of
from cache_builder.format.errors import ConfigError, DataError
from tests.cache_builder.datasets.made import jpeg, sample, write_tar


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{000000..000002}", ["000000", "000001", "000002"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("x{a,b{1..2}}", ["xa", "xb1", "xb2"]),
        ("{a,{b,c}d}{,e}", ["a", "ae", "bd", "bde", "cd", "cde"]),
        ("{a}", ["a"]),
        ("a{b", ["a{b"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


def test_braces_without_end_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than 1,000,000 shards"):
        expand_braces("{0..9999}{0..9999}")


def test_globs_are_sorted_and_braces_are_not(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "Z.tar", "[1].tar"):
        write_tar(tmp_path / name, [])
    assert [path.name for path in find_shards(f"{tmp_path}/*.tar")] == ["Z.tar", "[1].tar", "a.tar", "b.tar"]
    assert [path.name for path in find_shards(f"{tmp_path}/{{b,a}}.tar")] == ["b.tar", "a.tar"]
    assert [path.name for path in find_shards(f"{tmp_path}/?.tar")] == ["Z.tar", "a.tar", "b.tar"]
    assert [path.name for path in find_shards(f"{tmp_path}/[1].tar")] == ["[1].tar"]


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        (
            "{}/t-{{0..2}}.tar",
            DataError,
            r"2 of 3 shards cannot be read, the first, .*t-1\.tar, does not exist",
        ),
        ("{}/*.zip", DataError, "no file has such a name"),
        ("{}", DataError, "is a folder: write tar files as a pattern"),
        ("pipe:cat {}", ConfigError, "no command is run"),
    ],
)
def test_shards_that_are_not_there(
    tmp_path: Path, pattern: str, error: type[Exception], message: str
) -> None:
    write_tar(tmp_path / "t-0.tar", [])
    with pytest.raises(error, match=message):
        find_shards(pattern.format(tmp_path))


def test_members_are_grouped_by_key_and_located(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "a.tar",
        [
            ("./dir/x.one.jpg", b"12345"),
            ("./dir/x.CLS", b"7"),
            ("y.jpg", b"abc"),
            ("README", b"no sample"),
            ("._y.jpg", b"what macOS adds"),
            ("long/" + 120 * "n" + "é.json", b"{}"),
        ],
    )
    found = {key: [(m.extension, m.size) for m in members] for key, members, _ in samples_of(shard)}
    assert found == {
        "dir/x": [("one.jpg", 5), ("cls", 1)],
        "y": [("jpg", 3)],
        "long/" + 120 * "n" + "é": [("json", 2)],
    }
    content = shard.read_bytes()
    for _, members, _ in samples_of(shard):
        for member in members:
            assert content[member.offset : member.offset + member.size] in (b"12345", b"7", b"abc", b"{}")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path: Path, kind: int) -> None:
    """Of every format, with all that may stand between plain files."""
    names = ["a.jpg", "d/b.jpg", "long/" + 90 * "n" + "/c.jpg", "ü.jpg", "e.jpg", "x/" + 90 * "y" + ".jpg"]
    if kind != tarfile.USTAR_FORMAT:
        names.insert(3, 150 * "m" + ".jpg")
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
        for row, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 500 * row
            info.mtime = 1.5 if row == 4 else row
            tar.addfile(info, io.BytesIO(bytes([row + 1]) * info.size))
            for extra, link in (
                (tarfile.DIRTYPE, ""),
                (tarfile.SYMTYPE, "a.jpg"),
                (tarfile.LNKTYPE, "a.jpg"),
            ):
                info = tarfile.TarInfo(f"extra.{row}")
                info.type, info.linkname = extra, link
                tar.addfile(info)
    with tarfile.open(tmp_path / "a.tar") as tar:
        expected = [(info.offset_data, info.size) for info in tar if info.isreg()]
    members = [member for _, found, _ in samples_of(tmp_path / "a.tar") for member in found]
    assert [(member.offset, member.size) for member in members] == expected
    assert [f"{member.key}.{member.extension}" for member in members] == names


def test_global_headers_are_heeded(tmp_path: Path) -> None:
    """A pax header may speak for all members behind it."""
    with tarfile.open(
        tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}
    ) as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    assert [key for key, _, _ in samples_of(tmp_path / "a.tar")] == ["a", "b"]


def read(shard: Path) -> None:
    for _ in samples_of(shard):
        pass


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Three samples of two members each."""
    return write_tar(tmp_path / "good.tar", [entry for row in range(3) for entry in sample(row)])


class TestDamage:
    def test_every_place_a_file_can_be_cut_at_is_told(self, shard: Path, tmp_path: Path) -> None:
        read(shard)
        content = shard.read_bytes()
        cut = tmp_path / "cut.tar"
        end = len(content.rstrip(b"\0")) + 512  # the padding of the last member, then the end mark
        for length in range(0, end - 511, 256):
            cut.write_bytes(content[:length])
            with pytest.raises(DataError, match=r"cut\.tar"):
                read(cut)

    def test_a_header_inside(self, shard: Path) -> None:
        content = bytearray(shard.read_bytes())
        second = 512 + -(-len(jpeg(0)) // 512) * 512
        content[second + 3] ^= 1
        shard.write_bytes(content)
        with pytest.raises(DataError, match=rf"good\.tar has a damaged header at byte {second:,}"):
            read(shard)

    def test_two_archives_in_one_file(self, shard: Path) -> None:
        shard.write_bytes(shard.read_bytes() * 2)
        with pytest.raises(DataError, match=r"good\.tar goes on after its end mark"):
            read(shard)

    def test_compressed(self, shard: Path) -> None:
        shard.write_bytes(gzip.compress(shard.read_bytes()))
        with pytest.raises(DataError, match=r"good\.tar is compressed \(gzip\).*unpack it to a plain \.tar"):
            read(shard)

    @pytest.mark.parametrize("content", [b"", b"no tar file at all", b"x" * 4096])
    def test_something_else(self, shard: Path, content: bytes) -> None:
        shard.write_bytes(content)
        with pytest.raises(DataError, match=r"good\.tar"):
            read(shard)

    def test_gone(self, shard: Path) -> None:
        shard.unlink()
        with pytest.raises(DataError, match=r"cannot read shard .*good\.tar: No such file"):
            read(shard)
