import asyncio
import threading
from pathlib import Path

import pytest

from cache_builder.format import Cache, StorageError, open_cache
from logit_server import looks, places
from logit_server.served_caches import Catalog, ServedCache
from logit_server.settings import Settings
from logit_server.shelf import Shelf, Slot, open_shelf
from logit_server.watch import Watch
from tests.extended import extend_synthetic

PLENTY = 2**30


def test_a_place_is_looked_at_though_another_one_of_its_name_hung(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "LOOK_S", 0.2)
    goes_on = threading.Event()

    class Hanging(Slot):
        def look(self) -> None:
            goes_on.wait()

    async def check() -> None:
        (slot,) = open_shelf(Settings(caches=(str(own_cache),))).slots
        hung = Hanging(slot.name, "elsewhere")
        watch = Watch(Shelf([hung]), PLENTY, 1000)
        assert "did not answer" in str(await watch.look(hung))
        watch.shelf.drop([hung])
        watch.forget([hung])
        watch.shelf.add(slot)
        monkeypatch.setattr(looks, "LOOK_S", 60)
        assert await watch.look(slot) is None
        goes_on.set()

    asyncio.run(check())


def test_who_asks_for_all_places_at_once_shares_one_answer() -> None:
    looked = []

    class Away(Slot):
        def look(self) -> None:
            looked.append(self)
            raise StorageError(f"{self.name} is away")

    async def check() -> None:
        slots = [Away(str(number), "elsewhere") for number in range(100)]
        watch = Watch(Shelf(slots), PLENTY, 1000)
        answers = await asyncio.gather(*(watch.look_at_all() for _ in range(50)))
        assert all(answer is answers[0] for answer in answers)
        assert {slot: str(error) for slot, error in answers[0].items()} == {
            slot: f"{slot.name} is away" for slot in slots
        }
        assert sorted(map(id, looked)) == sorted(map(id, slots))

    asyncio.run(check())


def test_what_a_new_cache_needs_is_computed_in_threads(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared_by = set()
    compare = places.holds_all_of

    def noting(new: Cache, old: Cache) -> bool:
        compared_by.add(threading.current_thread())
        return compare(new, old)

    monkeypatch.setattr(places, "holds_all_of", noting)
    (slot,) = open_shelf(Settings(caches=(str(own_cache),))).slots
    old, place = slot.current, slot.place
    assert old is not None
    assert place is not None

    async def check() -> ServedCache:
        published: asyncio.Future[Catalog] = asyncio.get_running_loop().create_future()
        watch = Watch(Shelf([slot]), PLENTY, 1000)
        watch.publish = published.set_result
        async with watch.running():
            await asyncio.sleep(0)
            new_id = extend_synthetic(own_cache, 5).completed_id
            await asyncio.to_thread(place.look)  # as who reads a block does
            catalog = await asyncio.wait_for(published, 60)
        assert (catalog.find("synthetic").cache_id, catalog.find(old.cache_id).views) == (new_id, 3)
        return catalog.find("synthetic")

    new = asyncio.run(check())
    assert {"manifest_json", "stored_bytes"} <= set(vars(new))
    assert new.stored_bytes == ServedCache("c", open_cache(own_cache), new.cache_id).stored_bytes
    assert compared_by
    assert threading.current_thread() not in compared_by
