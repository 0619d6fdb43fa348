"""What becomes of one packet, on every engine, through every underlay."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from engine import BadTunnel, Drop, Encapsulation, Engine, Side, Tunnel
from engine.tunnels import packed
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    BACK,
    BACK4,
    CORRESPONDENT,
    CORRESPONDENT4,
    DOWN,
    DOWN4,
    ELSEWHERE,
    ELSEWHERE4,
    HELD,
    HELD4,
    HERE,
    HERE4,
    HOME,
    HOME4,
    OTHER,
    STRANGER,
    STRANGER4,
    TUNNEL,
    UDP,
    UNDERLAYS,
    UP,
    UP4,
    VISITING,
    VISITING4,
    AnyAddress,
    arriving,
    datagram,
    fill,
    leaving,
    name_of,
    packet,
    unlabelled,
    wrapped,
)

VECTORS = Path(__file__).parents[1] / "vectors"
LINK_LOCAL = IPv6Address("fe80::1")
NOT_ECT, ECT_1, ECT_0, CE = range(4)
each_underlay = pytest.mark.parametrize("tunnel", UNDERLAYS, ids=name_of)


def encapsulate(engine: Engine, octets: bytes) -> bytes | Drop:
    """What leaves, flow label 0."""
    [answer] = engine.encapsulate([octets])
    if isinstance(answer, Drop):
        return answer
    [one] = answer
    return unlabelled(one)


def decapsulate(engine: Engine, octets: bytes, tunnel: Tunnel = TUNNEL, traffic_class: int = 0) -> bytes | Drop:
    [answer] = engine.decapsulate([arriving(tunnel, octets, traffic_class=traffic_class)])
    return answer


# --- every underlay ---


@each_underlay
@pytest.mark.parametrize("inner", [DOWN, UP, DOWN4, UP4], ids=["down", "up", "down, IPv4", "up, IPv4"])
def test_a_packet_leaves_behind_the_headers_of_its_tunnel(any_engine: Engine, tunnel: Tunnel, inner: bytes) -> None:
    fill(any_engine.tables, tunnel)
    assert encapsulate(any_engine, inner) == leaving(tunnel, inner)


@each_underlay
@pytest.mark.parametrize("inner", [BACK, HOME, BACK4, HOME4], ids=["back", "home", "back, IPv4", "home, IPv4"])
def test_a_packet_comes_out_of_its_tunnel_as_it_was(any_engine: Engine, tunnel: Tunnel, inner: bytes) -> None:
    fill(any_engine.tables, tunnel)
    assert decapsulate(any_engine, inner, tunnel) == inner


@each_underlay
def test_what_one_router_sends_another_takes(any_engine: Engine, compiled: bool, tunnel: Tunnel) -> None:
    other_end = Engine(type(any_engine.tables)(compiled=compiled))
    far = Tunnel(
        local=tunnel.remote,
        remote=tunnel.local,
        encapsulation=tunnel.encapsulation,
        key_in=tunnel.key_out,
        key_out=tunnel.key_in,
    )
    other_end.tables.bind(ANCHORED, far, side=Side.ACCESS)
    other_end.tables.bind(ANCHORED4, far, side=Side.ACCESS)
    fill(any_engine.tables, tunnel)
    inner = [datagram(CORRESPONDENT, ANCHORED[5], (5, n), bytes(n)) for n in range(1, 200)]
    inner += [datagram(CORRESPONDENT4, ANCHORED4[5], (5, n), bytes(n)) for n in range(1, 200)]
    assert other_end.decapsulate([outer for [outer] in any_engine.encapsulate(inner)]) == inner


@each_underlay
@pytest.mark.parametrize(
    ("inner", "back"),
    [
        (packet(CORRESPONDENT, ANCHORED[5], traffic_class=0xB9), 6),
        (packet(CORRESPONDENT4, ANCHORED4[5], traffic_class=0xB9), 4),
    ],
    ids=[6, 4],
)
def test_the_outer_header_takes_the_inner_traffic_class(
    any_engine: Engine, tunnel: Tunnel, inner: bytes, back: int
) -> None:
    fill(any_engine.tables, tunnel)
    assert encapsulate(any_engine, inner) == leaving(tunnel, inner, traffic_class=0xB9)


@pytest.mark.parametrize("tunnel", [each for each in UNDERLAYS if each.local.version == 6], ids=name_of)
def test_all_packets_of_a_flow_have_one_flow_label_and_flows_differ(any_engine: Engine, tunnel: Tunnel) -> None:
    fill(any_engine.tables, tunnel)

    def labels(*inner: bytes) -> set[int]:
        return {int.from_bytes(outer[:4], "big") & 0xFFFFF for [outer] in any_engine.encapsulate(list(inner))}

    def flow(port: int, size: int) -> bytes:
        return datagram(CORRESPONDENT, ANCHORED[5], (5, port), bytes(size))

    assert len(labels(flow(7, 1), flow(7, 100), datagram(VISITING[5], ANCHORED[5], (5, 7)))) == 2
    assert labels(flow(7, 1)) == labels(flow(7, 50))
    assert len(labels(*(flow(port, 1) for port in range(100)))) > 90


def test_both_directions_of_a_flow_have_one_flow_label(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    [[down]] = any_engine.encapsulate([datagram(CORRESPONDENT, ANCHORED[5], (80, 4000))])
    any_engine.tables.bind(ANCHORED, TUNNEL, side=Side.ACCESS)
    [[up]] = any_engine.encapsulate([datagram(ANCHORED[5], CORRESPONDENT, (4000, 80))])
    assert down[:4] == up[:4]


def test_a_peer_behind_a_nat_is_answered_where_it_speaks_from(any_engine: Engine) -> None:
    ends = {"local": HERE4, "remote": ELSEWHERE4, "encapsulation": Encapsulation.UDP}
    tunnel = Tunnel(**ends)
    fill(any_engine.tables, tunnel)
    moved = any_engine.tables.follow(tunnel, 40000)
    assert moved == Tunnel(**ends, port=40000)
    assert encapsulate(any_engine, DOWN) == leaving(moved, DOWN)
    assert decapsulate(any_engine, BACK, moved) == BACK
    assert decapsulate(any_engine, BACK, tunnel) is Drop.UNKNOWN_TUNNEL


def test_a_followed_peer_in_a_bundle_keeps_its_packets_and_its_counters(any_engine: Engine) -> None:
    from engine import Path as Way

    tables = any_engine.tables
    tables.bind(ANCHORED, tables.bundle([Way(TUNNEL)]), side=Side.ANCHOR)
    assert encapsulate(any_engine, DOWN) == leaving(TUNNEL, DOWN)
    moved = tables.follow(TUNNEL, 40000)
    assert encapsulate(any_engine, DOWN) == leaving(moved, DOWN)
    assert decapsulate(any_engine, BACK, moved) == BACK
    assert [(stats.tunnel, stats.packets_out) for stats in tables.tunnels()] == [(moved, 2)]


def test_a_port_that_another_tunnel_has_is_not_followed(any_engine: Engine) -> None:
    taken = Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.UDP, port=40000)
    any_engine.tables.bind(HELD, taken, side=Side.ANCHOR)
    with pytest.raises(BadTunnel, match="40000"):
        any_engine.tables.follow(TUNNEL, 40000)
    assert encapsulate(any_engine, DOWN) == leaving(TUNNEL, DOWN)
    assert decapsulate(any_engine, BACK) == BACK


# --- where packets go ---


def test_the_destination_is_looked_up_before_the_source(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    inner = packet(VISITING[7], ANCHORED[5])
    assert encapsulate(any_engine, inner) == leaving(OTHER, inner)


def test_a_moved_prefix_uses_its_new_tunnel(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert encapsulate(any_engine, DOWN) == leaving(OTHER, DOWN)
    assert decapsulate(any_engine, BACK) is Drop.NOT_BOUND
    assert decapsulate(any_engine, BACK, OTHER) == BACK


def test_the_longest_prefix_decides(any_engine: Engine) -> None:
    host = IPv6Network((ANCHORED[5], 128))
    any_engine.tables.bind(host, OTHER, side=Side.ANCHOR)
    assert encapsulate(any_engine, DOWN) == leaving(OTHER, DOWN)
    other = packet(CORRESPONDENT, ANCHORED[6])
    assert encapsulate(any_engine, other) == leaving(TUNNEL, other)
    any_engine.tables.bind(IPv4Network((ANCHORED4[5], 32)), OTHER, side=Side.ANCHOR)
    assert encapsulate(any_engine, DOWN4) == leaving(OTHER, DOWN4)


def test_octets_behind_the_payload_length_are_cut_off(any_engine: Engine) -> None:
    for down, back in ((DOWN, BACK), (DOWN4, BACK4)):
        assert decapsulate(any_engine, back + bytes(6)) == back
        assert encapsulate(any_engine, down + bytes(6)) == leaving(TUNNEL, down)


@each_underlay
def test_the_largest_packet_that_an_outer_one_holds_passes_and_no_larger_one(
    any_engine: Engine, tunnel: Tunnel
) -> None:
    fill(any_engine.tables, tunnel)
    before = len(leaving(tunnel, DOWN)) - len(DOWN)
    room = 65535 - before + (40 if tunnel.local.version == 6 else 0)
    largest = packet(CORRESPONDENT, ANCHORED[5], payload=bytes(room - 40))
    assert encapsulate(any_engine, largest) == leaving(tunnel, largest)
    home = packet(CORRESPONDENT, VISITING[7], payload=bytes(room - 60))
    assert decapsulate(any_engine, home, tunnel) == home
    assert encapsulate(any_engine, packet(CORRESPONDENT, ANCHORED[5], payload=bytes(room - 39))) is Drop.TOO_BIG


def test_more_packets_than_a_burst_keep_their_order(any_engine: Engine) -> None:
    packets = [packet(CORRESPONDENT, ANCHORED[5], payload=i.to_bytes(2, "big")) for i in range(600)]
    assert [unlabelled(outer) for [outer] in any_engine.encapsulate(packets)] == [leaving(TUNNEL, p) for p in packets]
    arrivals = [packet(ANCHORED[5], CORRESPONDENT, payload=i.to_bytes(2, "big")) for i in range(600)]
    assert any_engine.decapsulate([arriving(TUNNEL, each) for each in arrivals]) == arrivals


def test_more_octets_than_a_burst_holds_keep_their_order(any_engine: Engine) -> None:
    packets = [packet(CORRESPONDENT, ANCHORED[5], payload=bytes([i]) * 60000) for i in range(40)]
    assert [unlabelled(outer) for [outer] in any_engine.encapsulate(packets)] == [leaving(TUNNEL, p) for p in packets]


def broken(source: AnyAddress, inside: AnyAddress, visitor: AnyAddress, whole: bytes) -> list:
    """What no router forwards, with the reason, in one version."""
    bad_source = ["febf:ffff::", "fe80::1", "ff0e::1", "::", "::1", "::ffff:10.1.0.5"]
    bad_destination = ["fe80::1", "::1", "::", "ff02::1", "ff12::9", "::ffff:10.1.0.5"]
    if source.version == 4:
        bad_source = ["0.0.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.255.255.255", "255.255.255.255"]
        bad_destination = ["0.0.0.0", "127.1.2.3", "169.254.0.1", "224.0.0.251", "255.255.255.255"]
    kind = type(source)
    fixed = 40 if source.version == 6 else 20
    rows = [
        (whole[:1], Drop.TRUNCATED, "one octet"),
        (whole[: fixed - 1], Drop.TRUNCATED, "most of a header"),
        (whole[:-1], Drop.TRUNCATED, "one octet short"),
        (packet(source, inside, hop_limit=0), Drop.HOP_LIMIT, "no hop left"),
    ]
    rows += [(packet(kind(text), inside), Drop.BAD_SOURCE, f"from {text}") for text in bad_source]
    rows += [(packet(visitor, kind(text)), Drop.BAD_DESTINATION, f"to {text}") for text in bad_destination]
    return [pytest.param(octets, reason, id=f"IPv{source.version}, {name}") for octets, reason, name in rows]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        *broken(CORRESPONDENT, ANCHORED[5], VISITING[7], DOWN),
        *broken(CORRESPONDENT4, ANCHORED4[5], VISITING4[7], DOWN4),
        pytest.param(b"", Drop.TRUNCATED, id="nothing at all"),
        pytest.param(b"\x75" + bytes(60), Drop.NOT_IP, id="version 7"),
        pytest.param(bytes(60), Drop.NOT_IP, id="version 0"),
        pytest.param(b"\x44" + DOWN4[1:], Drop.BAD_HEADER, id="IPv4, a header of 16 octets"),
        pytest.param(DOWN4[:2] + b"\0\x13" + DOWN4[4:], Drop.BAD_HEADER, id="IPv4, 19 octets long"),
        pytest.param(DOWN4[:10] + b"\0\0" + DOWN4[12:], Drop.BAD_HEADER, id="IPv4, wrong checksum"),
        pytest.param(b"\x4f" + DOWN4[1:], Drop.BAD_HEADER, id="IPv4, options longer than the packet"),
    ],
)
def test_broken_packets_die_in_both_directions(any_engine: Engine, octets: bytes, reason: Drop) -> None:
    assert encapsulate(any_engine, octets) is reason
    assert decapsulate(any_engine, octets) is reason


@pytest.mark.parametrize("source", ["fec0::1", "fe00::1", "::2", "::1:ffff:a01:5", "1.0.0.0", "128.0.0.1", "223.0.0.1"])
def test_addresses_next_to_the_forbidden_ones_pass(any_engine: Engine, source: str) -> None:
    inner = packet(IPv6Address(source), ANCHORED[5]) if ":" in source else packet(IPv4Address(source), ANCHORED4[5])
    assert encapsulate(any_engine, inner) == leaving(TUNNEL, inner)


@pytest.mark.parametrize("group", ["ff0e::1", "ff05::2", "239.1.2.3", "224.0.1.1"])
def test_multicast_beyond_the_link_leaves_by_the_tunnel(any_engine: Engine, group: str) -> None:
    inner = packet(VISITING[7], IPv6Address(group)) if ":" in group else packet(VISITING4[7], IPv4Address(group))
    assert encapsulate(any_engine, inner) == leaving(TUNNEL, inner)


def test_ipv4_options_pass_through(any_engine: Engine) -> None:
    inner = packet(CORRESPONDENT4, ANCHORED4[5], options=b"\x94\x04\0\0")  # router alert
    assert encapsulate(any_engine, inner) == leaving(TUNNEL, inner)
    assert decapsulate(any_engine, packet(ANCHORED4[5], CORRESPONDENT4, options=b"\x94\x04\0\0")) is not Drop.BAD_HEADER


def test_a_packet_of_nobody_has_no_binding(any_engine: Engine) -> None:
    assert encapsulate(any_engine, packet(CORRESPONDENT, STRANGER)) is Drop.NO_BINDING
    assert encapsulate(any_engine, packet(CORRESPONDENT4, STRANGER4)) is Drop.NO_BINDING


def test_a_prefix_gets_packets_only_on_its_own_side(any_engine: Engine) -> None:
    assert encapsulate(any_engine, packet(CORRESPONDENT, VISITING[7])) is Drop.NO_BINDING
    assert encapsulate(any_engine, packet(ANCHORED[5], CORRESPONDENT)) is Drop.NO_BINDING


def test_an_ipv4_prefix_says_nothing_about_the_same_bits_in_ipv6(any_engine: Engine) -> None:
    any_engine.tables.bind(IPv6Network("::/0"), OTHER, side=Side.ANCHOR)
    assert encapsulate(any_engine, DOWN4) == leaving(TUNNEL, DOWN4)
    any_engine.tables.unbind(ANCHORED4)
    assert encapsulate(any_engine, DOWN4) is Drop.NO_BINDING


def test_a_held_prefix_gives_nothing(any_engine: Engine) -> None:
    assert encapsulate(any_engine, packet(HELD[5], CORRESPONDENT)) is Drop.NO_BINDING
    assert decapsulate(any_engine, packet(HELD[5], CORRESPONDENT)) is Drop.NOT_BOUND
    assert decapsulate(any_engine, packet(HELD4[5], CORRESPONDENT4)) is Drop.NOT_BOUND


def test_what_is_on_its_way_through_the_tunnel_of_a_prefix_is_let_in_when_that_is_held(any_engine: Engine) -> None:
    for network, peer in ((ANCHORED, CORRESPONDENT), (ANCHORED4, CORRESPONDENT4)):
        kind = network.version << 8 | network.prefixlen
        any_engine.tables.storage.hold(packed(network.network_address), kind, True)  # as with a buffer
        any_engine.tables.bind(VISITING, OTHER, side=Side.ACCESS)  # a router we know
        said = packet(network[5], peer)
        assert decapsulate(any_engine, said) == said
        assert decapsulate(any_engine, said, OTHER) is Drop.NOT_BOUND


def test_a_router_gives_back_what_it_cannot_deliver_wherever_its_node_is_by_now(any_engine: Engine) -> None:
    any_engine.tables.bind(IPv6Network("2001:db8:a1:777::/64"), OTHER, side=Side.ANCHOR)  # a router we know
    for inner in (DOWN, DOWN4, packet(CORRESPONDENT, HELD[5])):
        assert decapsulate(any_engine, inner) == inner
        assert decapsulate(any_engine, inner, OTHER) == inner


def test_a_packet_for_a_node_between_routers_finds_it_away(any_engine: Engine) -> None:
    assert encapsulate(any_engine, packet(CORRESPONDENT, HELD[5])) is Drop.NODE_AWAY
    assert encapsulate(any_engine, packet(CORRESPONDENT4, HELD4[5])) is Drop.NODE_AWAY


@pytest.mark.parametrize(
    ("source", "inside", "network"),
    [(CORRESPONDENT, ANCHORED[5], ANCHORED), (CORRESPONDENT4, ANCHORED4[5], ANCHORED4)],
    ids=[6, 4],
)
def test_a_packet_between_the_tunnels_own_ends_would_loop(
    any_engine: Engine, source: AnyAddress, inside: AnyAddress, network: IPv6Network | IPv4Network
) -> None:
    ends = Tunnel(local=source, remote=inside, encapsulation=Encapsulation.IP)
    any_engine.tables.bind(network, ends, side=Side.ANCHOR)
    assert encapsulate(any_engine, packet(source, inside)) is Drop.LOOP


def test_only_known_tunnels_may_speak(any_engine: Engine) -> None:
    for tunnel in (
        Tunnel(local=HERE, remote=STRANGER, encapsulation=Encapsulation.UDP),
        Tunnel(local=STRANGER, remote=ELSEWHERE, encapsulation=Encapsulation.UDP),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.UDP, port=5436),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.IP),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.GRE),
        Tunnel(local=HERE4, remote=ELSEWHERE4, encapsulation=Encapsulation.UDP),
    ):
        assert decapsulate(any_engine, BACK, tunnel) is Drop.UNKNOWN_TUNNEL, str(tunnel)


def test_a_stranger_is_refused_before_its_packet_is_read(any_engine: Engine) -> None:
    assert decapsulate(any_engine, b"", OTHER) is Drop.UNKNOWN_TUNNEL


def test_another_prefixs_tunnel_carries_nothing_for_this_one(any_engine: Engine) -> None:
    any_engine.tables.bind(HELD, OTHER, side=Side.ANCHOR)
    for inner in (BACK, HOME, BACK4, HOME4):
        assert decapsulate(any_engine, inner, OTHER) is Drop.NOT_BOUND


def test_neighbours_in_a_burst_are_told_apart(any_engine: Engine) -> None:
    any_engine.tables.bind(HELD, OTHER, side=Side.ANCHOR)
    held = packet(HELD[5], CORRESPONDENT)
    arrivals = [
        arriving(tunnel, inner) for tunnel, inner in [(TUNNEL, BACK), (OTHER, BACK), (OTHER, held), (TUNNEL, held)]
    ]
    assert any_engine.decapsulate(arrivals * 2) == [BACK, Drop.NOT_BOUND, held, Drop.NOT_BOUND] * 2


# --- ECN ---


@pytest.mark.parametrize(
    ("source", "there"), [(ANCHORED[5], CORRESPONDENT), (ANCHORED4[5], CORRESPONDENT4)], ids=[6, 4]
)
@pytest.mark.parametrize("tunnel", [UNDERLAYS[0], UNDERLAYS[7]], ids=name_of)
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
    any_engine: Engine,
    source: AnyAddress,
    there: AnyAddress,
    tunnel: Tunnel,
    inner: int,
    outer: int,
    result: int | None,
) -> None:
    fill(any_engine.tables, tunnel)
    arrived = packet(source, there, traffic_class=0xB8 | inner)
    answer = decapsulate(any_engine, arrived, tunnel, traffic_class=0x28 | outer)
    assert answer == (Drop.ECN if result is None else packet(source, there, traffic_class=0xB8 | result))


def test_a_new_mark_leaves_ipv4_options_and_their_checksum_right(any_engine: Engine) -> None:
    def marked(ecn: int) -> bytes:
        return packet(ANCHORED4[5], CORRESPONDENT4, traffic_class=ecn, options=b"\x94\x04\0\0" + b"\1" * 8)

    assert decapsulate(any_engine, marked(ECT_0), traffic_class=CE) == marked(CE)


# --- the standard's own packets ---


@pytest.mark.parametrize(
    ("vector", "passes"), [("data-ip6ip6-up.hex", True), ("malformed/m37-spoofed-tunnel-source.hex", False)]
)
def test_the_anchor_believes_only_the_registered_router(any_engine: Engine, vector: str, passes: bool) -> None:
    octets = bytes.fromhex((VECTORS / vector).read_text())
    here, inner = IPv6Address(octets[24:40]), octets[40:]
    router = Tunnel(local=here, remote=IPv6Address("2001:db8:1::1"), encapsulation=Encapsulation.IP)
    other = Tunnel(local=here, remote=IPv6Address("2001:db8:2::1"), encapsulation=Encapsulation.IP)
    any_engine.tables.bind(IPv6Network((inner[8:16] + bytes(8), 64)), router, side=Side.ANCHOR)
    any_engine.tables.bind(HELD, other, side=Side.ANCHOR)  # so the spoofer is a router we know
    assert any_engine.decapsulate([octets]) == [inner if passes else Drop.NOT_BOUND]


# --- counting ---


def test_every_packet_is_counted_once(any_engine: Engine) -> None:
    any_engine.encapsulate([DOWN, UP, b"", DOWN[:-1], DOWN4])
    any_engine.decapsulate([arriving(TUNNEL, BACK + b"pad"), arriving(OTHER, BACK), arriving(TUNNEL, HOME4)])
    counters = any_engine.counters()
    assert (counters.packets_from_tun, counters.packets_to_underlay) == (5, 3)
    assert (counters.octets_from_tun, counters.octets_to_underlay) == (48 + 48 + 0 + 47 + 28, 48 + 48 + 28)
    assert (counters.packets_from_underlay, counters.packets_to_tun) == (3, 2)
    assert (counters.octets_from_underlay, counters.octets_to_tun) == (48 + 48 + 28, 48 + 28)
    assert {reason: n for reason, n in counters.drops.items() if n} == {Drop.TRUNCATED: 2, Drop.UNKNOWN_TUNNEL: 1}
    assert counters.errors == 0
    [stats] = any_engine.tables.tunnels()
    assert (stats.packets_out, stats.octets_out, stats.packets_in, stats.octets_in) == (3, 124, 2, 76)
    assert stats.prefixes == 4


def test_what_has_no_whole_outer_header_is_counted_too(any_engine: Engine) -> None:
    broken = arriving(TUNNEL, BACK)
    broken = broken[:46] + bytes(2) + broken[48:]  # no UDP checksum
    assert any_engine.decapsulate([broken, broken[:30], b"", wrapped((ELSEWHERE, HERE), Encapsulation.IP, b"")]) == [
        Drop.BAD_HEADER,
        Drop.TRUNCATED,
        Drop.TRUNCATED,
        Drop.TRUNCATED,
    ]
    counters = any_engine.counters()
    assert (counters.packets_from_underlay, counters.octets_from_underlay) == (4, len(broken) + 30 + 40)
    assert counters.drops[Drop.BAD_HEADER] + counters.drops[Drop.TRUNCATED] == 4


def test_a_prefix_is_active_when_a_packet_of_it_passes_either_way(any_engine: Engine) -> None:
    tables = any_engine.tables
    prefixes = [ANCHORED, VISITING, ANCHORED4, VISITING4]
    assert [tables.activity(prefix) for prefix in prefixes] == [None] * 4
    any_engine.encapsulate([DOWN, packet(CORRESPONDENT, STRANGER)])
    assert [tables.activity(prefix) is not None for prefix in prefixes] == [True, False, False, False]
    any_engine.decapsulate([arriving(TUNNEL, HOME), arriving(OTHER, HOME4)])
    assert [tables.activity(prefix) is not None for prefix in prefixes] == [True, True, False, False]
    any_engine.encapsulate([UP4])
    assert [tables.activity(prefix) is not None for prefix in prefixes] == [True, True, False, True]
    assert tables.activity(VISITING4) < 5.0
    assert tables.idle(3600.0) == []
    assert ANCHORED4 in tables.idle(0.0)


def test_a_packet_for_a_held_prefix_shows_that_someone_asks_for_it(any_engine: Engine) -> None:
    any_engine.encapsulate([packet(CORRESPONDENT, HELD[5])])
    assert any_engine.tables.activity(HELD) is not None


def test_a_datagram_inside_is_not_looked_into(any_engine: Engine) -> None:
    inner = packet(
        ANCHORED[5], CORRESPONDENT, payload=bytes(8), protocol=UDP
    )  # its checksum is wrong: not our business
    assert decapsulate(any_engine, inner) == inner
