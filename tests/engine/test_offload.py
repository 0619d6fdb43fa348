"""Splitting and merging: the model and the compiled code do the same, and what is merged splits into what came in."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from engine.model import offload as model
from engine.model.dropped import Dropped
from engine.stats import Drop

try:
    from engine._fast import offload as fast
except ImportError:
    fast = None

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_ECN = 1, 4, 5, 0x80
DF, MORE = 0x4000, 0x2000
TIMESTAMPS = bytes.fromhex("0101080a 00010203 04050607")
ONE, OTHER = bytes(range(0x20, 0x30)), bytes(range(0x40, 0x50))  # addresses; IPv4 takes the last 4
ALL = 31  # everything a merger may do


# --- packets -------------------------------------------------------------------------------------------


def internet_checksum(octets: bytes) -> int:
    """RFC 1071, by another way than the code: 2**16 is 1 modulo 2**16 - 1."""
    number = int.from_bytes(octets + bytes(len(octets) % 2), "big")
    return -number % 0xFFFF if number else 0xFFFF


def pseudo(packet: bytes, transport: int, protocol: int) -> bytes:
    addresses = packet[8:40] if packet[0] >> 4 == 6 else packet[12:20]
    return addresses + struct.pack("!II", len(packet) - transport, protocol)


def summed(packet: bytes, transport: int, protocol: int) -> bytes:
    """With the right checksums of both headers."""
    at = transport + (16 if protocol == TCP else 6)
    packet = packet[:at] + b"\0\0" + packet[at + 2 :]
    value = internet_checksum(pseudo(packet, transport, protocol) + packet[transport:])
    if protocol == UDP:
        value = value or 0xFFFF
    packet = packet[:at] + value.to_bytes(2, "big") + packet[at + 2 :]
    if packet[0] >> 4 == 4:
        value = internet_checksum(packet[:10] + b"\0\0" + packet[12:transport])
        packet = packet[:10] + value.to_bytes(2, "big") + packet[12:]
    return packet


def ip6(protocol: int, upper: bytes, *, tos: int = 0, label: int = 0, ttl: int = 60, extensions: bytes = b"") -> bytes:
    """extensions: whole headers, the last of them names protocol."""
    first = 6 << 28 | tos << 20 | label
    following = 60 if extensions else protocol
    return struct.pack("!IHBB", first, len(extensions) + len(upper), following, ttl) + ONE + OTHER + extensions + upper


def ip4(
    protocol: int, upper: bytes, *, tos: int = 0, ttl: int = 60, identification: int = 7, fragment: int = DF,
    options: bytes = b"",
) -> bytes:  # fmt: skip
    size = 20 + len(options)
    fields = (0x40 | size // 4, tos, size + len(upper), identification & 0xFFFF, fragment, ttl, protocol, 0)
    return struct.pack("!BBHHHBBH", *fields) + ONE[12:] + OTHER[12:] + options + upper


def tcp(
    payload: bytes, *, family: int = 6, port: int = 1000, sequence: int = 1, ack: int = 77, flags: int = ACK,
    window: int = 500, urgent: int = 0, options: bytes = TIMESTAMPS, reserved: int = 0, **network: Any,
) -> bytes:  # fmt: skip
    size = 20 + len(options)
    fields = (port, 80, sequence % 2**32, ack, size // 4 << 4 | reserved, flags, window, 0, urgent)
    upper = struct.pack("!HHIIBBHHH", *fields) + options + payload
    packet = ip6(TCP, upper, **network) if family == 6 else ip4(TCP, upper, **network)
    return summed(packet, len(packet) - len(upper), TCP)


def udp(payload: bytes, *, family: int = 6, port: int = 1000, **network: Any) -> bytes:
    upper = struct.pack("!HHHH", port, 53, 8 + len(payload), 0) + payload
    packet = ip6(UDP, upper, **network) if family == 6 else ip4(UDP, upper, **network)
    return summed(packet, len(packet) - len(upper), UDP)


def partial(packet: bytes, transport: int, protocol: int) -> bytes:
    """As the kernel leaves it: only the sum of the pseudo-header in the checksum field."""
    at = transport + (16 if protocol == TCP else 6)
    value = internet_checksum(pseudo(packet, transport, protocol)) ^ 0xFFFF
    return packet[:at] + value.to_bytes(2, "big") + packet[at + 2 :]


def stream(sizes: Iterable[int], *, dice: random.Random | None = None, sequence: int = 1, **fields: Any) -> list[bytes]:
    """Segments of one TCP connection, one behind the other, IPv4 identification counting on."""
    made = []
    for count, size in enumerate(sizes):
        payload = dice.randbytes(size) if dice else bytes(n & 0xFF for n in range(size))
        number = {"identification": 7 + count} if fields.get("family") == 4 else {}
        made.append(tcp(payload, sequence=sequence, **number, **fields))
        sequence += size
    return made


# --- both of them --------------------------------------------------------------------------------------

Split = Callable[..., "list[bytes] | int"]
Merge = Callable[..., "list[tuple[tuple[int, ...], bytes, int]]"]


def model_split(*arguments: Any) -> list[bytes] | int:
    try:
        return model.split(*arguments)
    except Dropped as dropped:
        return int(dropped.reason)


def model_finish(*arguments: Any) -> bytes | int:
    try:
        return model.finish_checksum(*arguments)
    except Dropped as dropped:
        return int(dropped.reason)


def model_merge(packets: list[bytes], flows: object = None, may: int = ALL) -> list[tuple[tuple[int, ...], bytes, int]]:
    return [(made.virtio, made.packet, made.packets) for made in model.Merger(may).merge(packets)]


class Both:
    """The model and the compiled code, or only the first."""

    def __init__(self, kind: str) -> None:
        self.split: Split = model_split if kind == "model" else fast.split_packet
        self.finish: Callable[..., bytes | int] = model_finish if kind == "model" else fast.finish_packet
        self.merge: Merge = model_merge if kind == "model" else fast.merge_packets

    def merged(self, packets: list[bytes], may: int = ALL) -> list[bytes]:
        return [packet for _, packet, _ in self.merge(packets, None, may)]

    def counts(self, packets: list[bytes], may: int = ALL) -> list[int]:
        """How many packets are in each output."""
        return [count for _, _, count in self.merge(packets, None, may)]

    def resplit(self, packets: list[bytes]) -> list[bytes]:
        """Merged, and split again as the kernel would."""
        made: list[bytes] = []
        for virtio, packet, _ in self.merge(packets):
            flags, gso, _, segment, start, offset = virtio
            assert flags == (1 if gso else 0)
            segments = self.split(packet, gso, segment, start, offset) if gso else [packet]
            assert isinstance(segments, list)
            made += segments
        return made


@pytest.fixture(params=["model"] + (["compiled"] if fast else []))
def offload(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


compiled = pytest.mark.skipif(fast is None, reason="nothing is compiled")
families = pytest.mark.parametrize("family", [4, 6])


# --- split ---------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("octets", [1, 999, 1000, 1001, 3000, 3500, 65000])
def test_a_large_tcp_packet_becomes_the_segments_that_a_sender_would_have_sent(
    offload: Both, family: int, octets: int, dice: random.Random
) -> None:
    payload = dice.randbytes(octets)
    start = dice.choice([5, 2**32 - 1500])
    gso = GSO_TCP4 if family == 4 else GSO_TCP6
    packet = tcp(payload, family=family, sequence=start, flags=ACK | PSH | FIN | CWR | ECE)
    wanted = []
    for at in range(0, octets, 1000):
        flags = ACK | ECE | (CWR if at == 0 else 0) | (PSH | FIN if at + 1000 >= octets else 0)
        number = {"identification": 7 + at // 1000} if family == 4 else {}
        wanted.append(tcp(payload[at : at + 1000], family=family, sequence=start + at, flags=flags, **number))
    transport = 20 if family == 4 else 40
    assert offload.split(packet, gso | GSO_ECN, 1000) == wanted
    assert offload.split(partial(packet, transport, TCP), gso, 1000, transport, 16) == wanted


@families
def test_a_large_udp_packet_becomes_datagrams(offload: Both, family: int, dice: random.Random) -> None:
    payload = dice.randbytes(3333)
    transport = 20 if family == 4 else 40
    packet = partial(udp(payload, family=family), transport, UDP)
    wanted = []
    for at in range(0, 3333, 700):
        number = {"identification": 7 + at // 700} if family == 4 else {}
        wanted.append(udp(payload[at : at + 700], family=family, **number))
    assert offload.split(packet, GSO_UDP, 700, transport, 6) == wanted


def test_more_segments_than_leave_at_once(offload: Both, dice: random.Random) -> None:
    payload = dice.randbytes(1000)
    wanted = stream([7] * 142 + [6])
    packet = tcp(b"".join(segment[72:] for segment in wanted))
    assert offload.split(packet, GSO_TCP6, 7) == wanted
    assert len(offload.split(tcp(payload), GSO_TCP6, 1)) == 1000


def test_a_udp_checksum_that_comes_out_as_nought_is_sent_as_all_ones(offload: Both) -> None:
    packet = udp(b"\0\0")
    value = int.from_bytes(packet[46:48], "big")
    silent = udp(value.to_bytes(2, "big"))  # the sum of the rest is taken away by this payload
    assert silent[46:48] == b"\xff\xff"
    assert offload.split(silent, GSO_UDP, 100) == [silent]


def test_over_ipv4_udp_may_go_without_a_checksum(offload: Both) -> None:
    packet = udp(bytes(100), family=4)
    bare = packet[:26] + b"\0\0" + packet[28:]
    segments = offload.split(bare, GSO_UDP, 60)
    assert [segment[26:28] for segment in segments] == [b"\0\0", b"\0\0"]


def test_extension_headers_and_options_are_in_every_segment(offload: Both, dice: random.Random) -> None:
    payload = dice.randbytes(250)
    extensions = bytes([43, 1]) + bytes(14) + bytes([TCP, 0]) + bytes(6)  # destination options, then a routing header
    segments = offload.split(tcp(payload, extensions=extensions), GSO_TCP6, 100)
    assert segments == stream_of(payload, 100, extensions=extensions)
    options = bytes([1] * 8)
    segments = offload.split(tcp(payload, family=4, options=b"", **{"sequence": 1}), GSO_TCP4, 100)
    assert b"".join(segment[40:] for segment in segments) == payload
    packet = ip4(TCP, tcp(payload, family=4)[20:], options=options)
    segments = offload.split(summed(packet, 28, TCP), GSO_TCP4, 100)
    assert [segment[20:28] for segment in segments] == [options] * 3
    assert all(segment == summed(segment, 28, TCP) for segment in segments)


def stream_of(payload: bytes, size: int, **fields: Any) -> list[bytes]:
    return [tcp(payload[at : at + size], sequence=1 + at, **fields) for at in range(0, len(payload), size)]


def test_behind_a_routing_header_the_sum_that_the_kernel_made_counts(offload: Both) -> None:
    """Its pseudo-header has the last destination, which is not in the IPv6 header yet (RFC 8200 8.1)."""
    last = bytes(range(0x60, 0x70))
    routing = bytes([TCP, 2, 2, 1]) + bytes(4) + last
    extensions = bytes([43, 0]) + bytes(6) + routing
    packet = tcp(bytes(200), extensions=extensions)
    arrived = packet[:24] + last + packet[40:]
    value = internet_checksum(pseudo(arrived, 72, TCP)) ^ 0xFFFF
    segments = offload.split(packet[:88] + value.to_bytes(2, "big") + packet[90:], GSO_TCP6, 100, 72, 16)
    for segment in segments:
        there = segment[:24] + last + segment[40:]
        assert internet_checksum(pseudo(there, 72, TCP) + there[72:]) == 0


@pytest.mark.parametrize(
    ("why", "packet", "arguments"),
    [
        ("segments of nothing", tcp(bytes(99)), (GSO_TCP6, 0)),
        ("a kind that nobody knows", tcp(bytes(99)), (3, 50)),
        ("no kind", tcp(bytes(99)), (0, 50)),
        ("TCP over IPv4 that is IPv6", tcp(bytes(99)), (GSO_TCP4, 50)),
        ("TCP over IPv6 that is IPv4", tcp(bytes(99), family=4), (GSO_TCP6, 50)),
        ("UDP that is TCP", tcp(bytes(99)), (GSO_UDP, 50)),
        ("TCP that is UDP", udp(bytes(99)), (GSO_TCP6, 50)),
        ("cut short", tcp(bytes(99))[:-1], (GSO_TCP6, 50)),
        ("a part of a header", tcp(b"")[:50], (GSO_TCP6, 50)),
        ("nothing", b"", (GSO_TCP6, 50)),
        ("a fragment", tcp(bytes(99), family=4, fragment=MORE), (GSO_TCP4, 50)),
        ("a TCP header of 4 octets", tcp(bytes(99))[:52] + b"\x10" + tcp(bytes(99))[53:], (GSO_TCP6, 50)),
        ("a TCP header longer than all", tcp(b"", options=b"")[:52] + b"\xf0" + tcp(b"")[53:60], (GSO_TCP6, 50)),
        ("a checksum somewhere else", tcp(bytes(99)), (GSO_TCP6, 50, 40, 6)),
        ("a checksum over something else", tcp(bytes(99)), (GSO_TCP6, 50, 38, 16)),
        ("extensions without end", tcp(bytes(99), extensions=bytes([60, 0] + [0] * 6) * 40), (GSO_TCP6, 50)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nonsense_is_refused(offload: Both, why: str, packet: bytes, arguments: tuple[int, ...]) -> None:
    assert offload.split(packet, *arguments) == Drop.BAD_OFFLOAD


@compiled
def test_both_split_whatever_comes_in_the_same_way(dice: random.Random) -> None:
    for _ in range(1500):
        packet = broken(dice, any_packet(dice, dice.choice([0, 1, 50, 400, 2000])))
        kind = dice.choice([GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_TCP4 | GSO_ECN, GSO_TCP6 | GSO_ECN, 0, 3, 77])
        if dice.random() < 0.8 and len(packet) > 20:
            is_tcp = packet[6 if packet[0] >> 4 == 6 else 9] == TCP
            kind = (GSO_TCP6 if packet[0] >> 4 == 6 else GSO_TCP4) if is_tcp else GSO_UDP
        segment = dice.choice([0, 1, 13, 100, 536, 1440, 65535])
        where = dice.choice([(0, 0), (0, 0), (20, 16), (40, 16), (20, 6), (40, 6), (48, 16), (dice.randrange(99), 6)])
        assert fast.split_packet(packet, kind, segment, *where) == model_split(packet, kind, segment, *where)


# --- a checksum left to us -----------------------------------------------------------------------------


@families
@pytest.mark.parametrize("make", [tcp, udp])
def test_a_checksum_left_to_us_is_finished(offload: Both, family: int, make: Any, dice: random.Random) -> None:
    transport, protocol, offset = (20 if family == 4 else 40), (TCP if make is tcp else UDP), (16 if make is tcp else 6)
    for size in (0, 1, 100, 1399):
        packet = make(dice.randbytes(size), family=family)
        assert offload.finish(partial(packet, transport, protocol), transport, offset) == packet


@pytest.mark.parametrize("place", [(99, 6), (40, 16), (65535, 65535), (41, 1)])
def test_a_checksum_outside_the_packet_is_refused(offload: Both, place: tuple[int, int]) -> None:
    assert offload.finish(bytes(42), *place) == Drop.BAD_OFFLOAD


@compiled
def test_both_finish_any_checksum_in_the_same_way(dice: random.Random) -> None:
    for _ in range(1000):
        packet = dice.randbytes(dice.randrange(150)) if dice.random() < 0.9 else bytes(100)
        place = dice.randrange(120), dice.randrange(30)
        assert fast.finish_packet(packet, *place) == model_finish(packet, *place)


# --- merge ---------------------------------------------------------------------------------------------


@families
def test_a_stream_becomes_one_packet(offload: Both, family: int, dice: random.Random) -> None:
    packets = stream([1400] * 40 + [77], family=family, dice=dice)
    transport = 20 if family == 4 else 40
    payload = b"".join(packet[transport + 32 :] for packet in packets)
    [(virtio, packet, count)] = offload.merge(packets)
    assert virtio == (1, GSO_TCP4 if family == 4 else GSO_TCP6, transport + 32, 1400, transport, 16)
    assert count == 41
    assert packet == partial(tcp(payload, family=family), transport, TCP)
    assert offload.resplit(packets) == packets


@families
def test_datagrams_of_one_flow_become_one(offload: Both, family: int, dice: random.Random) -> None:
    transport = 20 if family == 4 else 40
    sizes = [200] * 9 + [33]
    packets = []
    for count, size in enumerate(sizes):
        number = {"identification": 7 + count} if family == 4 else {}
        packets.append(udp(dice.randbytes(size), family=family, **number))
    [(virtio, packet, count)] = offload.merge(packets)
    assert virtio == (1, GSO_UDP, transport + 8, 200, transport, 6)
    assert packet == partial(udp(b"".join(each[transport + 8 :] for each in packets), family=family), transport, UDP)
    assert count == 10
    assert offload.resplit(packets) == packets


def test_a_packet_alone_stays_as_it_came(offload: Both) -> None:
    packet = tcp(bytes(100))
    assert offload.merge([packet]) == [((0,) * 6, packet, 1)]


def test_push_and_fin_end_a_merged_packet_and_are_in_it(offload: Both) -> None:
    for flag in (PSH, FIN, PSH | FIN):
        packets = stream([100] * 6)
        packets[2] = tcp(packets[2][72:], sequence=201, flags=ACK | flag)
        assert offload.counts(packets) == [3, 3]
        assert offload.merged(packets)[0][53] == ACK | flag
        assert offload.resplit(packets) == packets


def test_a_shorter_segment_ends_a_merged_packet(offload: Both) -> None:
    packets = stream([100, 100, 50, 100, 100])
    assert offload.counts(packets) == [3, 2]
    assert offload.resplit(packets) == packets


def test_a_longer_segment_begins_another_one(offload: Both) -> None:
    packets = stream([100, 100, 101, 101])
    assert offload.counts(packets) == [2, 2]
    assert offload.resplit(packets) == packets


def test_congestion_window_reduced_is_said_by_the_first_segment_only(offload: Both) -> None:
    packets = stream([100] * 4)
    packets[0] = tcp(packets[0][72:], flags=ACK | CWR)
    [(virtio, packet, count)] = offload.merge(packets)
    assert virtio[1] == GSO_TCP6 | GSO_ECN
    assert packet[53] == ACK | CWR
    assert count == 4
    assert offload.resplit(packets) == packets
    packets = stream([100] * 4, flags=ACK | CWR)
    assert offload.counts(packets) == [1] * 4


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("a gap", {"sequence": 302}),
        ("an overlap", {"sequence": 300}),
        ("another acknowledgment", {"ack": 78}),
        ("another window", {"window": 501}),
        ("other timestamps", {"options": TIMESTAMPS[:-1] + b"\x08"}),
        ("no timestamps", {"options": b""}),
        ("an echo of congestion", {"flags": ACK | ECE}),
        ("a window that was reduced", {"flags": ACK | CWR}),
        ("a reserved bit", {"reserved": 1}),
        ("an urgent pointer", {"urgent": 1}),
        ("another DSCP", {"tos": 0x28}),
        ("congestion experienced", {"tos": 3}),
        ("another hop limit", {"ttl": 59}),
        ("another flow label", {"label": 9}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_segment_with_something_else_in_its_header_begins_another_packet(
    offload: Both, why: str, change: dict[str, Any]
) -> None:
    packets = [*stream([100] * 3), tcp(bytes(100), **{"sequence": 301, **change})]
    assert offload.counts(packets) == [3, 1]
    assert offload.merged(packets)[1] == packets[3]


@pytest.mark.parametrize("flag", [SYN, RST, URG])
def test_what_must_not_wait_goes_alone_and_in_order(offload: Both, flag: int) -> None:
    packets = stream([100] * 5)
    packets[2] = tcp(bytes(100), sequence=201, flags=ACK | flag)
    assert offload.counts(packets) == [2, 1, 2]
    assert offload.resplit(packets) == packets


def test_an_acknowledgment_goes_alone_and_overtakes_nothing(offload: Both) -> None:
    packets = [*stream([100] * 2), tcp(b"", sequence=201), *stream([100] * 2, sequence=201)]
    assert offload.counts(packets) == [2, 1, 2]
    assert offload.resplit(packets) == packets


@families
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_broken_checksum_is_passed_on_as_it_came(offload: Both, family: int, which: int) -> None:
    packets = stream([100] * 5, family=family)
    packets[which] = packets[which][:-1] + b"\xee"
    assert offload.resplit(packets) == packets
    assert ((0,) * 6, packets[which], 1) in offload.merge(packets)


def test_a_broken_ipv4_header_is_passed_on_as_it_came(offload: Both) -> None:
    packets = stream([100] * 3, family=4)
    packets[1] = packets[1][:10] + b"\xee\xee" + packets[1][12:]
    assert offload.counts(packets) == [1, 1, 1]
    assert offload.merged(packets) == packets


def test_identifications_of_ipv4_count_on(offload: Both) -> None:
    for fragment in (0, DF):
        packets = [tcp(bytes(100), family=4, sequence=1 + 100 * n, identification=0xFFFE + n, fragment=fragment)
                   for n in range(5)]  # fmt: skip
        assert offload.counts(packets) == [5]
        assert offload.resplit(packets) == packets
        packets[3] = tcp(bytes(100), family=4, sequence=301, identification=99, fragment=fragment)
        assert offload.counts(packets) == [3, 1, 1]


def test_with_df_they_may_stay_the_same(offload: Both) -> None:
    packets = [tcp(bytes(100), family=4, sequence=1 + 100 * n, identification=0) for n in range(5)]
    assert offload.counts(packets) == [5]
    counting = [tcp(bytes(100), family=4, sequence=1 + 100 * n, identification=max(0, n - 1)) for n in range(4)]
    assert offload.counts(counting) == [2, 2]  # the second packet decides
    loose = [tcp(bytes(100), family=4, sequence=1 + 100 * n, identification=0, fragment=0) for n in range(3)]
    assert offload.counts(loose) == [1, 1, 1]


def test_df_of_all_segments_is_the_same(offload: Both) -> None:
    packets = stream([100] * 2, family=4)
    packets.append(tcp(bytes(100), family=4, sequence=201, identification=9, fragment=0))
    assert offload.counts(packets) == [2, 1]


def test_a_datagram_without_checksum_goes_alone(offload: Both) -> None:
    packets = [udp(bytes(50), family=4, identification=n) for n in range(3)]
    packets[1] = packets[1][:26] + b"\0\0" + packets[1][28:]
    assert offload.counts(packets) == [1, 1, 1]
    assert offload.merged(packets) == packets


def test_an_empty_datagram_goes_alone_and_overtakes_nothing(offload: Both) -> None:
    packets = [udp(bytes(50)), udp(bytes(50)), udp(b""), udp(bytes(50))]
    assert offload.counts(packets) == [2, 1, 1]
    assert offload.merged(packets)[1] == packets[2]


def test_fragments_and_options_go_as_they_came_and_overtake_nothing(offload: Both) -> None:
    odd = [
        tcp(bytes(100), family=4, sequence=201, fragment=MORE),
        summed(ip4(TCP, tcp(bytes(100), family=4)[20:], options=bytes([1] * 4)), 24, TCP),
        ip4(1, bytes(30)),
    ]
    for packet in odd:
        packets = [*stream([100] * 2, family=4), packet, *stream([100] * 2, sequence=201, family=4)]
        assert offload.counts(packets) == [2, 1, 2]
        assert offload.merged(packets)[1] == packet
    six = tcp(bytes(100), sequence=201, extensions=bytes([TCP, 0]) + bytes(6))
    packets = [*stream([100] * 2), six, *stream([100] * 2, sequence=201)]
    assert offload.counts(packets) == [2, 1, 2]


def test_no_packet_grows_beyond_what_its_length_can_say(offload: Both) -> None:
    for family in (4, 6):
        packets = stream([1440] * 60, family=family)
        assert max(len(packet) for packet in offload.merged(packets)) <= 65535
        assert offload.counts(packets) == [45, 15]
        assert offload.resplit(packets) == packets


def test_a_merged_packet_may_be_as_long_as_its_length_can_say(offload: Both) -> None:
    assert offload.counts([udp(bytes(21829))] * 3) == [3]  # 65535 octets
    assert offload.counts([udp(bytes(32744))] * 2) == [1, 1]  # one more


def test_no_packet_has_more_than_64_segments(offload: Both) -> None:
    packets = [udp(bytes(20)) for _ in range(150)]
    assert offload.counts(packets) == [64, 64, 22]


def test_sequence_numbers_begin_again_at_nought(offload: Both) -> None:
    packets = stream([1000] * 5, sequence=2**32 - 2500)
    assert offload.counts(packets) == [5]
    assert offload.resplit(packets) == packets


def test_flows_that_are_mixed_are_merged_each_for_itself(offload: Both, dice: random.Random) -> None:
    flows = [stream([500] * 8, port=1000 + n, dice=dice) for n in range(16)]
    packets = [packet for column in zip(*flows, strict=True) for packet in column]
    assert offload.counts(packets) == [8] * 16
    assert sorted(offload.resplit(packets)) == sorted(packets)


def test_a_flow_too_many_closes_the_oldest(offload: Both) -> None:
    flows = [stream([500] * 2, port=1000 + n) for n in range(17)]
    packets = [flow[0] for flow in flows] + [flow[1] for flow in flows[1:]]
    made = offload.merge(packets)
    assert made[0] == ((0,) * 6, flows[0][0], 1)
    assert [count for _, _, count in made] == [1] + [2] * 16


def test_both_directions_are_two_flows(offload: Both) -> None:
    there = stream([100] * 2)
    back = []
    for packet in there:
        turned = packet[:8] + packet[24:40] + packet[8:24] + packet[42:44] + packet[40:42] + packet[44:]
        back.append(summed(turned, 40, TCP))
    assert offload.counts([there[0], back[0], there[1], back[1]]) == [2, 2]


@pytest.mark.parametrize(("bit", "kind"), [(1, "tcp4"), (2, "tcp6"), (4, "udp4"), (8, "udp6")])
def test_only_what_the_tun_takes_is_merged(offload: Both, bit: int, kind: str) -> None:
    family = int(kind[3])
    if kind.startswith("tcp"):
        packets = stream([100] * 3, family=family)
    else:
        packets = [udp(bytes(90), family=family, **({"identification": n} if family == 4 else {})) for n in range(3)]
    assert offload.counts(packets, 16 | bit) == [3]
    assert offload.counts(packets, ALL & ~bit) == [1, 1, 1]


def test_without_a_virtio_header_packets_stay_as_they_came(offload: Both) -> None:
    packets = stream([100] * 3)
    assert offload.merge(packets, None, 15) == [((), packet, 1) for packet in packets]


def test_more_outputs_than_wait_at_once(offload: Both) -> None:
    packets = [tcp(bytes(10), port=n, flags=ACK | PSH) for n in range(256)]
    assert offload.merged(packets) == packets


# --- whatever comes ------------------------------------------------------------------------------------


def any_packet(dice: random.Random, size: int) -> bytes:
    family = dice.choice([4, 6])
    network: dict[str, Any] = {"tos": dice.choice([0, 0, 0, 2, 3]), "ttl": dice.choice([60, 60, 60, 1])}
    if family == 4:
        network |= {"fragment": dice.choice([DF, DF, 0, MORE, 5]), "identification": dice.choice([7, 8, 9, 65535])}
        network |= {"options": bytes([1] * 4)} if dice.random() < 0.1 and size == 0 else {}
    elif dice.random() < 0.2:
        network |= {"label": 5}
    if dice.random() < 0.4:
        network.pop("options", None)
        return udp(dice.randbytes(size), family=family, port=dice.choice([1, 2]), **network)
    network.pop("options", None)
    if family == 6 and dice.random() < 0.1:
        network["extensions"] = bytes([TCP, 1]) + bytes(14)
    return tcp(
        dice.randbytes(size),
        family=family,
        port=dice.choice([1, 2]),
        sequence=dice.choice([1, 1, 2**32 - 100]) + size * dice.randrange(3),
        flags=dice.choice([ACK, ACK, ACK, ACK | PSH, ACK | FIN, ACK | CWR, ACK | ECE, SYN, RST, ACK | URG, 0xFF]),
        options=dice.choice([TIMESTAMPS, TIMESTAMPS, b""]),
        reserved=dice.choice([0, 0, 0, 1]),
        **network,
    )


def broken(dice: random.Random, packet: bytes) -> bytes:
    """Often as it is; else cut, longer, or with some octets that are not what they were."""
    way = dice.random()
    if way < 0.6:
        return packet
    if way < 0.7:
        return packet[: dice.randrange(len(packet) + 1)]
    if way < 0.75:
        return packet + dice.randbytes(dice.randrange(1, 9))
    changed = bytearray(packet)
    for _ in range(dice.choice([1, 1, 3])):
        changed[dice.randrange(min(len(changed), 70))] = dice.choice([0, 255, dice.randrange(256)])
    return bytes(changed)


def traffic(dice: random.Random, flows: int) -> list[bytes]:
    """256 packets of several streams, mixed; some lost, some broken, some twice, some that belong to nothing."""
    runs = []
    for n in range(flows):
        family = dice.choice([4, 6])
        size = dice.choice([1, 2, 77, 500, 1400])
        count = dice.randrange(1, 90)
        if dice.random() < 0.3:
            step = dice.choice([0, 1])
            run = [udp(dice.randbytes(size), family=family, port=n, **({"identification": 9 + k * step}
                       if family == 4 else {})) for k in range(count)]  # fmt: skip
        else:
            run = stream([size] * count, family=family, port=n, dice=dice, sequence=dice.choice([1, 2**32 - 500]))
            if dice.random() < 0.5:
                run[-1] = summed(run[-1][:53] + bytes([ACK | PSH]) + run[-1][54:], 40, TCP) if family == 6 else run[-1]
        runs.append(run)
    packets = []
    while any(runs) and len(packets) < 256:
        run = dice.choice([run for run in runs if run])
        for _ in range(min(dice.choice([1, 1, 2, 10]), len(run))):
            packet = run.pop(0)
            way = dice.random()
            if way < 0.02:
                continue
            packets += [packet, packet] if way < 0.04 else [broken(dice, packet)] if way < 0.07 else [packet]
            if way > 0.98:
                packets.append(broken(dice, any_packet(dice, dice.choice([0, 10, 100]))))
    return packets[:256]


@compiled
def test_both_merge_whatever_comes_in_the_same_way(dice: random.Random) -> None:
    for _ in range(25):
        packets = traffic(dice, dice.choice([1, 2, 5, 20, 40]))
        assert fast.merge_packets(packets) == model_merge(packets)
        may = dice.randrange(32)
        assert fast.merge_packets(packets, None, may) == model_merge(packets, None, may)


@compiled
def test_both_merge_nonsense_in_the_same_way(dice: random.Random) -> None:
    for _ in range(40):
        packets = [broken(dice, any_packet(dice, dice.choice([0, 1, 20, 100, 100, 100]))) for _ in range(200)]
        assert fast.merge_packets(packets) == model_merge(packets)
    for _ in range(20):
        packets = [dice.choice([b"", b"\x45", b"\x60"]) + dice.randbytes(dice.randrange(90)) for _ in range(200)]
        assert fast.merge_packets(packets) == model_merge(packets)


@compiled
def test_flow_hashes_find_the_same_flows(dice: random.Random) -> None:
    for _ in range(15):
        flows = [stream([300] * 12, port=n, dice=dice) for n in range(dice.randrange(1, 20))]
        hashes = [dice.choice([0, 1, dice.randrange(2**64)]) for _ in flows]
        mixed = [(n, packet) for n, flow in enumerate(flows) for packet in flow]
        dice.shuffle(mixed)
        order = [n for n, _ in mixed]
        packets = [flows[n].pop(0) for n in order]
        made = fast.merge_packets(packets, [hashes[n] for n in order])
        assert made == model_merge(packets)


def test_what_was_merged_splits_into_what_came_in(offload: Both, dice: random.Random) -> None:
    """Flow by flow, in order; identifications of IPv4 with DF may count on where they stood still."""

    def by_flow(packets: list[bytes]) -> dict[bytes, list[bytes]]:
        flows: dict[bytes, list[bytes]] = {}
        for packet in packets:
            key = packet[8:44] if packet[:1] >= b"\x60" else packet[12:24]
            key += bytes([packet[0] >> 4]) if packet else b""
            if packet[:1] == b"\x45" and len(packet) >= 28 and packet[6] & 0x40:
                packet = packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]
            flows.setdefault(key, []).append(packet)
        return flows

    for _ in range(10):
        packets = traffic(dice, dice.choice([1, 3, 12, 30]))
        assert by_flow(offload.resplit(packets)) == by_flow(packets)
