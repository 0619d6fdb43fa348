"""A capture file holds what the tap copied, as pcapng says it; the tap loses packets only when its ring is full."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.capture import INBOUND, OUTBOUND, Capture, Record

try:
    from engine._fast.tap import Ring
except ImportError:
    Ring = None

compiled = pytest.mark.skipif(Ring is None, reason="nothing is compiled")

TIME = 1_700_000_000_123_456_789  # ns
IPV6 = bytes.fromhex(f"60000000000c1140 {1:032x} {2:032x} 00350035000c0000") + b"ping"
IPV4 = bytes.fromhex("4500001c000000004011000001020304050607080035003500080000")


class Block(NamedTuple):
    kind: int
    body: bytes

    def options(self, at: int) -> dict[int, bytes]:
        """Those from that octet of the body on, up to the end mark."""
        found = {}
        while True:
            code, length = struct.unpack_from("<HH", self.body, at)
            if code == 0:
                assert at + 4 == len(self.body)
                return found
            found[code] = self.body[at + 4 : at + 4 + length]
            at += 4 + length + -length % 4


def blocks(octets: bytes) -> list[Block]:
    """The file as the draft describes it."""
    found, at = [], 0
    while at < len(octets):
        kind, length = struct.unpack_from("<II", octets, at)
        assert length % 4 == 0
        assert octets[at + length - 4 : at + length] == octets[at + 4 : at + 8]
        found.append(Block(kind, octets[at + 8 : at + length - 4]))
        at += length
    return found


def captured(*records: Record, lost: int = 0, **settings: Any) -> list[Block]:
    file = io.BytesIO()
    capture = Capture(file, **{"tunnel": "mar1-mar2", **settings})
    capture.feed(records)
    capture.close(lost=lost)
    return blocks(file.getvalue())


def packets(found: list[Block]) -> list[Record]:
    out = []
    for kind, body in found:
        if kind == 6:
            interface, high, low, length, original = struct.unpack_from("<IIIII", body)
            assert interface == 0
            (flags,) = struct.unpack("<I", Block(kind, body).options(20 + length + -length % 4)[2])
            out.append((high << 32 | low, flags, original, body[20 : 20 + length]))
    return out


def test_the_file_begins_with_a_section_and_the_tunnel_as_its_interface() -> None:
    section, interface = captured()[:2]
    assert section.kind == 0x0A0D0D0A
    assert struct.unpack_from("<IHHq", section.body) == (0x1A2B3C4D, 1, 0, -1)
    assert section.options(16) == {4: b"openmar"}
    assert interface.kind == 1
    assert struct.unpack_from("<HHI", interface.body) == (101, 0, 65600)
    assert interface.options(8) == {2: b"mar1-mar2", 9: b"\x09"}


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 1400])
def test_packets_come_back_with_time_direction_and_both_lengths(length: int) -> None:
    records = [(TIME, INBOUND, 65535, bytes(length)), (TIME + 1, OUTBOUND, length, b"x" * length)]
    assert packets(captured(*records)) == records


def test_a_capture_stops_at_its_count() -> None:
    capture = Capture(io.BytesIO(), tunnel="t", count=2)
    capture.feed([(TIME, INBOUND, 40, IPV6)])
    assert not capture.full
    capture.feed([(TIME, INBOUND, 40, IPV6)] * 5)
    assert capture.full
    assert capture.packets == 2


def test_what_was_lost_stands_at_the_end() -> None:
    last = captured((TIME, INBOUND, 52, IPV6), lost=7)[-1]
    assert last.kind == 5
    assert struct.unpack_from("<III", last.body) == (0, TIME >> 32, TIME & 0xFFFFFFFF)
    assert last.options(12) == {5: struct.pack("<Q", 7)}


def test_the_file_can_be_read_before_it_is_closed(tmp_path: Path) -> None:
    place = tmp_path / "t.pcapng"
    with place.open("wb") as file:
        Capture(file, tunnel="t").feed([(TIME, INBOUND, 52, IPV6)])
        assert packets(blocks(place.read_bytes())) == [(TIME, INBOUND, 52, IPV6)]


def test_a_closed_capture_takes_nothing_more() -> None:
    file = io.BytesIO()
    capture = Capture(file, tunnel="t")
    capture.close()
    capture.close()
    assert len(blocks(file.getvalue())) == 3
    with pytest.raises(ValueError, match="closed"):
        capture.feed([])


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_wireshark_reads_it(tmp_path: Path) -> None:
    place = tmp_path / "t.pcapng"
    with place.open("wb") as file:
        capture = Capture(file, tunnel="mar1-mar2")
        capture.feed([(TIME, INBOUND, 52, IPV6), (TIME + 1000, OUTBOUND, 28, IPV4)])
        capture.close()
    fields = ["frame.time_epoch", "frame.interface_name", "frame.p2p_dir", "frame.packet_flags_direction", "frame.len"]
    fields += ["ipv6.dst", "ip.dst"]
    asked = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-r", str(place), "-T", "json", *asked]
    heard = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout
    one, two = (packet["_source"]["layers"] for packet in json.loads(heard))
    assert one["frame.interface_name"] == two["frame.interface_name"] == ["mar1-mar2"]
    assert one["frame.time_epoch"] == ["1700000000.123456789"]
    assert (one["ipv6.dst"], two["ip.dst"]) == (["::2"], ["5.6.7.8"])
    assert (one["frame.len"], two["frame.len"]) == (["52"], ["28"])
    assert one["frame.packet_flags_direction"] != two["frame.packet_flags_direction"]


# --- the tap


@compiled
def test_a_tap_that_is_off_copies_nothing() -> None:
    ring = Ring()
    ring.record(3, INBOUND, IPV6, 5)
    assert ring.read() == []
    ring.open()
    ring.close()
    ring.record(3, INBOUND, IPV6, 5)
    assert ring.read() == []


@compiled
def test_a_tap_copies_one_tunnel_or_all_of_them() -> None:
    ring = Ring()
    ring.open(tunnel=3, offset=TIME)
    ring.record(3, INBOUND, IPV6, 5)
    ring.record(4, OUTBOUND, IPV4, 6)
    assert ring.read() == [(TIME + 5, INBOUND, 52, IPV6)]
    ring.close()
    ring.open(offset=TIME)
    ring.record(4, OUTBOUND, IPV4, 6)
    assert ring.read() == [(TIME + 6, OUTBOUND, 28, IPV4)]


@compiled
@pytest.mark.parametrize("snap", [0, 3, 8, 10, 100])
def test_no_more_than_the_snap_length_is_kept_with_or_without_an_outer_header(snap: int) -> None:
    ring = Ring()
    ring.open(snap=snap)
    ring.record(1, OUTBOUND, IPV4, 5, head=b"outerhdr")
    ring.record(1, OUTBOUND, IPV4, 5)
    assert ring.read() == [(5, 2, 36, (b"outerhdr" + IPV4)[:snap]), (5, 2, 28, IPV4[:snap])]


@compiled
def test_a_full_ring_loses_the_newest_and_counts_them() -> None:
    ring = Ring()
    ring.open(size=256)
    for n in range(10):
        ring.record(1, INBOUND, bytes([n]) * 40, n)
    kept = ring.read()
    assert [time for time, *_ in kept] == list(range(len(kept)))
    assert ring.lost == 10 - len(kept) > 0
    ring.record(1, INBOUND, IPV4, 11)
    assert ring.read() == [(11, INBOUND, 28, IPV4)]


@compiled
def test_what_was_not_read_is_forgotten_by_the_next_capture() -> None:
    ring = Ring()
    ring.open()
    ring.record(1, INBOUND, IPV4, 5)
    ring.close()
    ring.open()
    assert ring.read() == []


@compiled
def test_whatever_comes_is_read_back_or_counted(dice: random.Random) -> None:
    ring = Ring()
    ring.open(size=4096)
    written, heard = [], []
    for n in range(3000):
        octets = dice.randbytes(dice.choice([0, 1, 40, 333, 1400]))
        before = ring.lost
        ring.record(1, INBOUND, octets, n)
        if ring.lost == before:
            written.append((n, INBOUND, len(octets), octets))
        if dice.random() < 0.3:
            heard += ring.read()
    assert heard + ring.read() == written
    assert len(written) + ring.lost == 3000


@compiled
def test_a_worker_writes_while_another_thread_reads() -> None:
    ring, packets_sent = Ring(), 200_000
    ring.open(size=1 << 14)
    worker = threading.Thread(target=ring.hammer, args=(packets_sent, bytes(4) + b"x" * 96))
    worker.start()
    heard: list[Record] = []
    while worker.is_alive():
        heard += ring.read()
    worker.join()
    heard += ring.read()
    assert all(octets == time.to_bytes(4, "little") + b"x" * 96 for time, _, _, octets in heard)
    times = [time for time, *_ in heard]
    assert times == sorted(set(times))
    assert len(heard) + ring.lost == packets_sent
