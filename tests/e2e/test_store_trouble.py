"""Routers whose store is gone, locked, or another one: the node is served at once, its old prefixes when that is back.

    cn --- core --+-- mar1 --:
                  +-- mar2 --:-- mn
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.e2e.domain import Domain, flowing
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

AT_ONCE = 1.5  # s from the move to an address: no time-out of the store may stand before it


def store_files(it: Domain) -> list[Path]:
    return sorted(it.directory.glob("sessions.db*"))


def test_a_store_that_is_locked_delays_no_local_prefix(domain: MakeDomain) -> None:
    with domain().start() as it:
        node = it.mn.no_duplicate_detection()
        it.serve()
        node.attach("mar1")
        old = node.address(it["mar1"].pool)
        download = it.download()
        flowing(download)
        holder = sqlite3.connect(it.directory / "sessions.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        try:
            node.attach("mar2")
            node.address(it["mar2"].pool, AT_ONCE)
        finally:
            holder.execute("ROLLBACK")
            holder.close()
        flowing(download, timeout=15.0)
        done = download.stop()
        assert (done["error"], done["corrupt"], done["source"]) == ("", 0, str(old))


def test_a_store_whose_file_was_deleted_delays_no_local_prefix(domain: MakeDomain) -> None:
    with domain().start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        node.address(it["mar1"].pool)
        for file in store_files(it):
            file.unlink()
        node.attach("mar2")
        node.address(it["mar2"].pool, AT_ONCE)
        node.attach("mar1")
        eventually(lambda: ("native", None) in it["mar1"].paths().values(), 5.0)


def test_a_store_that_is_garbage_now_delays_no_local_prefix(domain: MakeDomain) -> None:
    with domain().start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        node.address(it["mar1"].pool)
        for file in store_files(it):
            file.write_bytes(b"no database at all, and not for the next few pages either. " * 300)
        node.attach("mar2")
        node.address(it["mar2"].pool, AT_ONCE)
        assert [row["value"] for row in it["mar2"].show("config") if row["key"] == "store_reachable"] == [False]
        assert it["mar2"].stop() == 0


def test_a_directory_of_the_store_that_is_gone_delays_no_local_prefix(domain: MakeDomain) -> None:
    settings = {"store": {}}
    with domain(settings=settings) as it:
        place = it.directory / "shared"
        for router in it.routers.values():
            text = router.config.read_text().replace(str(it.directory / "sessions.db"), str(place / "sessions.db"))
            router.config.write_text(text)
        it.start()
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        node.address(it["mar1"].pool)
        place.rename(it.directory / "elsewhere")
        node.attach("mar2")
        node.address(it["mar2"].pool, AT_ONCE)


def test_a_record_nobody_can_read_delays_no_local_prefix(domain: MakeDomain) -> None:
    """Written by a newer version, or by hand."""
    with domain().start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        node.address(it["mar1"].pool)
        with sqlite3.connect(it.directory / "sessions.db") as database:
            database.execute("UPDATE record SET sessions = ?", ('[{"prefix": "nonsense"}]',))
        database.close()
        node.attach("mar2")
        node.address(it["mar2"].pool, AT_ONCE)
