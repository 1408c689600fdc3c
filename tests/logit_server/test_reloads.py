import asyncio
import contextlib
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest
from starlette.testclient import TestClient

from cache_builder.format import Cache, open_cache
from cache_builder.format.wire import RELOAD_PATH, ROWS
from logit_server import places
from logit_server import reloads as module
from logit_server.app import create_app
from logit_server.reloads import Reloaded, Reloads
from logit_server.run import serving
from logit_server.settings import Settings
from logit_server.shelf import Slot, open_catalog, open_slot
from logit_server.sources_of_caches import Source
from logit_server.state import State
from logit_server.tokens import hash_of
from logit_server.wishes import Wishes
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.extended import extend_synthetic
from tests.logit_server.processes import ROOT, started

ROWS_ASKED = np.arange(100, dtype="<u4").tobytes()


@contextlib.contextmanager
def serves(*caches: Path, **settings: object) -> Iterator[httpx2.Client]:
    given = Settings(caches=tuple(map(str, caches)), port=0, **settings)
    with serving(given) as base, httpx2.Client(base_url=base, timeout=120) as client:
        yield client


def records(client: httpx2.Client, key: str, view: int = 0) -> httpx2.Response:
    return client.post(
        f"/v1/caches/{key}/records?view={view}", content=ROWS_ASKED, headers={"Content-Type": ROWS}
    )


def reload(client: httpx2.Client) -> dict[str, Any]:
    response = client.post(RELOAD_PATH)
    assert response.status_code == 200, response.text
    return {key: value for key, value in response.json().items() if value}


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def another(path: Path, name: str = "another", seed: int = 1) -> Cache:
    write_synthetic_cache(path, synthetic_logits(3, 100, 40, seed), sketch=True, name=name)
    return open_cache(path)


def test_an_extended_cache_is_served_while_trainers_of_the_old_one_finish(own_cache: Path) -> None:
    old = open_cache(own_cache)
    old_id, pages = old.manifest.completed_id, [old.read_page(view).tobytes() for view in range(3)]
    with serves(own_cache) as client:
        assert records(client, old_id, 0).content == pages[0]
        new_id = extend_synthetic(own_cache, 5).completed_id
        # The first load of a block notices, and the request that noticed is answered with the same bytes.
        assert records(client, old_id, 2).content == pages[2]
        until(lambda: client.get("/v1/caches/synthetic").headers["x-kdcache-id"] == new_id)
        for view in range(3):
            answer = records(client, old_id, view)
            assert (answer.content, answer.headers["x-kdcache-id"]) == (pages[view], old_id)
        new = open_cache(own_cache)
        for key in ("synthetic", new_id):
            answer = records(client, key, 4)
            assert (answer.content, answer.headers["x-kdcache-id"]) == (new.read_page(4).tobytes(), new_id)
        assert records(client, old_id, 4).status_code == 422
        assert client.get(f"/v1/caches/{old_id}").json()["views"]["count"] == 3
        for path in ("arrays/samples/label", "samples/dir/img_00042.png", "ids", "ready"):
            assert client.get(f"/v1/caches/{old_id}/{path}").status_code == 200, path
        shard = f"/v1/caches/{old_id}/zarr/records/logits/topk_residual/c/0/1/0"
        assert client.get(shard).status_code == 410
        assert client.get("/readyz").status_code == 200


def test_a_replaced_cache_is_gone_by_its_id_and_served_anew_by_its_name(own_cache: Path) -> None:
    old_id = open_cache(own_cache).manifest.completed_id
    with serves(own_cache) as client:
        assert records(client, old_id).status_code == 200
        shutil.rmtree(own_cache)
        new = another(own_cache, name="synthetic")
        assert reload(client) == {"replaced": ["synthetic"]}
        answer = records(client, "synthetic")
        assert answer.content == new.read_page(0).tobytes()
        assert answer.headers["x-kdcache-id"] == new.manifest.cache_id
        gone = records(client, old_id)
        assert (gone.status_code, gone.json()["error"]) == (410, "ReplacedCacheError")
        assert str(own_cache) not in gone.text


def test_a_replaced_cache_is_noticed_without_any_request(own_cache: Path) -> None:
    with serves(own_cache, look_s=0.1) as client:
        shutil.rmtree(own_cache)
        new = another(own_cache)
        until(lambda: client.get("/v1/caches/synthetic").headers.get("x-kdcache-id") == new.manifest.cache_id)


def test_an_id_that_another_worker_knows_already_is_looked_for(own_cache: Path) -> None:
    with serves(own_cache, look_s=1000) as client:
        new_id = extend_synthetic(own_cache, 5).completed_id
        answer = records(client, new_id, 4)
        assert (answer.status_code, answer.headers["x-kdcache-id"]) == (200, new_id)
        assert records(client, "f" * 32).status_code == 404


def test_a_removed_cache_says_so_and_heals(own_cache: Path) -> None:
    expected = open_cache(own_cache).read_page(0).tobytes()
    with serves(own_cache) as client:
        own_cache.rename(own_cache.with_name("elsewhere"))
        answer = records(client, "synthetic")
        assert (answer.status_code, answer.json()["error"]) == (503, "StorageError")
        assert "removed" in answer.json()["detail"]
        (refused,) = reload(client)["refused"]
        assert refused["cache"] == "synthetic"
        assert str(own_cache.parent) not in refused["detail"]
        own_cache.with_name("elsewhere").rename(own_cache)
        assert records(client, "synthetic").content == expected
        assert reload(client) == {"unchanged": ["synthetic"]}


def test_a_folder_of_caches_is_served_and_read_again(own_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    own_cache.rename(folder / "one")
    (folder / "notes.txt").touch()
    with serves(folder) as client:
        another(folder / "two", "second")
        another(folder / ".hidden", "hidden")
        write_synthetic_cache(folder / "half", synthetic_logits(2, 64, 10), commit=1, name="half")
        done = reload(client)
        assert (done["added"], done["unchanged"]) == (["second"], ["synthetic"])
        assert [item["cache"] for item in done["refused"]] == ["half"]
        answer = records(client, "second")
        assert (answer.status_code, answer.content) == (
            200,
            open_cache(folder / "two").read_page(0).tobytes(),
        )
        shutil.rmtree(folder / "half")
        shutil.rmtree(folder / "one")
        assert reload(client) == {"removed": ["synthetic"], "unchanged": ["second"]}
        assert records(client, "synthetic").status_code == 404
        # A folder that is empty all of a sudden is a disk that is not there.
        folder.rename(tmp_path / "elsewhere")
        folder.mkdir()
        assert [item["cache"] for item in reload(client)["refused"]] == ["many", "second"]
        assert client.get("/readyz").status_code == 503
        folder.rmdir()
        (tmp_path / "elsewhere").rename(folder)
        assert reload(client) == {"unchanged": ["second"]}
        assert records(client, "second").status_code == 200


@pytest.mark.parametrize("is_renamed", [True, False])
def test_a_cache_that_was_moved_and_extended_is_served_by_its_old_id(
    own_cache: Path, tmp_path: Path, is_renamed: bool
) -> None:
    old = open_cache(own_cache)
    old_id, page = old.manifest.completed_id, old.read_page(2).tobytes()
    file, moved = tmp_path / "kdcache.toml", tmp_path / "moved"
    file.write_text(f"caches = ['{own_cache}']\n")
    name = "renamed" if is_renamed else "synthetic"
    with started("", config=file) as server, httpx2.Client(base_url=server.url, timeout=120) as client:
        own_cache.rename(moved)
        new_id = extend_synthetic(moved, 5).completed_id
        file.write_text(f"caches = ['{name}={moved}']\n")
        done = reload(client)
        changed = {"added": [name], "removed": ["synthetic"]} if is_renamed else {"extended": [name]}
        assert done == changed
        assert client.get(f"/v1/caches/{name}").headers["x-kdcache-id"] == new_id
        answer = records(client, old_id, 2)
        assert (answer.status_code, answer.content) == (200, page)
        assert records(client, old_id, 4).status_code == 422
        assert records(client, new_id, 4).status_code == 200


def test_a_folder_that_moves_costs_a_comparison_for_each_of_its_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = places.holds_all_of

    def noting(new: Cache, old: Cache) -> bool:
        compared.append(new.location)
        return compare(new, old)

    folder, moved = tmp_path / "many", tmp_path / "moved"
    folder.mkdir()
    names = [f"c{seed}" for seed in range(5)]
    ids = [another(folder / name, name, seed).manifest.completed_id for seed, name in enumerate(names)]
    app = create_app(Settings(caches=(str(folder),)), reread=lambda: Settings(caches=(str(moved),)))
    with TestClient(app, "http://localhost", client=("127.0.0.1", 1)) as client:
        folder.rename(moved)
        for name in names:
            extend_synthetic(moved / name, 5)
        monkeypatch.setattr(places, "holds_all_of", noting)
        assert reload(client) == {"extended": names}
        assert len(compared) <= len(names)
        for cache_id in ids:
            assert client.get(f"/v1/caches/{cache_id}").status_code == 200


def test_what_lies_there_and_cannot_be_served_is_no_cache_of_before(own_cache: Path) -> None:
    old_id = open_cache(own_cache).manifest.completed_id
    with serves(own_cache, look_s=0.1) as client:
        kept = own_cache.rename(own_cache.with_name("kept"))
        own_cache.mkdir()
        (own_cache / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
        until(lambda: records(client, "synthetic").status_code == 410)
        assert records(client, old_id).status_code == 410
        assert client.get("/readyz").status_code == 503
        shutil.rmtree(own_cache)
        kept.rename(own_cache)
        until(lambda: records(client, "synthetic").status_code == 200)
        assert records(client, old_id).status_code == 200


def test_the_list_of_the_file_of_settings_is_read_again(own_cache: Path, tmp_path: Path) -> None:
    another(tmp_path / "second.zarr", "second")
    file = tmp_path / "kdcache.toml"
    file.write_text(f'caches = ["{own_cache}"]\n')
    with started("", config=file) as server, httpx2.Client(base_url=server.url, timeout=120) as client:
        file.write_text(f'caches = ["{tmp_path}/second.zarr"]\nmax_ids = 7\n')
        assert reload(client) == {"added": ["second"], "removed": ["synthetic"], "needs_restart": ["max_ids"]}
        assert records(client, "synthetic").status_code == 404
        file.write_text("caches = [\n")
        (refused,) = reload(client)["refused"]
        assert "could not be read again" in refused["detail"]
        assert records(client, "second").status_code == 200


def test_a_cache_may_move_and_stays_served_where_it_cannot_be_opened_there(
    own_cache: Path, odd_path: Path, tmp_path: Path
) -> None:
    cache = open_cache(own_cache)
    expected, cache_id = cache.read_page(0).tobytes(), cache.manifest.completed_id
    moved, file = tmp_path / "moved" / own_cache.name, tmp_path / "kdcache.toml"
    file.write_text(f'caches = ["{own_cache}"]\n')
    with started("", config=file) as server, httpx2.Client(base_url=server.url, timeout=120) as client:
        file.write_text(f'caches = ["{moved}"]\n')
        done = reload(client)
        assert ([item["cache"] for item in done["refused"]], "removed" in done) == ([own_cache.name], False)
        assert records(client, "synthetic").content == expected
        shutil.copytree(own_cache, moved)
        assert reload(client) == {"unchanged": ["synthetic"]}
        shutil.rmtree(own_cache)
        for key in ("synthetic", cache_id):
            assert (records(client, key, 1).status_code, records(client, key).content) == (200, expected)
        file.write_text(f'caches = ["synthetic={odd_path}"]\n')
        assert reload(client) == {"replaced": ["synthetic"]}
        assert (
            client.get("/v1/caches/synthetic").headers["x-kdcache-id"]
            == open_cache(odd_path).manifest.cache_id
        )
        assert records(client, cache_id).status_code == 410


def test_a_name_that_is_taken_discloses_no_place(own_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    own_cache.rename(folder / "one")
    with serves(folder) as client:
        another(folder / "two", "synthetic")
        answer = client.post(RELOAD_PATH)
        (refused,) = answer.json()["refused"]
        assert "'synthetic'" in refused["detail"]
        assert "NAME=" in refused["detail"]
        assert str(tmp_path) not in answer.text


def test_a_cache_whose_root_is_missing_stays_on_the_list(own_cache: Path) -> None:
    with serves(own_cache) as client:
        root = (own_cache / "zarr.json").read_bytes()
        (own_cache / "zarr.json").unlink()
        done = reload(client)
        assert (list(done), done["refused"][0]["cache"]) == (["refused"], "synthetic")
        assert records(client, "synthetic").status_code == 503
        (own_cache / "zarr.json").write_bytes(root)
        assert reload(client) == {"unchanged": ["synthetic"]}
        assert records(client, "synthetic").status_code == 200


def test_who_calls_while_a_reload_runs_shares_the_next_one(own_cache: Path) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    lists = 0

    def reread() -> Settings:
        nonlocal lists
        lists += 1
        begun.set()
        goes_on.wait(60)
        return settings

    async def calls() -> None:
        reloads = Reloads(state, reread)
        first = asyncio.create_task(reloads.reload())
        await asyncio.to_thread(begun.wait, 60)
        others = [asyncio.create_task(reloads.reload()) for _ in range(10)]
        await asyncio.sleep(0)
        goes_on.set()
        done = await asyncio.gather(first, *others)
        assert {tuple(one.unchanged) for one in done} == {("synthetic",)}

    settings = Settings(caches=(str(own_cache),))
    state = State(settings, open_catalog(settings))
    asyncio.run(calls())
    assert lists == 2


def test_a_wish_is_granted_though_there_were_more_before_the_folder_was_emptied(
    own_cache: Path, tmp_path: Path
) -> None:
    lists = 0

    def reread() -> Settings:
        nonlocal lists
        lists += 1
        return settings

    async def check() -> None:
        wishes, reloads = Wishes(tmp_path / "run"), Reloads(state, reread)
        for _ in range(3):
            wishes.add()
        async with reloads.running(wishes):
            shutil.rmtree(tmp_path / "run")
            wishes.add()
            await reloads.catch_up()

    settings = Settings(caches=(str(own_cache),))
    state = State(settings, open_catalog(settings))
    asyncio.run(check())
    assert lists == 1


def test_a_list_that_hangs_is_refused_and_keeps_no_loop_from_ending(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_S", 0.1)
    goes_on = threading.Event()

    def reread() -> Settings:
        goes_on.wait()
        return settings

    settings = Settings(caches=(str(own_cache),))
    state = State(settings, open_catalog(settings))
    done = asyncio.run(Reloads(state, reread).reload())
    goes_on.set()
    assert ([one.cache for one in done.refused], done.unchanged) == ([""], ["synthetic"])


def test_a_cache_that_hangs_is_refused_and_the_others_are_added(
    own_cache: Path, odd_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_S", 5)
    goes_on = threading.Event()

    def open_or_hang(source: Source, page_bytes: int) -> Slot:
        if source.name == "hangs":
            goes_on.wait()
        return open_slot(source, page_bytes)

    monkeypatch.setattr(module, "open_slot", open_or_hang)
    settings = Settings(caches=(str(own_cache),))
    state = State(settings, open_catalog(settings))
    more = Settings(caches=(str(own_cache), f"hangs={odd_path}", f"other={odd_path}"))
    done = asyncio.run(Reloads(state, lambda: more).reload())
    goes_on.set()
    assert (done.added, done.unchanged) == (["other"], ["synthetic"])
    assert [(one.cache, "did not answer" in one.detail) for one in done.refused] == [("hangs", True)]


@pytest.mark.parametrize("workers", [1, 2])
def test_hangup_reaches_every_worker_and_ends_none(own_cache: Path, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    own_cache.rename(folder / "one")
    with started(folder, workers=workers) as server:
        assert httpx2.get(f"{server.url}/healthz", timeout=120).status_code == 200
        another(folder / "two", "second")
        server.process.send_signal(signal.SIGHUP)
        # The kernel picks the worker: none may miss it.
        until(lambda: all(_names(server.url) == ["synthetic", "second"] for _ in range(16)))
        another(folder / "three", "third", seed=2)
        assert httpx2.post(server.url + RELOAD_PATH, timeout=120).json()["added"] == ["third"]
        until(lambda: all(len(_names(server.url)) == 3 for _ in range(16)))
        server.process.terminate()
        assert server.process.wait(120) == 0


def _names(base: str) -> list[str]:
    with httpx2.Client(base_url=base, timeout=120) as client:
        return [cache["name"] for cache in client.get("/v1/caches").json()["caches"]]


def test_a_worker_that_starts_late_knows_what_the_others_know(own_cache: Path) -> None:
    old = open_cache(own_cache)
    old_id, page = old.manifest.completed_id, old.read_page(1).tobytes()
    with started(own_cache, workers=2) as server:
        client = httpx2.Client(base_url=server.url, timeout=120)
        with client:
            assert records(client, old_id).status_code == 200
            new_id = extend_synthetic(own_cache, 5).completed_id
            until(lambda: all(_id_of(server.url) == new_id for _ in range(16)))
        workers = psutil.Process(server.process.pid).children()
        for worker in workers:
            with contextlib.suppress(psutil.Error):
                worker.kill()
        own_cache.rename(own_cache.with_name("elsewhere"))
        # They start also while the store is away, and know that it is.
        until(lambda: _status(server.url, old_id) == 503)
        own_cache.with_name("elsewhere").rename(own_cache)
        until(lambda: _status(server.url, new_id) == 200)
        for worker in psutil.Process(server.process.pid).children():
            with contextlib.suppress(psutil.Error):
                worker.kill()
        until(lambda: _status(server.url, old_id) == 200)
        with httpx2.Client(base_url=server.url, timeout=120) as other:
            assert records(other, old_id, 1).content == page
        server.process.terminate()
        assert server.process.wait(120) == 0


def _id_of(base: str) -> str | None:
    return httpx2.get(f"{base}/v1/caches/synthetic", timeout=120).headers.get("x-kdcache-id")


def _status(base: str, key: str) -> int | None:
    with contextlib.suppress(httpx2.TransportError), httpx2.Client(base_url=base, timeout=120) as client:
        return records(client, key, 1).status_code
    return None


def test_only_tokens_of_scope_admin_may_ask_and_are_told_of_their_caches_alone(
    own_cache: Path, odd_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(
        f'reader = {{ hash = "{hash_of(b"r")}", scopes = ["read"] }}\n'
        f'one = {{ hash = "{hash_of(b"o")}", scopes = ["admin", "read"], caches = ["odd"] }}\n'
        f'all = {{ hash = "{hash_of(b"a")}", scopes = ["admin"] }}\n'
    )
    with serves(own_cache, odd_path, tokens=file) as client:
        answers = {
            token: client.post(RELOAD_PATH, headers={"Authorization": f"Bearer {token}"}) for token in "roax"
        }
    assert {token: answer.status_code for token, answer in answers.items()} == {
        "r": 403, "o": 200, "a": 200, "x": 401,
    }  # fmt: skip
    assert answers["a"].json()["unchanged"] == ["synthetic", "odd"]
    assert answers["o"].json()["unchanged"] == ["odd"]
    assert "synthetic" not in answers["o"].text


def test_the_documents_name_all_that_a_reload_says() -> None:
    (line,) = re.findall(r"^\| `reloaded` \|.*$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    assert [name for name in Reloaded.model_fields if name not in line] == []
