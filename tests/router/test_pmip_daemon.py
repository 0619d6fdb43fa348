"""An LMA and a MAG as processes: birth, restart, reload and farewell.

    node --eth0 ===== lan0-- mag --wan0 ===== eth0-- lma
"""

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from router.control.client import Client
from router.demo.lab import Host, Lab, available, connect
from router.errors import RouterError
from tests.eventually import eventually

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]
KEY = "hex:000102030405060708090a0b0c0d0e0f"
NODE, PREFIX = "mn1@example.net", "2001:db8:1000::/64"
LMA = f"""\
[underlay]
address = "2001:db8:ff::a"
[anchor]
prefixes = ["2001:db8:1000::/36"]
[labels]
wan = 3
[[peer]]
name = "mag"
address = "2001:db8:ff::b"
key = "{KEY}"
"""
MAG = f"""\
[underlay]
address = "2001:db8:ff::b"
[access]
interfaces = ["lan0"]
[gateway]
anchor = "lma"
[labels]
wan = 3
[[peer]]
name = "lma"
address = "2001:db8:ff::a"
key = "{KEY}"
[[uplink]]
interface = "wan0"
label = "wan"
[[node]]
id = "{NODE}"
link_layer = "02:00:00:00:00:11"
"""


@dataclass
class Daemon:
    """A router of its own process, with a configuration that can be changed."""

    role: str
    host: Host
    directory: Path
    process: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def config(self) -> Path:
        return self.directory / f"{self.role}.toml"

    @property
    def log(self) -> str:
        return (self.directory / f"{self.role}.log").read_text()

    @property
    def client(self) -> Client:
        return Client(self.directory / f"{self.role}.sock")

    def start(self) -> None:
        self.begin()
        self.wait_until_up()

    def begin(self) -> None:
        with (self.directory / f"{self.role}.log").open("wb") as output:
            self.process = self.host.spawn_module(
                "router",
                *(f"--{self.role}", "--config", str(self.config)),
                *("--state-dir", str(self.directory / self.role)),
                *("--socket", str(self.directory / f"{self.role}.sock")),
                stdout=output,
                stderr=output,
            )

    def wait_until_up(self) -> None:
        eventually(lambda: "is up" in self.log or self.process.poll() is not None, 20.0)
        assert self.process.poll() is None, self.log

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(10.0)

    def rows(self, what: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.client.show(what)["rows"]
        return rows


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Both are up, and the node is registered."""
    with Lab() as lab:
        lma, mag, node = lab.host("lma"), lab.host("mag"), lab.host("node")
        connect(lma, "eth0", mag, "wan0")
        connect(mag, "lan0", node, "eth0")
        node.link_layer("eth0", "02:00:00:00:00:11")
        lma.address("eth0", "2001:db8:ff::a/64")
        mag.address("wan0", "2001:db8:ff::b/64")
        node.link_down("eth0")  # and up when both can answer: a link that is lost for a moment may never be missed
        both = Daemon("lma", lma, tmp_path), Daemon("mag", mag, tmp_path)
        for daemon, text in zip(both, (LMA, MAG), strict=True):
            daemon.config.write_text(text)
            daemon.begin()
        for daemon in both:
            daemon.wait_until_up()
        node.link_up("eth0")
        eventually(lambda: any(row["ways"] for row in both[0].rows("bindings")), 20.0, "the node is registered")
        yield both


def test_a_session_is_seen_at_both_ends(pair: tuple[Daemon, Daemon]) -> None:
    lma, mag = pair
    (at_lma,), (at_mag,) = lma.rows("sessions"), mag.rows("sessions")
    assert (at_lma["node"], at_lma["prefixes"], at_lma["gateway"]) == (NODE, [PREFIX], "mag")
    assert (at_mag["node"], at_mag["label"], at_mag["anchor"]) == (NODE, "wan", "2001:db8:ff::a")
    assert [row["ways"] for row in lma.rows("bindings")] == [["1:wan:2001:db8:ff::b"]]


def test_a_node_that_is_not_here_cannot_leave(pair: tuple[Daemon, Daemon]) -> None:
    _, mag = pair
    with pytest.raises(RouterError, match=rf"detach nobody@b: not attached here: attached: {NODE}"):
        mag.client.detach("nobody@b")
    assert mag.client.detach(NODE) == {"schema": 1, "node": NODE}

    def refused() -> str:
        """Why it is detached no more: what it says when its link has just come up brings it back."""
        try:
            mag.client.detach(NODE)
        except RouterError as error:
            return str(error)
        return ""

    why = eventually(refused, 15.0, "the node is not here")
    assert why.endswith(f"detach {NODE}: not attached here: attached: nobody")


def test_an_uplink_without_its_address_is_told_as_that_and_not_as_the_end_of_all_tunnels(
    pair: tuple[Daemon, Daemon],
) -> None:
    _, mag = pair
    netlink, index = mag.host.netlink, mag.host.link("wan0").index
    held = next(it for it in netlink.addresses(index) if str(it.address) == "2001:db8:ff::b")
    netlink.delete_address(held)
    eventually(lambda: {row["stage"] for row in mag.rows("sessions")} == {"stranded"}, 5.0)
    mag.host.address("wan0", "2001:db8:ff::b/64")
    eventually(lambda: {row["stage"] for row in mag.rows("sessions")} == {"registered"}, 10.0)
    assert "underlay address" not in mag.log.split("is up", 1)[1]


def test_how_long_a_path_is_in_its_state_is_told_in_seconds(pair: tuple[Daemon, Daemon]) -> None:
    for daemon in pair:
        eventually(lambda daemon=daemon: daemon.rows("paths") != [], 5.0)
        assert all(0.0 <= row["since"] < 60.0 for row in daemon.rows("paths"))


def test_an_anchor_that_was_killed_knows_its_sessions(pair: tuple[Daemon, Daemon]) -> None:
    lma, _ = pair
    before = [(row["number"], row["node"], row["prefixes"]) for row in lma.rows("sessions")]
    counter = (lma.directory / "lma" / "restarts").read_text()
    lma.end(signal.SIGKILL)
    lma.start()
    assert [(row["number"], row["node"], row["prefixes"]) for row in lma.rows("sessions")] == before
    assert (lma.directory / "lma" / "restarts").read_text() == counter


def test_sighup_reads_the_configuration_again(pair: tuple[Daemon, Daemon]) -> None:
    lma, _ = pair
    lma.config.write_text(LMA + '[[flow]]\nname = "all"\nlabels = ["wan"]\n')
    lma.process.send_signal(signal.SIGHUP)
    eventually(lambda: [row["rule"] for row in lma.rows("policy")] == ["all"])
    lma.config.write_text(LMA.replace("/36", "/40"))
    with pytest.raises(RouterError, match=r"nothing was changed: restart it for: anchor\.prefixes$"):
        lma.client.reload()


STRIPED = '[[flow]]\nname = "all"\nspread = "per-packet"\n'
PLAIN = '[[flow]]\nlabels = ["wan"]\n'


@pytest.mark.parametrize("end", [0, 1], ids=["lma", "mag"])
def test_a_policy_that_the_tunnels_cannot_carry_is_refused_and_nothing_changes(
    pair: tuple[Daemon, Daemon], end: int
) -> None:
    router = pair[end]
    router.config.write_text(f'{router.config.read_text()}[[node]]\nid = "*"\npolicy = "default"\n{PLAIN}')
    router.client.reload()
    router.client.set_policy("default", '[[flow]]\nname = "before"\nlabels = ["wan"]\n', "p.toml")
    known = router.rows("policy"), router.rows("bindings"), router.rows("config")
    with pytest.raises(RouterError, match=r"^policy set: nothing was changed: policy default: packets spread one by"):
        router.client.set_policy("default", STRIPED, "p.toml")
    good = router.config.read_text()
    bad = good.replace('label = "wan"', "label = 7").replace(KEY, KEY[:-2] + "ff").replace(PLAIN, STRIPED)
    router.config.write_text(bad)
    with pytest.raises(RouterError, match=r"nothing was changed: .*flow\.spread: .per-packet. needs sequence"):
        router.client.reload()
    assert (router.rows("policy"), router.rows("bindings"), router.rows("config")) == known
    assert "ERROR" not in router.log
    router.config.write_text(good)
    assert router.client.reload()["done"] == "reload: flow"


def test_what_differs_is_changed_live(pair: tuple[Daemon, Daemon]) -> None:
    lma, mag = pair
    other = KEY[:-2] + "ff"
    for daemon, text in zip(pair, (LMA, MAG), strict=True):
        daemon.config.write_text(text.replace(KEY, other).replace("wan = 3", "wan = 4"))
    assert lma.client.reload()["done"] == "reload: peer, labels"
    assert mag.client.reload()["done"] == "reload: peer, labels, uplink.label"
    eventually(lambda: [row["ways"] for row in lma.rows("bindings")] == [["1:wan:2001:db8:ff::b"]], 10.0)
    assert len(lma.rows("sessions")) == 1


def test_a_gateway_that_is_no_peer_any_more_loses_its_sessions(pair: tuple[Daemon, Daemon]) -> None:
    lma, mag = pair
    lma.config.write_text(LMA.partition("[[peer]]")[0])
    assert lma.client.reload()["done"] == "reload: peer"
    eventually(lambda: mag.rows("bindings") == [], 10.0, "it was told")
    assert [row["state"] for row in lma.rows("sessions")] in ([], ["leaving"])


def test_a_session_is_revoked_by_an_order(pair: tuple[Daemon, Daemon]) -> None:
    lma, mag = pair
    lma.client.revoke({"node": NODE})
    eventually(lambda: "revoked" in [event["event"] for event in _history(mag)])


def test_nodes_hear_of_the_mtu_that_the_uplink_has_now(pair: tuple[Daemon, Daemon]) -> None:
    _, mag = pair
    events = mag.client.monitor(1000)
    for of_the_link, of_the_tunnel in ((1400, 1352), (1500, 1452)):
        mag.host.netlink.set_mtu(mag.host.link("wan0").index, of_the_link)
        changed = next(event for event in events if event["event"] == "tunnel-mtu")
        told = next(event for event in events if event["event"] == "ra-sent")
        assert (changed["mtu"], told["node"]) == (of_the_tunnel, NODE)


def test_both_end_politely_and_take_everything_back(pair: tuple[Daemon, Daemon]) -> None:
    for daemon in reversed(pair):
        assert daemon.end(signal.SIGTERM) == 0
        assert not [link for link in daemon.host.netlink.links() if link.name == "openmar0"]
        assert not daemon.host.netlink.routes(protocol=143)


def _history(daemon: Daemon) -> list[dict[str, Any]]:
    events = daemon.client.monitor(1000)
    found = []
    for event in events:
        found.append(event)
        if event["event"] == "revoked":
            break
    return found
