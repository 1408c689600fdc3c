"""Creating a cache, killed anywhere: the same command goes on, and nobody else's things are touched."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cache_builder.format import ConfigError, Manifest, creation, store, writer
from cache_builder.format.creation import check_unclaimed, create
from cache_builder.format.owned import CLAIM_KEY, LEASE_KEY
from cache_builder.format.remote import RemoteStore
from cache_builder.format.root import read_manifest
from tests.caches import synthetic_manifest, synthetic_names
from tests.object_store import BUCKET, counted_http, objects, s3_server

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as client:
        yield client


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


def parts(**settings: Any) -> tuple[Manifest, Arrays]:
    manifest = synthetic_manifest(rows=12, classes=12, top_k=3, rank=4, **settings)
    ids = [f"{i}.png" for i in range(12)]
    arrays = (
        writer.SampleTable.from_ids(ids, None).arrays()
        | synthetic_names(manifest).arrays()
        | {
            "codec/logits/mean": np.zeros(12, np.float32),
            "codec/logits/basis": np.zeros((4, 12), np.float32),
            "probe/pixels": np.zeros((1, 3, 8, 8), np.uint8),
        }
    )
    return manifest.model_copy(update={"digests": creation.header_digests(arrays)}), arrays


class Killed(BaseException):
    """As far as the code can see, a kill: nothing catches it."""


def killed_after(count: int, patch: pytest.MonkeyPatch, after: bool) -> None:
    """The ``count``-th change of the store does not happen, or happens and nobody hears of it."""
    done = 0

    def tick() -> bool:
        nonlocal done
        done += 1
        if done > count or (done == count and not after):
            raise Killed
        return done == count

    def counted_async(change: Callable[..., Any]) -> Callable[..., Any]:
        async def changed(*arguments: Any, **options: Any) -> Any:
            last = tick()
            answer = await change(*arguments, **options)
            if last:
                raise Killed
            return answer

        return changed

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any) -> Any:
            last = tick()
            answer = change(*arguments)
            if last:
                raise Killed
            return answer

        return changed

    patch.setattr(RemoteStore, "set", counted_async(RemoteStore.set))
    patch.setattr(creation, "create_object", counted(creation.create_object))
    patch.setattr(creation, "delete_object", counted(creation.delete_object))


def place(client: Any, key: str, data: bytes = b"precious") -> None:
    client.put_object(Bucket=BUCKET, Key=key, Body=data)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The objects of a creation that nobody disturbed, which are those of a local one."""
    root = tmp_path_factory.mktemp("whole") / "c.zarr"
    create(root, *parts())
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def killed_and_continued(out: str, count: int, after: bool) -> None:
    manifest, arrays = parts()
    with pytest.MonkeyPatch.context() as patch:
        killed_after(count, patch, after)
        with pytest.raises(Killed):
            create(out, manifest, arrays)
    if read_manifest(out) is None:
        check_unclaimed(out, manifest)
        create(out, manifest, arrays)
    else:
        writer.CacheWriter(out, manifest).sweep()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_change(wanted: dict[str, bytes], prefix: str, after: bool) -> None:
    changes = len(wanted) + 2  # each object, and the claim that comes and goes
    for count in range(1, changes + 1):
        out = f"memory://{prefix}/{count}/c.zarr"
        killed_and_continued(out, count, after)
        opened = store.open_store(out, read_only=True)
        keys = store.list_keys(opened, "")
        assert dict(zip(keys, store.read_many(opened, keys), strict=True)) == wanted


@pytest.mark.parametrize("left", [0, 1, 2, 3, 20])
def test_killed_on_s3(s3: Any, wanted: dict[str, bytes], prefix: str, left: int) -> None:
    """So many changes before the end, or with the claim alone."""
    place(s3, f"{prefix}-beside")
    changes = len(wanted) + 2
    for count, after in [(changes - left, False), (changes - left, True)]:
        killed_and_continued(f"s3://{BUCKET}/{prefix}/{after}/c.zarr", count, after)
        assert objects(f"{prefix}/{after}/c.zarr") == wanted
    assert objects(f"{prefix}-beside") == {"": b"precious"}


@pytest.mark.parametrize(
    ("key", "out", "told"),
    [
        ("{}/photo.jpg", "s3://bucket/{}", "holds photo.jpg, which is no cache; nothing was touched"),
        ("{}/deep/er/x", "s3://bucket/{}/", "holds deep/er/x"),
        ("{}/x", "s3://bucket", "s3://bucket holds .*, which is no cache"),
        ("{}", "s3://bucket/{}", "is an object"),
        ("{}/zarr.json", "s3://bucket/{}/in/c.zarr", "lies within another Zarr store"),
        ("{}/.zgroup", "s3://bucket/{}/c.zarr", "lies within another Zarr store"),
        ("{}/c.zarr/zarr.json", "s3://bucket/{}", "holds c.zarr/zarr.json"),
        ("{}/samples/label/zarr.json", "s3://bucket/{}", "holds samples/label/zarr.json"),
    ],
)
def test_what_is_there_is_named_and_stays(s3: Any, prefix: str, key: str, out: str, told: str) -> None:
    place(s3, key.format(prefix))
    before = objects()
    with pytest.raises(ConfigError, match=told):
        check_unclaimed(out.format(prefix))
    with pytest.raises(ConfigError, match=told):
        create(out.format(prefix), *parts())
    assert objects() == before


def test_what_lies_beside_in_the_bucket_costs_nothing(s3: Any, prefix: str) -> None:
    create(f"s3://bucket/{prefix}-first", *parts())  # the bucket's other objects are those of other tests
    counts = []
    for more in range(2):
        for number in range(30 * more):
            place(s3, f"many-{prefix}-{number}")
        place(s3, f".z-{prefix}-{more}//odd")
        with counted_http() as seen:
            create(f"s3://bucket/{prefix}-{more}", *parts())
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_a_folder_that_a_console_made_is_empty(s3: Any, prefix: str) -> None:
    place(s3, f"{prefix}/", b"")
    create(f"s3://bucket/{prefix}", *parts())
    assert read_manifest(f"s3://bucket/{prefix}") == parts()[0]


def test_neighbours_whose_names_begin_alike_are_no_obstacle(s3: Any, prefix: str) -> None:
    place(s3, f"{prefix}-2/x")
    create(f"s3://bucket/{prefix}", *parts())
    assert read_manifest(f"s3://bucket/{prefix}") == parts()[0]


def begun(out: str, **settings: Any) -> None:
    """A creation that died when it had claimed the prefix and written most of the header."""
    with pytest.MonkeyPatch.context() as patch:
        killed_after(9, patch, after=True)
        with pytest.raises(Killed):
            create(out, *parts(**settings))


def test_other_settings_do_not_go_on_with_it(s3: Any, prefix: str) -> None:
    out = f"s3://bucket/{prefix}"
    begun(out)
    before = objects(prefix)
    assert CLAIM_KEY in before
    told = r"begun here by process \d+ on .*\n  views.count: 3 -> 4\nuse those settings"
    with pytest.raises(ConfigError, match=told):
        create(out, *parts(views=4))
    with pytest.raises(ConfigError, match=told):
        check_unclaimed(out, parts(views=4)[0])
    assert objects(prefix) == before


def test_what_came_in_between_is_refused_and_stays(s3: Any, prefix: str) -> None:
    out = f"s3://bucket/{prefix}"
    begun(out)
    place(s3, f"{prefix}/photo.jpg")
    before = objects(prefix)
    with pytest.raises(ConfigError, match=r"holds photo\.jpg"):
        create(out, *parts())
    assert objects(prefix) == before


def test_objects_of_a_codec_that_calibration_chose_before_do_not_stay(s3: Any, prefix: str) -> None:
    """Calibration on another machine may choose other columns."""
    out = f"s3://bucket/{prefix}"
    begun(out, wide=2)
    create(out, *parts(wide=0))
    assert not any("tail_coef_wide" in key for key in objects(prefix))


@pytest.mark.parametrize("claim", [b"", b"{}", b'{"keys": ["photo.jpg"], "manifest": {}, "by": ""}'])
def test_a_claim_that_says_nothing_is_refused(s3: Any, prefix: str, claim: bytes) -> None:
    place(s3, f"{prefix}/{CLAIM_KEY}", claim)
    place(s3, f"{prefix}/photo.jpg")
    with pytest.raises(ConfigError, match="nobody knows what is ours"):
        create(f"s3://bucket/{prefix}", *parts())
    assert objects(prefix) == {CLAIM_KEY: claim, "photo.jpg": b"precious"}


def test_the_lease_of_who_builds_is_no_obstacle(s3: Any, prefix: str) -> None:
    place(s3, f"{prefix}/{LEASE_KEY}")
    create(f"s3://bucket/{prefix}", *parts())
    assert read_manifest(f"s3://bucket/{prefix}") == parts()[0]


def test_deleting_a_key_deletes_no_pattern(s3: Any, prefix: str) -> None:
    place(s3, f"{prefix}/a")
    opened = store.open_store(f"s3://bucket/{prefix}", read_only=False)
    store.delete_object(opened, "*")
    store.delete_object(opened, "?")
    assert objects(prefix) == {"a": b"precious"}


class TestLinks:
    """A link stays a link; the cache appears where it leads."""

    def test_to_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        create(tmp_path / "link", *parts())
        assert (tmp_path / "link").is_symlink()
        assert read_manifest(tmp_path / "real") == parts()[0]

    def test_that_leads_nowhere_yet(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "deep" / "real")
        create(tmp_path / "link", *parts())
        assert (tmp_path / "link").is_symlink()
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["real"]

    def test_a_file_url(self, tmp_path: Path) -> None:
        create(f"file://{tmp_path}/c.zarr", *parts())
        assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]
