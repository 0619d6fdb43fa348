"""Routers whose store is gone, locked, or another one: the node is served at once, its old prefixes when that is back.

    cn --- core --+-- mar1 --:
    redis         +-- mar2 --:-- mn
"""

import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from router.demo.lab import Host
from router.demo.topology import CN_ADDRESS
from tests.e2e.domain import Domain, RouterProcess, finished, flowing
from tests.eventually import eventually
from tests.router.redis_servers import needs_redis

MakeDomain = Callable[..., Domain]

AT_ONCE = 1.5  # s from the move to an address: no time-out of the store may stand before it


REDIS = {"store": {"url": f"redis://[{CN_ADDRESS}]:6379"}}


@contextmanager
def redis_at_the_correspondent(it: Domain) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that forgets everything when it ends."""
    needs_redis()
    command = ["redis-server", "--bind", str(CN_ADDRESS), "--protected-mode", "no", "--save", "", "--dir"]
    host = it.world["cn"]
    server = host.spawn([*command, str(it.directory)], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(host), 20.0, "redis-server")
        yield server
    finally:
        server.kill()
        server.wait()


def listens(host: Host) -> bool:
    with host.inside(), socket.socket(socket.AF_INET6) as client:
        return client.connect_ex((str(CN_ADDRESS), 6379)) == 0


def told(router: RouterProcess, key: str) -> object:
    """A line of `show config`."""
    (value,) = (row["value"] for row in router.show("config") if row["key"] == key)
    return value


def store_files(it: Domain) -> list[Path]:
    return sorted(it.directory.glob("sessions.db*"))


def test_a_store_that_is_locked_delays_no_local_prefix(domain: MakeDomain) -> None:
    with domain().start() as it:
        node, old, download = it.downloading()
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
        assert finished(download)["source"] == str(old)


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


def spoil(file: Path) -> None:
    """Overwrite it as a whole, and never cut it short: who has mapped it would die of that (SIGBUS)."""
    garbage = b"no database at all, and not for the next few pages either. " * 300
    with file.open("r+b") as opened:
        opened.write(garbage * (1 + file.stat().st_size // len(garbage)))


def test_a_store_that_is_garbage_now_delays_no_local_prefix(domain: MakeDomain) -> None:
    with domain().start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        node.address(it["mar1"].pool)
        for file in store_files(it):
            spoil(file)
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


# A server of the Redis protocol


def test_a_node_moves_over_a_server(domain: MakeDomain) -> None:
    with domain(settings=REDIS) as it, redis_at_the_correspondent(it):
        it.start()
        node, old, download = it.downloading()
        for mar in ("mar2", "mar1", "mar2"):
            node.attach(mar)
            node.address(it[mar].pool, AT_ONCE)
            flowing(download)
        assert finished(download)["source"] == str(old)


def test_a_server_that_is_stopped_delays_no_local_prefix(domain: MakeDomain) -> None:
    with domain(settings=REDIS) as it, redis_at_the_correspondent(it) as server:
        it.start()
        node, old, download = it.downloading()
        flowing(download)
        server.send_signal(signal.SIGSTOP)
        node.attach("mar2")
        node.address(it["mar2"].pool, AT_ONCE)
        eventually(lambda: told(it["mar2"], "store_reachable") is False)
        server.send_signal(signal.SIGCONT)
        flowing(download, timeout=20.0)
        eventually(lambda: told(it["mar2"], "store_reachable") is True, 20.0)
        assert it["mar2"].heard("store", "reachable=True")
        assert finished(download)["source"] == str(old)


def test_a_router_that_starts_without_the_server_has_its_prefixes_and_takes_new_nodes(domain: MakeDomain) -> None:
    with domain(nodes=2, settings=REDIS) as it, redis_at_the_correspondent(it) as server:
        it.start()
        other = it.nodes["mn2"].no_duplicate_detection()
        node, old, download = it.downloading()
        flowing(download)
        server.send_signal(signal.SIGSTOP)
        it["mar1"].stop(signal.SIGKILL)
        it["mar1"].start()
        assert (told(it["mar1"], "store_reachable"), told(it["mar1"], "store_restored")) == (False, False)
        flowing(download)
        other.attach("mar1")
        other.address(it["mar1"].pool, AT_ONCE)
        assert len({row["prefix"] for row in it["mar1"].show("prefixes")}) == 2
        server.send_signal(signal.SIGCONT)
        eventually(lambda: told(it["mar1"], "store_restored") is True, 20.0)
        node.attach("mar2")
        flowing(download, timeout=20.0)
        assert finished(download)["source"] == str(old)


def test_a_server_that_has_forgotten_everything_is_told_again(domain: MakeDomain) -> None:
    with domain(settings=REDIS) as it:
        with redis_at_the_correspondent(it):
            it.start()
            node, old, download = it.downloading()
            flowing(download)
        eventually(lambda: told(it["mar1"], "store_reachable") is False)
        with redis_at_the_correspondent(it):
            eventually(lambda: told(it["mar1"], "store_reachable") is True, 20.0)
            node.attach("mar2")
            flowing(download, timeout=20.0)
            assert finished(download)["source"] == str(old)


def test_a_file_that_is_gone_at_the_start_is_written_from_what_the_router_knows(domain: MakeDomain) -> None:
    with domain().start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        node.address(it["mar1"].pool)
        eventually(lambda: it["mar1"].counter("store.unsaved") == 0)
        for router in it.routers.values():
            router.stop(signal.SIGKILL)
        for file in store_files(it):
            file.unlink()
        it.start()
        node.attach("mar2")
        eventually(lambda: any(kind != "native" for kind, _ in it["mar2"].paths().values()), 10.0)


def test_a_file_that_cannot_be_opened_at_the_start_is_no_reason_not_to(domain: MakeDomain) -> None:
    with domain().start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        mine = node.address(it["mar1"].pool)
        it["mar1"].stop(signal.SIGKILL)
        for file in store_files(it):
            spoil(file)
        it["mar1"].start()
        assert told(it["mar1"], "store_restored") is False
        eventually(lambda: ("native", None) in it["mar1"].paths().values())
        assert node.address(it["mar1"].pool) == mine
