"""What becomes of one packet, on every engine."""

from __future__ import annotations

from ipaddress import IPv6Address
from pathlib import Path

import pytest

from engine import Drop, Encapsulated, Encapsulation, Engine, Side, Tunnel
from tests.engine.nodes import (
    ANCHORED,
    BACK,
    CORRESPONDENT,
    DOWN,
    ELSEWHERE,
    HELD,
    HERE,
    HOME,
    OTHER,
    STRANGER,
    TUNNEL,
    UP,
    VISITING,
    packet,
)

VECTORS = Path(__file__).parents[1] / "vectors"
LINK_LOCAL = IPv6Address("fe80::1")
NOT_ECT, ECT_1, ECT_0, CE = range(4)


def encapsulate(engine: Engine, octets: bytes) -> Encapsulated | Drop:
    [answer] = engine.encapsulate([octets])
    return answer


def decapsulate(engine: Engine, octets: bytes, tunnel: Tunnel = TUNNEL, traffic_class: int = 0) -> bytes | Drop:
    [answer] = engine.decapsulate([Encapsulated(tunnel, traffic_class, octets)])
    return answer


def test_a_packet_to_a_node_that_is_away_goes_into_its_tunnel(any_engine: Engine) -> None:
    assert encapsulate(any_engine, DOWN) == Encapsulated(TUNNEL, 0, DOWN)


def test_a_packet_from_a_visiting_node_goes_to_its_anchor(any_engine: Engine) -> None:
    assert encapsulate(any_engine, UP) == Encapsulated(TUNNEL, 0, UP)


def test_the_destination_is_looked_up_before_the_source(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    answer = encapsulate(any_engine, packet(VISITING[7], ANCHORED[5]))
    assert isinstance(answer, Encapsulated)
    assert answer.tunnel == OTHER


def test_the_outer_header_takes_the_inner_traffic_class(any_engine: Engine) -> None:
    answer = encapsulate(any_engine, packet(CORRESPONDENT, ANCHORED[5], traffic_class=0xB9))
    assert isinstance(answer, Encapsulated)
    assert answer.traffic_class == 0xB9


def test_a_moved_prefix_uses_its_new_tunnel(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    answer = encapsulate(any_engine, DOWN)
    assert isinstance(answer, Encapsulated)
    assert answer.tunnel == OTHER
    assert decapsulate(any_engine, BACK) is Drop.NOT_BOUND
    assert decapsulate(any_engine, BACK, OTHER) == BACK


def test_packets_from_the_tunnel_reach_both_kinds_of_prefix(any_engine: Engine) -> None:
    assert decapsulate(any_engine, BACK) == BACK
    assert decapsulate(any_engine, HOME) == HOME


def test_octets_behind_the_payload_length_are_cut_off(any_engine: Engine) -> None:
    assert decapsulate(any_engine, BACK + bytes(6)) == BACK
    answer = encapsulate(any_engine, DOWN + bytes(6))
    assert isinstance(answer, Encapsulated)
    assert answer.packet == DOWN


def test_the_largest_packet_passes(any_engine: Engine) -> None:
    largest = packet(ANCHORED[5], CORRESPONDENT, payload=bytes(65535))
    assert decapsulate(any_engine, largest) == largest


def test_more_packets_than_a_burst_keep_their_order(any_engine: Engine) -> None:
    packets = [packet(CORRESPONDENT, ANCHORED[5], payload=bytes([i])) for i in range(150)]
    assert [answer.packet for answer in any_engine.encapsulate(packets)] == packets
    arrivals = [packet(ANCHORED[5], CORRESPONDENT, payload=bytes([i])) for i in range(150)]
    assert any_engine.decapsulate([Encapsulated(TUNNEL, 0, each) for each in arrivals]) == arrivals


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        pytest.param(b"", Drop.TRUNCATED, id="nothing at all"),
        pytest.param(b"\x45" + bytes(40), Drop.NOT_IPV6, id="IPv4"),
        pytest.param(DOWN[:39], Drop.TRUNCATED, id="39 octets"),
        pytest.param(DOWN[:-1], Drop.TRUNCATED, id="one octet short"),
        pytest.param(packet(LINK_LOCAL, ANCHORED[5]), Drop.BAD_SOURCE, id="link-local source"),
        pytest.param(packet(IPv6Address("febf:ffff::"), ANCHORED[5]), Drop.BAD_SOURCE, id="end of link-local"),
        pytest.param(packet(IPv6Address("ff0e::1"), ANCHORED[5]), Drop.BAD_SOURCE, id="multicast source"),
        pytest.param(packet(IPv6Address("::"), ANCHORED[5]), Drop.BAD_SOURCE, id="unspecified source"),
        pytest.param(packet(IPv6Address("::1"), ANCHORED[5]), Drop.BAD_SOURCE, id="loopback source"),
        pytest.param(packet(VISITING[7], LINK_LOCAL), Drop.BAD_DESTINATION, id="link-local destination"),
        pytest.param(packet(VISITING[7], IPv6Address("::1")), Drop.BAD_DESTINATION, id="loopback destination"),
        pytest.param(packet(VISITING[7], IPv6Address("ff02::1")), Drop.BAD_DESTINATION, id="all nodes of a link"),
        pytest.param(packet(CORRESPONDENT, ANCHORED[5], hop_limit=0), Drop.HOP_LIMIT, id="hop limit 0"),
    ],
)
def test_broken_packets_die_in_both_directions(any_engine: Engine, octets: bytes, reason: Drop) -> None:
    assert encapsulate(any_engine, octets) is reason
    assert decapsulate(any_engine, octets) is reason


@pytest.mark.parametrize("source", ["fec0::1", "fe00::1", "::2"])
def test_addresses_next_to_the_forbidden_ones_pass(any_engine: Engine, source: str) -> None:
    assert isinstance(encapsulate(any_engine, packet(IPv6Address(source), ANCHORED[5])), Encapsulated)


def test_multicast_beyond_the_link_leaves_by_the_tunnel(any_engine: Engine) -> None:
    assert isinstance(encapsulate(any_engine, packet(VISITING[7], IPv6Address("ff0e::1"))), Encapsulated)


def test_a_packet_of_nobody_has_no_binding(any_engine: Engine) -> None:
    assert encapsulate(any_engine, packet(CORRESPONDENT, STRANGER)) is Drop.NO_BINDING


def test_a_prefix_gets_packets_only_on_its_own_side(any_engine: Engine) -> None:
    assert encapsulate(any_engine, packet(CORRESPONDENT, VISITING[7])) is Drop.NO_BINDING
    assert encapsulate(any_engine, packet(ANCHORED[5], CORRESPONDENT)) is Drop.NO_BINDING


def test_a_held_prefix_gets_and_gives_nothing(any_engine: Engine) -> None:
    assert encapsulate(any_engine, packet(CORRESPONDENT, HELD[5])) is Drop.NODE_AWAY
    assert encapsulate(any_engine, packet(HELD[5], CORRESPONDENT)) is Drop.NO_BINDING
    assert decapsulate(any_engine, packet(HELD[5], CORRESPONDENT)) is Drop.NOT_BOUND


def test_a_packet_between_the_tunnels_own_ends_would_loop(any_engine: Engine) -> None:
    ends = Tunnel(local=CORRESPONDENT, remote=ANCHORED[5], encapsulation=Encapsulation.UDP)
    any_engine.tables.bind(ANCHORED, ends, side=Side.ANCHOR)
    assert encapsulate(any_engine, DOWN) is Drop.LOOP


def test_only_known_tunnels_may_speak(any_engine: Engine) -> None:
    for tunnel in (
        Tunnel(local=HERE, remote=STRANGER, encapsulation=Encapsulation.UDP),
        Tunnel(local=STRANGER, remote=ELSEWHERE, encapsulation=Encapsulation.UDP),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.IP6),
    ):
        assert decapsulate(any_engine, BACK, tunnel) is Drop.UNKNOWN_TUNNEL


def test_a_stranger_is_refused_before_its_packet_is_read(any_engine: Engine) -> None:
    assert decapsulate(any_engine, b"", OTHER) is Drop.UNKNOWN_TUNNEL


def test_another_prefixs_tunnel_carries_nothing_for_this_one(any_engine: Engine) -> None:
    any_engine.tables.bind(HELD, OTHER, side=Side.ANCHOR)
    assert decapsulate(any_engine, BACK, OTHER) is Drop.NOT_BOUND
    assert decapsulate(any_engine, HOME, OTHER) is Drop.NOT_BOUND


@pytest.mark.parametrize(
    ("inner", "outer", "result"),
    [
        (NOT_ECT, NOT_ECT, NOT_ECT),
        (NOT_ECT, ECT_0, NOT_ECT),
        (NOT_ECT, ECT_1, NOT_ECT),
        (NOT_ECT, CE, None),
        (ECT_0, NOT_ECT, ECT_0),
        (ECT_0, ECT_0, ECT_0),
        (ECT_0, ECT_1, ECT_1),
        (ECT_0, CE, CE),
        (ECT_1, NOT_ECT, ECT_1),
        (ECT_1, ECT_0, ECT_1),
        (ECT_1, ECT_1, ECT_1),
        (ECT_1, CE, CE),
        (CE, NOT_ECT, CE),
        (CE, ECT_0, CE),
        (CE, ECT_1, CE),
        (CE, CE, CE),
    ],
)
def test_ecn_comes_out_of_the_tunnel_by_rfc_6040(
    any_engine: Engine, inner: int, outer: int, result: int | None
) -> None:
    arrived = packet(ANCHORED[5], CORRESPONDENT, traffic_class=0xB8 | inner)
    answer = decapsulate(any_engine, arrived, traffic_class=0x28 | outer)
    if result is None:
        assert answer is Drop.ECN
    else:
        assert answer == packet(ANCHORED[5], CORRESPONDENT, traffic_class=0xB8 | result)


@pytest.mark.parametrize(
    ("vector", "passes"), [("data-ip6ip6-up.hex", True), ("malformed/m37-spoofed-tunnel-source.hex", False)]
)
def test_the_anchor_believes_only_the_registered_router(any_engine: Engine, vector: str, passes: bool) -> None:
    octets = bytes.fromhex((VECTORS / vector).read_text())
    source, destination, inner = IPv6Address(octets[8:24]), IPv6Address(octets[24:40]), octets[40:]
    router = Tunnel(local=destination, remote=IPv6Address("2001:db8:1::1"), encapsulation=Encapsulation.IP6)
    other = Tunnel(local=destination, remote=IPv6Address("2001:db8:2::1"), encapsulation=Encapsulation.IP6)
    any_engine.tables.bind(prefix_of(inner), router, side=Side.ANCHOR)
    any_engine.tables.bind(HELD, other, side=Side.ANCHOR)  # so the spoofer is a router we know
    came_by = router if source == router.remote else other
    answer = decapsulate(any_engine, inner, came_by, octets[0] << 4 & 0xF0 | octets[1] >> 4)
    assert answer == (inner if passes else Drop.NOT_BOUND)


def prefix_of(inner: bytes):
    return type(ANCHORED)((inner[8:16] + bytes(8), 64))


def test_every_packet_is_counted_once(any_engine: Engine) -> None:
    any_engine.encapsulate([DOWN, UP, b"", DOWN[:-1]])
    any_engine.decapsulate([Encapsulated(TUNNEL, 0, BACK + b"pad"), Encapsulated(OTHER, 0, BACK)])
    counters = any_engine.counters()
    assert (counters.packets_from_tun, counters.packets_to_underlay) == (4, 2)
    assert (counters.octets_from_tun, counters.octets_to_underlay) == (4 * 48 - 48 - 1, 2 * 48)
    assert (counters.packets_from_underlay, counters.packets_to_tun) == (2, 1)
    assert (counters.octets_from_underlay, counters.octets_to_tun) == (2 * 48 + 3, 48)
    assert {reason: n for reason, n in counters.drops.items() if n} == {Drop.TRUNCATED: 2, Drop.UNKNOWN_TUNNEL: 1}
    [stats] = any_engine.tables.tunnels()
    assert (stats.packets_out, stats.octets_out, stats.packets_in, stats.octets_in) == (2, 96, 1, 48)
    assert stats.prefixes == 2
