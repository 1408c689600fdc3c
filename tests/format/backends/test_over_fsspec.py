"""fsspec's file systems, in the process that they were opened in."""

from __future__ import annotations

import os

from cache_builder.format import StorageError
from cache_builder.format.store import open_store, read_bytes, write_durably


def test_a_forked_process_is_refused_and_does_not_hang() -> None:
    store = open_store("memory://forked/c.zarr", read_only=False)
    write_durably(store, "k", b"1")
    child = os.fork()
    if child == 0:
        refused = 0
        for ask in (
            lambda: read_bytes(store, "k"),
            lambda: open_store("memory://another/c.zarr", read_only=True),
        ):
            try:
                ask()
            except StorageError as error:
                refused += "forked" in str(error) and not error.waiting_helps
            except BaseException:  # noqa: BLE001 - the child must end here
                os._exit(9)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
