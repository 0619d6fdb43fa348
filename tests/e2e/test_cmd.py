"""Three MARs that know each other's nodes by a CMD alone (RFC 8885), and a stock host that moves between them.

cn --- core --+-- mar1 --:
              +-- mar2 --:-- mn
              +-- mar3 --:
              +-- cmd, cmd2
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from tests.e2e.cmd_domain import CMD, CMD2, CmdDomain
from tests.e2e.domain import NODES, flowing
from tests.e2e.test_store_trouble import REDIS, redis_at_the_correspondent
from tests.e2e.test_takeover import take_over
from tests.eventually import eventually

MakeDomain = Callable[..., CmdDomain]
MODES = ("proxy", "relay", "locator")
AT_ONCE = 1.5  # s from the move to an address: no time-out of the CMD may stand before it


@pytest.fixture
def cmd_domain(tmp_path: Path) -> Iterator[MakeDomain]:
    with ExitStack() as stack:
        yield lambda **about: stack.enter_context(CmdDomain(tmp_path, **about))


def prefix(it: CmdDomain, number: int) -> IPv6Network:
    return next(it[f"mar{number}"].pool.subnets(new_prefix=64))


def settled(it: CmdDomain, at: int, *visited: int) -> None:
    """Each prefix goes from its anchor straight to where the node is, and the CMD knows it."""
    here = it[f"mar{at}"]
    expected: dict[str, dict[IPv6Network, tuple[str, str | None]]] = {here.name: {prefix(it, at): ("native", None)}}
    for number in visited:
        anchor = it[f"mar{number}"]
        expected[here.name][prefix(it, number)] = ("to anchor", str(anchor.address))
        expected[anchor.name] = {prefix(it, number): ("to visited router", str(here.address))}
    for name, paths in expected.items():
        eventually(lambda n=name, p=paths: it[n].paths() == p, 8.0, f"{name} has {paths}")
    known = [(NODES[0], str(here.address), 0)]
    for cmd in (name for name in (CMD, CMD2) if name in it.routers):
        eventually(
            lambda n=cmd: [(row["node"], row["address"], row["untold"]) for row in it[n].show("nodes")] == known,
            5.0,
            f"{cmd} knows where the node is",
        )


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_survives_two_moves_and_the_return(cmd_domain: MakeDomain, mode: str) -> None:
    with cmd_domain(mode=mode).start() as it:
        node, first, download = it.downloading()
        flowing(download)
        for at, visited in ((2, (1,)), (3, (1, 2)), (1, (2, 3))):
            node.attach(f"mar{at}")
            node.address(it[f"mar{at}"].pool, AT_ONCE)
            settled(it, at, *visited)
            flowing(download)
            for number in visited:
                eventually(lambda n=number: node.deprecated(prefix(it, n)), 5.0, f"prefix of mar{number} is deprecated")
            node.begins_from(node.address(prefix(it, at)))
        done = download.stop()
        assert (done["error"], done["corrupt"], done["source"]) == ("", 0, str(first))


def test_a_cmd_that_is_killed_comes_back_with_what_it_had_acknowledged(cmd_domain: MakeDomain) -> None:
    with cmd_domain(mode="relay").start() as it:
        node, _, download = it.downloading()
        node.attach("mar2")
        settled(it, 2, 1)
        (visiting,) = (row for row in it["mar2"].show("bindings") if row["prefix"] == str(prefix(it, 1)))
        assert visiting["dlif"].startswith("fe80::")
        rows = {(row["prefix"], row["anchor"], row["role"], row["delivered_at"]) for row in it[CMD].show("sessions")}
        assert rows == {
            (str(prefix(it, 1)), "mar1", "previous", "mar2"),
            (str(prefix(it, 2)), "mar2", "serving", "mar2"),
        }
        assert [(row["name"], row["nodes"], row["anchors"]) for row in it[CMD].show("peers")] == [
            ("mar1", 0, 1),
            ("mar2", 1, 0),
            ("mar3", 0, 0),
        ]
        it[CMD].stop(signal.SIGKILL)
        flowing(download)
        it[CMD].start()
        settled(it, 2, 1)
        node.attach("mar3")
        settled(it, 3, 1, 2)
        flowing(download)
        assert download.stop()["error"] == ""


def test_an_anchor_that_is_killed_and_loses_its_store_goes_on_with_what_its_journal_says(
    cmd_domain: MakeDomain, tmp_path: Path
) -> None:
    with cmd_domain().start() as it:
        node, _, download = it.downloading()
        node.attach("mar2")
        settled(it, 2, 1)
        it["mar1"].stop(signal.SIGKILL)
        stored = list(tmp_path.glob("mar1*/sessions.db*"))
        assert stored
        for file in stored:
            file.unlink()
        it["mar1"].start()
        settled(it, 2, 1)
        eventually(lambda: {"key": "store_restored", "value": True} in it["mar1"].show("config"), 8.0, "it is shown")
        flowing(download, timeout=15.0)
        node.attach("mar1")
        settled(it, 1, 2)
        assert download.stop()["error"] == ""


def test_while_the_cmd_is_away_a_node_gets_a_local_prefix_and_what_it_brought_follows(cmd_domain: MakeDomain) -> None:
    with cmd_domain().start() as it:
        node, _, download = it.downloading()
        settled(it, 1)
        it[CMD].stop(signal.SIGKILL)
        node.attach("mar2")
        node.address(it["mar2"].pool, AT_ONCE)
        eventually(lambda: {"key": "cmd_reachable", "value": False} in it["mar2"].show("config"), 8.0, "it is shown")
        it[CMD].start()
        settled(it, 2, 1)
        flowing(download, timeout=15.0)
        assert download.stop()["error"] == ""
        assert {"key": "cmd_reachable", "value": True} in it["mar2"].show("config")


@pytest.mark.parametrize("mode", ["relay", "locator"])  # who tells the anchors of another CMD
def test_a_node_moves_between_routers_of_two_cmds_over_one_file(cmd_domain: MakeDomain, mode: str) -> None:
    with cmd_domain(mode=mode, cmds=2).start() as it:
        goes_round_two_cmds(it)


def test_a_node_moves_between_routers_of_two_cmds_over_one_server(cmd_domain: MakeDomain) -> None:
    with cmd_domain(mode="proxy", cmds=2, store=REDIS["store"]["url"]) as it, redis_at_the_correspondent(it):
        goes_round_two_cmds(it.start())


def goes_round_two_cmds(it: CmdDomain) -> None:
    """And once more while one of them is away."""
    node, _, download = it.downloading()
    for at, visited in ((2, (1,)), (3, (1, 2)), (1, (2, 3))):
        node.attach(f"mar{at}")
        node.address(it[f"mar{at}"].pool, AT_ONCE)
        settled(it, at, *visited)
        flowing(download)
    it[CMD].stop(signal.SIGKILL)
    node.attach("mar2")
    node.address(it["mar2"].pool, AT_ONCE)
    it[CMD].start()
    settled(it, 2, 1, 3)
    flowing(download)
    assert download.stop()["error"] == ""
    assert [row["name"] for row in it[CMD].show("peers")] == ["mar1", "mar3"]


def test_followers_are_replaced_by_their_next_processes(cmd_domain: MakeDomain) -> None:
    with cmd_domain().start() as it:
        node, _, download = it.downloading()
        node.attach("mar2")
        settled(it, 2, 1)
        for name in ("mar1", "mar2"):
            take_over(it[name])
        settled(it, 2, 1)
        flowing(download)
        node.attach("mar3")
        settled(it, 3, 1, 2)
        flowing(download)
        assert download.stop()["error"] == ""
