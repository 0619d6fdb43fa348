"""Outer headers: what each bit of them does to a packet that arrives, on every engine."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from engine import UDP_PORT, Drop, Encapsulation, Engine, Side, Tunnel
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    BACK,
    BACK4,
    CORRESPONDENT,
    DESTINATION_OPTIONS,
    DOWN,
    ELSEWHERE,
    ELSEWHERE4,
    GRE,
    HERE,
    HERE4,
    IN_IP,
    TUNNEL,
    UDP,
    UNDERLAYS,
    AnyAddress,
    arriving,
    fill,
    internet_checksum,
    leaving,
    name_of,
    outer,
    packet,
    unlabelled,
    with_checksum,
    wrapped,
)

VECTORS = Path(__file__).parents[1] / "vectors"
ENDS = {6: (ELSEWHERE, HERE), 4: (ELSEWHERE4, HERE4)}
C, ROUTING, K, S, RESERVED_4, RESERVED_5 = (0x8000 >> bit for bit in range(6))
each_family = pytest.mark.parametrize("ends", ENDS.values(), ids=["over IPv6", "over IPv4"])


def tunnel_from(ends: tuple[AnyAddress, AnyAddress], encapsulation: Encapsulation, **more: int) -> Tunnel:
    return Tunnel(local=ends[1], remote=ends[0], encapsulation=encapsulation, **more)


def gre(ends: tuple[AnyAddress, AnyAddress], header: bytes, inner: bytes = BACK) -> bytes:
    return outer(*ends, GRE, header + inner)


def only(answers: list) -> bytes | Drop:
    [answer] = answers
    return answer


# --- GRE: RFC 2784 2, RFC 2890 2, RFC 7676 3 ---


@each_family
@pytest.mark.parametrize(
    ("flags", "fields", "result"),
    [
        pytest.param(0, b"", BACK, id="bare"),
        pytest.param(0x03F8, b"", BACK, id="reserved bits 6 to 12 are ignored"),
        pytest.param(ROUTING, b"", Drop.BAD_HEADER, id="routing"),
        pytest.param(RESERVED_4, b"", Drop.BAD_HEADER, id="reserved bit 4"),
        pytest.param(RESERVED_5, b"", Drop.BAD_HEADER, id="reserved bit 5"),
        pytest.param(1, b"", Drop.BAD_HEADER, id="version 1"),
        pytest.param(4, b"", Drop.BAD_HEADER, id="version 4"),
        pytest.param(S, bytes(4), BACK, id="numbered"),
        pytest.param(K, b"\0\0\0\7", Drop.UNKNOWN_TUNNEL, id="a key nobody has"),
        pytest.param(C, bytes(4), Drop.BAD_HEADER, id="wrong checksum"),
    ],
)
def test_each_bit_of_a_gre_header_counts(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress], flags: int, fields: bytes, result: bytes | Drop
) -> None:
    fill(any_engine.tables, tunnel_from(ends, Encapsulation.GRE))
    assert any_engine.decapsulate([gre(ends, struct.pack("!HH", flags, 0x86DD) + fields)]) == [result]


@each_family
@pytest.mark.parametrize("flags", [C, C | K, C | S, C | K | S])
def test_a_gre_checksum_is_verified_with_all_behind_it(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress], flags: int
) -> None:
    tunnel = tunnel_from(ends, Encapsulation.GRE, **({"key_in": 9} if flags & K else {}))
    fill(any_engine.tables, tunnel)
    fields = bytes(4) + (b"\0\0\0\x09" if flags & K else b"") + (b"\0\0\1\2" if flags & S else b"")
    for inner in (BACK, BACK + b"odd"[:0], packet(ANCHORED[5], CORRESPONDENT, payload=b"odd")):
        right = with_checksum(struct.pack("!HH", flags, 0x86DD) + fields + inner, 4)
        wrong = right[:-1] + bytes([right[-1] ^ 1])
        assert any_engine.decapsulate([outer(*ends, GRE, right), outer(*ends, GRE, wrong)]) == [inner, Drop.BAD_HEADER]


def test_a_key_tells_tunnels_apart_that_have_nothing_else_to_tell_them(any_engine: Engine) -> None:
    tables = any_engine.tables
    tunnels = [
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.GRE, key_in=key)
        for key in (None, 0, 1, 0xFFFFFFFF)
    ]
    prefixes = list(IPv6Network("2001:db8:b000::/62").subnets(new_prefix=64))
    for tunnel, prefix in zip(tunnels, prefixes, strict=True):
        tables.bind(prefix, tunnel, side=Side.ANCHOR)
    for tunnel, own in zip(tunnels, prefixes, strict=True):
        for prefix in prefixes:
            inner = packet(prefix[1], CORRESPONDENT)
            expected = inner if prefix == own else Drop.NOT_BOUND
            assert any_engine.decapsulate([arriving(tunnel, inner)]) == [expected], (tunnel.key_in, prefix)
    unknown = Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.GRE, key_in=2)
    assert any_engine.decapsulate([arriving(unknown, BACK)]) == [Drop.UNKNOWN_TUNNEL]


@each_family
@pytest.mark.parametrize(
    ("protocol", "inner", "result"),
    [
        (0x86DD, BACK, BACK),
        (0x0800, BACK4, BACK4),
        (0x86DD, BACK4, Drop.NOT_IP),
        (0x0800, BACK, Drop.NOT_IP),
        (0x6558, BACK, Drop.NOT_IP),
        (0x880B, BACK, Drop.NOT_IP),
        (0x86DD, b"", Drop.TRUNCATED),
        (0x0800, b"\x45", Drop.TRUNCATED),
    ],
)
def test_the_protocol_of_a_gre_header_must_be_what_is_inside(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress], protocol: int, inner: bytes, result: bytes | Drop
) -> None:
    fill(any_engine.tables, tunnel_from(ends, Encapsulation.GRE))
    assert any_engine.decapsulate([gre(ends, struct.pack("!HH", 0, protocol), inner)]) == [result]


@pytest.mark.parametrize("flags", [0, C, K, S, C | K, K | S, C | K | S])
def test_a_gre_header_cut_short_is_truncated(any_engine: Engine, flags: int) -> None:
    fill(any_engine.tables, tunnel_from(ENDS[6], Encapsulation.GRE))
    whole = struct.pack("!HH", flags, 0x86DD) + bytes(4 * flags.bit_count())
    answers = any_engine.decapsulate([gre(ENDS[6], whole[:n], b"") for n in range(len(whole))])
    assert answers == [Drop.TRUNCATED] * len(whole)


@each_family
def test_numbers_of_a_tunnel_start_at_0_and_count_its_packets(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress]
) -> None:
    tunnel = Tunnel(local=ends[1], remote=ends[0], encapsulation=Encapsulation.GRE, sequence=True, key_out=5)
    fill(any_engine.tables, tunnel)
    lost = packet(tunnel.remote, tunnel.local)  # of nobody: it takes no number
    answers = [each for each in any_engine.encapsulate([DOWN, lost, DOWN, DOWN]) if not isinstance(each, Drop)]
    assert [unlabelled(out) for [out] in answers] == [leaving(tunnel, DOWN, sequence=n) for n in range(3)]


def test_ipv4_out_of_gre_for_the_router_that_wrapped_it_would_go_round(any_engine: Engine) -> None:
    fill(any_engine.tables, tunnel_from(ENDS[4], Encapsulation.GRE))
    for source in (ANCHORED4[5], ANCHORED4[6]):
        assert any_engine.decapsulate([gre(ENDS[4], b"\0\0\x08\0", packet(source, ELSEWHERE4))]) == [Drop.LOOP]
        fine = packet(source, HERE4)
        assert any_engine.decapsulate([gre(ENDS[4], b"\0\0\x08\0", fine)]) == [fine]


def test_we_send_no_gre_checksum_and_no_key_unless_asked(any_engine: Engine) -> None:
    fill(any_engine.tables, Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.GRE, key_in=5))
    [[out]] = any_engine.encapsulate([DOWN])
    assert out[40:44].hex() == "000086dd"
    assert out[44:] == DOWN


@pytest.mark.parametrize("name", ["m38-gre-reserved-bits.hex"])
def test_vectors_of_the_standards_die_as_they_should(any_engine: Engine, name: str) -> None:
    octets = bytes.fromhex((VECTORS / "malformed" / name).read_text())
    assert any_engine.decapsulate([octets]) == [Drop.BAD_HEADER]


# --- UDP ---


@each_family
def test_a_broken_udp_checksum_is_refused(any_engine: Engine, ends: tuple[AnyAddress, AnyAddress]) -> None:
    fill(any_engine.tables, tunnel_from(ends, Encapsulation.UDP))
    good = wrapped(ends, Encapsulation.UDP, BACK)
    at = len(good) - len(BACK) - 2
    for changed in (at, at + 1, at + 2, len(good) - 1):
        bad = good[:changed] + bytes([good[changed] ^ 0x55]) + good[changed + 1 :]
        assert any_engine.decapsulate([bad]) == [Drop.BAD_HEADER], changed


def test_a_zero_udp_checksum_is_legal_over_ipv4_and_not_over_ipv6(any_engine: Engine) -> None:
    header = struct.pack("!HHHH", UDP_PORT, UDP_PORT, 8 + len(BACK), 0)
    fill(any_engine.tables, tunnel_from(ENDS[4], Encapsulation.UDP))
    assert any_engine.decapsulate([outer(*ENDS[4], UDP, header + BACK)]) == [BACK]
    fill(any_engine.tables, TUNNEL)
    assert any_engine.decapsulate([outer(*ENDS[6], UDP, header + BACK)]) == [Drop.BAD_HEADER]


@each_family
def test_a_checksum_that_comes_to_nothing_is_sent_as_all_ones(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress]
) -> None:
    tunnel = tunnel_from(ends, Encapsulation.UDP)
    fill(any_engine.tables, tunnel)
    inner = packet(CORRESPONDENT, ANCHORED[5], payload=bytes(2))
    right = leaving(tunnel, inner)
    at = len(right) - len(inner) - 2
    filler = int.from_bytes(right[at : at + 2], "big")
    inner = packet(CORRESPONDENT, ANCHORED[5], payload=filler.to_bytes(2, "big"))
    out = only(any_engine.encapsulate([inner]))[0]
    assert out[at : at + 2] == b"\xff\xff"
    back = tunnel_from((ends[1], ends[0]), Encapsulation.UDP)
    any_engine.tables.bind(ANCHORED, back, side=Side.ACCESS)
    assert any_engine.decapsulate([out]) == [inner]


@each_family
@pytest.mark.parametrize(
    ("length", "result"),
    [
        (8 + len(BACK), BACK),
        (7, Drop.BAD_HEADER),
        (0, Drop.BAD_HEADER),
        (8, Drop.TRUNCATED),
        (9 + len(BACK), Drop.TRUNCATED),
    ],
)
def test_the_udp_length_must_be_true(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress], length: int, result: bytes | Drop
) -> None:
    fill(any_engine.tables, tunnel_from(ends, Encapsulation.UDP))
    octets = struct.pack("!HHHH", UDP_PORT, UDP_PORT, length, 0) + BACK
    covered = octets[:length]
    pseudo = ends[0].packed + ends[1].packed + struct.pack("!II", length, UDP)
    octets = with_checksum(covered, 6, pseudo)[:8].ljust(8, b"\0") + octets[8:]
    assert any_engine.decapsulate([outer(*ends, UDP, octets)]) == [result]


@each_family
def test_a_datagram_to_another_port_is_no_tunnels(any_engine: Engine, ends: tuple[AnyAddress, AnyAddress]) -> None:
    fill(any_engine.tables, tunnel_from(ends, Encapsulation.UDP))
    for port in (5436, 0, 4191):
        octets = wrapped(ends, Encapsulation.UDP, BACK, ports=(UDP_PORT, port))
        assert any_engine.decapsulate([octets]) == [Drop.UNKNOWN_TUNNEL]


@each_family
def test_octets_behind_the_outer_lengths_are_nobodys(any_engine: Engine, ends: tuple[AnyAddress, AnyAddress]) -> None:
    for encapsulation in Encapsulation:
        fill(any_engine.tables, tunnel_from(ends, encapsulation))
        assert any_engine.decapsulate([wrapped(ends, encapsulation, BACK) + b"trailer"]) == [BACK]


@each_family
@pytest.mark.parametrize("encapsulation", Encapsulation)
def test_an_outer_packet_cut_short_anywhere_dies_and_nothing_is_read_behind_it(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress], encapsulation: Encapsulation
) -> None:
    fill(any_engine.tables, tunnel_from(ends, encapsulation))
    whole = wrapped(ends, encapsulation, BACK)
    answers = any_engine.decapsulate([whole[:n] for n in range(len(whole))])
    assert set(answers) == {Drop.TRUNCATED}


# --- IP in IP ---


@each_family
@pytest.mark.parametrize(
    ("protocol", "inner", "result"),
    [
        (41, BACK, BACK),
        (4, BACK4, BACK4),
        (4, BACK, Drop.NOT_IP),
        (41, BACK4, Drop.NOT_IP),
        (41, b"", Drop.TRUNCATED),
        (6, BACK, Drop.NOT_IP),
        (58, BACK, Drop.NOT_IP),
    ],
)
def test_the_protocol_number_must_be_that_of_the_packet_inside(
    any_engine: Engine, ends: tuple[AnyAddress, AnyAddress], protocol: int, inner: bytes, result: bytes | Drop
) -> None:
    fill(any_engine.tables, tunnel_from(ends, Encapsulation.IP))
    assert any_engine.decapsulate([outer(*ends, protocol, inner)]) == [result]


def test_an_outer_packet_of_no_ip_version_is_none(any_engine: Engine) -> None:
    assert any_engine.decapsulate([b"\x05" + bytes(60), b"\x70" + bytes(60)]) == [Drop.NOT_IP] * 2


# --- outer IPv6 with options, outer IPv4 with options ---


def behind_options(options: bytes, encapsulation: Encapsulation, inner: bytes = BACK) -> bytes:
    """An outer IPv6 packet with these Destination Options before what the tunnel puts there."""
    plain = wrapped(ENDS[6], encapsulation, inner)
    header = bytes([plain[6], (len(options) + 2) // 8 - 1]) + options
    return outer(*ENDS[6], DESTINATION_OPTIONS, header + plain[40:])


TUNNEL_LIMIT = bytes.fromhex("04 01 04 01 01 00")  # limit 4, PadN (RFC 2473 4.1.1)


@pytest.mark.parametrize("encapsulation", Encapsulation)
@pytest.mark.parametrize(
    ("options", "result"),
    [
        pytest.param(TUNNEL_LIMIT, BACK, id="limit 4"),
        pytest.param(bytes.fromhex("04 01 00 01 01 00"), BACK, id="limit 0: this is where the tunnel ends"),
        pytest.param(bytes(6), BACK, id="six times Pad1"),
        pytest.param(bytes.fromhex("01 04 00000000"), BACK, id="PadN"),
        pytest.param(bytes.fromhex("1e 04 00000000"), BACK, id="unknown, to be skipped"),
        pytest.param(bytes.fromhex("5e 04 00000000"), Drop.BAD_HEADER, id="unknown, to be dropped"),
        pytest.param(bytes.fromhex("9e 04 00000000"), Drop.BAD_HEADER, id="unknown, to be answered"),
        pytest.param(bytes.fromhex("c9 04 00000000"), Drop.BAD_HEADER, id="home address"),
        pytest.param(bytes.fromhex("01 05 00000000"), Drop.BAD_HEADER, id="longer than the header"),
        pytest.param(bytes.fromhex("01 03 000000 01"), Drop.BAD_HEADER, id="no length at the end"),
        pytest.param(TUNNEL_LIMIT + bytes(8), BACK, id="two words"),
        pytest.param(bytes(8 * 255 + 6), BACK, id="as long as can be"),
    ],
)
def test_destination_options_before_the_tunnel_are_understood_or_obeyed(
    any_engine: Engine, encapsulation: Encapsulation, options: bytes, result: bytes | Drop
) -> None:
    fill(any_engine.tables, tunnel_from(ENDS[6], encapsulation))
    assert any_engine.decapsulate([behind_options(options, encapsulation)]) == [result]


def test_options_that_do_not_end_in_the_packet_are_truncated(any_engine: Engine) -> None:
    fill(any_engine.tables, tunnel_from(ENDS[6], Encapsulation.IP))
    for header in (b"", b"\x29", b"\x29\0\1\4\0\0\0", b"\x29\1\1\4\0\0\0\0", b"\x29\xff" + bytes(100)):
        assert any_engine.decapsulate([outer(*ENDS[6], DESTINATION_OPTIONS, header)]) == [Drop.TRUNCATED]


def outer4(inner: bytes, *, options: bytes = b"", fragment: int = 0x4000) -> bytes:
    ends = ENDS[4]
    return packet(*ends, payload=inner, protocol=IN_IP[inner[0] >> 4], options=options, fragment=fragment)


@pytest.mark.parametrize("inner", [BACK, BACK4])
def test_options_of_an_outer_ipv4_header_are_passed_over(any_engine: Engine, inner: bytes) -> None:
    fill(any_engine.tables, tunnel_from(ENDS[4], Encapsulation.IP))
    assert any_engine.decapsulate([outer4(inner, options=b"\1" * 40)]) == [inner]


@pytest.mark.parametrize(
    ("fragment", "result"),
    [(0, BACK), (0x4000, BACK), (0x8000, BACK), (0x2000, Drop.BAD_HEADER), (1, Drop.BAD_HEADER)],
)
def test_fragments_are_put_together_by_the_kernel_or_not_at_all(
    any_engine: Engine, fragment: int, result: bytes | Drop
) -> None:
    fill(any_engine.tables, tunnel_from(ENDS[4], Encapsulation.IP))
    assert any_engine.decapsulate([outer4(BACK, fragment=fragment)]) == [result]


def test_a_broken_outer_ipv4_header_is_refused(any_engine: Engine) -> None:
    fill(any_engine.tables, tunnel_from(ENDS[4], Encapsulation.IP))
    good = outer4(BACK)
    for at in (0, 2, 3, 10, 15):  # version and header length, length, checksum, source
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert any_engine.decapsulate([bad]) in ([Drop.BAD_HEADER], [Drop.TRUNCATED]), at
    short = with_checksum(b"\x44" + good[1:16], 10) + good[16:]
    assert any_engine.decapsulate([short]) == [Drop.BAD_HEADER]


@pytest.mark.parametrize("tunnel", UNDERLAYS, ids=name_of)
def test_what_leaves_has_every_checksum_right(any_engine: Engine, tunnel: Tunnel) -> None:
    fill(any_engine.tables, tunnel)
    for size in (0, 1, 2, 3, 1399, 1400):
        [[out]] = any_engine.encapsulate([packet(CORRESPONDENT, ANCHORED[5], payload=b"\xa5" * size)])
        header = 40 if tunnel.local.version == 6 else 20
        if header == 20:
            assert internet_checksum(out[:20]) == 0
        if tunnel.encapsulation is Encapsulation.UDP:
            pseudo = tunnel.local.packed + tunnel.remote.packed + struct.pack("!II", len(out) - header, UDP)
            assert internet_checksum(pseudo + out[header:]) == 0


def test_the_far_end_of_a_tunnel_is_a_router_not_whoever_names_it(any_engine: Engine) -> None:
    other = IPv6Address("2001:db8:a9::1")
    assert any_engine.decapsulate([wrapped((other, HERE), Encapsulation.UDP, BACK)]) == [Drop.UNKNOWN_TUNNEL]
    assert any_engine.decapsulate([wrapped((HERE, ELSEWHERE), Encapsulation.UDP, BACK)]) == [Drop.UNKNOWN_TUNNEL]
