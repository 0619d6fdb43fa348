"""The worlds of the PMIP demos are wired as drawn, without any router of ours; what is read off them is right."""

import socket
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from router.demo.branch import ACCESSES, GATEWAY, LTE, WLAN, Access, Branch
from router.demo.branch_stage import BranchStage
from router.demo.capture import ETH_P_IPV6, SO_TIMESTAMPNS, Packet, stamp
from router.demo.figures import Stream, stream, tunnelled
from router.demo.lab import Host, available
from router.demo.multipath_play import (
    EXCHANGED,
    ON_THEIR_LABELS,
    Outcome,
    Shares,
    Silence,
    broken_promises,
    in_words,
    summary,
)
from router.demo.proxy_world import UNDERLAY, ProxyWorld
from router.demo.toml import toml
from tests.eventually import eventually

namespaces = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]
PATIENCE = 5.0  # s
ALL_WELL = Stream(sent=1000, lost=0, duplicates=0, reordered=0, longest_gap=0.05)


@contextmanager
def listening(host: Host) -> Iterator[socket.socket]:
    with host.inside():
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        opened.bind(("::", 4321))
        opened.settimeout(PATIENCE)
        yield opened


def travel(sender: socket.socket, receiver: socket.socket, address: IPv6Address) -> float:
    """How long a datagram takes from just before it is sent until the receiver's kernel has it, s."""
    begin = time.time()
    sender.sendto(b"hello", (str(address), 4321))
    octets, control, _, _ = receiver.recvmsg(100, socket.CMSG_SPACE(16))
    assert octets == b"hello"
    return stamp(control) / 1e9 - begin


class TestWorlds:
    pytestmark = namespaces

    def test_each_network_of_the_branch_has_its_own_delay(self) -> None:
        with Branch() as world, listening(world["cn"]) as cn, listening(world[GATEWAY]) as gateway:
            for access in ACCESSES:
                took = min(travel(cn, gateway, access.gateway_address) for _ in range(10)) * 1e3
                assert access.delay - 0.1 <= took < access.delay + 15.0

    def test_a_silent_network_of_the_branch_leaves_the_other_alone(self) -> None:
        with Branch() as world, listening(world["cn"]) as cn, listening(world[GATEWAY]) as gateway:
            world.silence(WLAN)  # also for what its kernels say by themselves
            before, _ = world.carried(WLAN)
            cn.sendto(b"never", (str(WLAN.gateway_address), 4321))
            assert travel(cn, gateway, LTE.gateway_address) > 0
            assert world.carried(WLAN)[0] == before
            world.speak(WLAN)
            assert travel(cn, gateway, WLAN.gateway_address) > 0

    def test_routers_of_the_proxy_world_reach_each_other(self) -> None:
        with ProxyWorld() as world, listening(world["lma"]) as lma:
            for name in ("mag1", "mag2"):
                with listening(world[name]) as gateway:
                    travel(lma, gateway, UNDERLAY[name])
                    travel(gateway, lma, UNDERLAY["lma"])

    def test_a_node_moves_between_the_gateways(self) -> None:
        with ProxyWorld() as world:
            for gateway, other in (("mag1", "mag2"), ("mag2", "mag1")):
                world.attach(gateway)
                eventually(lambda gateway=gateway: world[gateway].link("acc0").carrier, what="carrier")
                eventually(lambda other=other: not world[other].link("acc0").carrier, what="no carrier")

    def test_the_gateway_of_the_branch_is_told_of_both_uplinks_and_its_rules(self, tmp_path: Path) -> None:
        with BranchStage(tmp_path, rules=ON_THEIR_LABELS, weights={"lte": 3}) as stage:
            told = {name: tomllib.loads(about.text) for name, about in stage.told().items()}
        uplinks = {each["label"]: (each["interface"], each["weight"]) for each in told["mag"]["uplink"]}
        assert uplinks == {"wlan": ("wlan0", 1), "lte": ("lte0", 3)}
        assert told["mag"]["flow"] == ON_THEIR_LABELS
        assert told["mag"]["peer"][0]["key"] == told["lma"]["peer"][0]["key"]


# Figures


def test_toml_is_what_it_was_made_of() -> None:
    tables = {"labels": {"wlan": 9}, "flow": EXCHANGED, "anchor": {"prefixes": ["2001:db8::/48"], "multipath": True}}
    assert tomllib.loads(toml(tables)) == tables


def test_a_datagram_that_came_twice_does_not_stand_for_one_that_was_lost() -> None:
    sunk = {"received": 99, "duplicates": 2, "reordered": 1, "longest_gap": 0.02}
    assert stream({"sent": 100}, sunk) == Stream(sent=100, lost=3, duplicates=2, reordered=1, longest_gap=0.02)


@pytest.mark.parametrize(("flags", "fields"), [(0x00, 0), (0x20, 4), (0x30, 8), (0xB0, 12)])
def test_the_inner_packet_of_gre_is_found_behind_its_fields(flags: int, fields: int) -> None:
    inner = bytes([0x60]) + bytes(7) + UNDERLAY["lma"].packed + UNDERLAY["mag1"].packed
    outer = bytes([0x60]) + bytes(5) + bytes([47, 64]) + bytes(32)
    gre = bytes([flags, 0]) + ETH_P_IPV6.to_bytes(2) + bytes(fields)
    frame = bytes(12) + ETH_P_IPV6.to_bytes(2) + outer + gre + inner
    (found,) = tunnelled([Packet(1.0, frame, False)])
    assert (found.source, found.destination) == (UNDERLAY["lma"], UNDERLAY["mag1"])


def outcome() -> Outcome:
    """Everything as promised."""
    return Outcome(
        labels=Shares(bulk_on="wlan", bulk_share=1.0, voice_on="lte", voice_share=1.0),
        exchanged=Shares(bulk_on="lte", bulk_share=1.0, voice_on="wlan", voice_share=1.0),
        moved={"down": ALL_WELL, "up": ALL_WELL},
        silences=[Silence(gap_down_ms=140.0, gap_up_ms=120.0, lost=130, reordered=0, back_ms=300.0)],
        bicast={"down": ALL_WELL, "up": ALL_WELL},
        one_path=19.0,
        both_paths=36.0,
    )


def test_an_outcome_without_fault_breaks_no_promise() -> None:
    assert broken_promises(outcome()) == []
    assert "every promise held" in summary(outcome())


def test_every_promise_that_is_broken_is_told() -> None:
    found = outcome()
    found.labels = Shares(bulk_on="wlan", bulk_share=0.2, voice_on="lte", voice_share=1.0)
    found.silences.append(Silence(gap_down_ms=160.0, gap_up_ms=10.0, lost=1, reordered=0, back_ms=1200.0))
    found.bicast["up"] = Stream(sent=10, lost=1, duplicates=2, reordered=0, longest_gap=0.0)
    found.both_paths = 20.0
    found.errors = ["ECONNRESET"]
    broken = broken_promises(found)
    assert len(broken) == 6
    assert broken[0] == "20% of the download went by wlan, as its label says"


def test_a_rule_is_told_in_words() -> None:
    words = in_words(ON_THEIR_LABELS[1])
    assert " ".join(words.split()) == "voice-down protocol udp, destination port 7002: per-flow, on lte, else wlan"


def test_an_access_names_its_ends() -> None:
    names: list[Access] = list(ACCESSES)
    assert [(each.interface, each.toward("core")) for each in names] == [("wlan0", "wlan-core"), ("lte0", "lte-core")]
