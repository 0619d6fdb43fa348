"""The traffic programs move what they should and notice what they must, in the world of the demo.

mn is at mar1 with a static address, and mar1 has a static route to it: no mobility here, only the measuring.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from router.demo.capture import Packet, block, packet_block, read_packets
from router.demo.lab import Host, available
from router.demo.topology import CN_ADDRESS, World
from router.demo.traffic import UDP_PORT, Arrivals, Program, Reception, Stream, new_connection
from tests.eventually import eventually

namespaces = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]

MN_ADDRESS = IPv6Address("2001:db8:1000::11")
ACC0_LINK_LOCAL = "fe80::ff:fe00:101"  # of mar1, by its fixed link-layer address


@pytest.fixture
def world() -> Iterator[World]:
    with World(mars=1) as world:
        world["mn"].address("radio0", f"{MN_ADDRESS}/64")
        world["mn"].route("::/0", via=ACC0_LINK_LOCAL, dev="radio0")
        world["mar1"].route("2001:db8:1000::/64", dev="acc0")
        world.attach("mar1")
        eventually(lambda: world["mn"].link("radio0").operstate == 6, what="carrier")
        yield world


@pytest.fixture
def cn(world: World) -> Host:
    return world["cn"]


@pytest.fixture
def mn(world: World) -> Host:
    return world["mn"]


@pytest.fixture
def server(cn: Host) -> Program:
    server = Program(cn, "tcp-serve")
    server.wait_for("ready")
    return server


class TestNamespaces:
    pytestmark = namespaces

    def test_a_download_arrives_whole(self, mn: Host, server: Program) -> None:
        program = Program(mn, "tcp-get", str(CN_ADDRESS), "--octets", "3000000", "--rate", "0")
        done = program.wait_for("done")
        assert (done["octets"], done["corrupt"], done["error"]) == (3_000_000, 0, "")
        assert done["source"] == str(MN_ADDRESS)
        assert server.wait_for("served")["octets"] == 3_000_000

    def test_an_upload_arrives_whole(self, mn: Host, server: Program) -> None:
        program = Program(mn, "tcp-put", str(CN_ADDRESS), "--octets", "3000000", "--rate", "0")
        done = program.wait_for("done")
        assert (done["sent"], done["octets"], done["corrupt"], done["error"]) == (3_000_000, 3_000_000, 0, "")

    def test_a_short_connection_that_fails_tells_which_address_it_was_given(self, mn: Host) -> None:
        program = Program(mn, "connect-often", str(CN_ADDRESS))  # nobody serves there
        failed = program.wait_for("short")
        assert (failed["source"], failed["error"]) == (str(MN_ADDRESS), "ECONNREFUSED")
        program.stop()

    def test_an_endless_download_reports_when_it_is_stopped(self, mn: Host, server: Program) -> None:
        program = Program(mn, "tcp-get", str(CN_ADDRESS))
        assert program.wait_for("progress")["octets"] > 0
        done = program.stop()
        assert program.process.returncode == 0
        assert done["octets"] > 100_000
        assert (done["corrupt"], done["error"]) == (0, "")

    def test_an_endless_upload_ends_with_what_the_server_found(self, mn: Host, server: Program) -> None:
        program = Program(mn, "tcp-put", str(CN_ADDRESS))
        program.wait_for("progress")
        done = program.stop()
        assert done["octets"] == done["sent"] > 100_000
        assert (done["corrupt"], done["error"]) == (0, "")

    def test_a_download_notices_how_long_the_link_was_away(self, world: World, mn: Host, server: Program) -> None:
        program = Program(mn, "tcp-get", str(CN_ADDRESS))
        program.wait_for("progress")
        world.detach()
        progress = len(program.reports("progress"))
        eventually(lambda: len(program.reports("progress")) >= progress + 2, what="a second without a link")
        world.attach("mar1")
        before = program.reports("progress")[-1]["octets"]
        eventually(lambda: program.reports("progress")[-1]["octets"] > before + 100_000, what="it goes on")
        done = program.stop()
        assert done["longest_gap"] > 0.5
        assert (done["corrupt"], done["error"]) == (0, "")

    def test_a_new_connection_tells_the_source_address_the_kernel_chose(self, mn: Host, server: Program) -> None:
        connection = new_connection(mn, str(CN_ADDRESS))
        assert (connection.source, connection.error) == (str(MN_ADDRESS), "")

    def test_a_refused_connection_is_told(self, mn: Host) -> None:
        assert new_connection(mn, str(CN_ADDRESS), 9).error == "ECONNREFUSED"

    def test_a_server_that_ends_resets_nobody_unnoticed(self, mn: Host, server: Program) -> None:
        program = Program(mn, "tcp-get", str(CN_ADDRESS))
        program.wait_for("progress")
        server.process.kill()
        done = program.wait_for("done")
        assert done["octets"] > 0

    def test_no_probe_is_lost_on_a_standing_link(self, cn: Host, mn: Host) -> None:
        sink = Program(mn, "udp-sink")
        sink.wait_for("ready")
        sender = Program(cn, "udp-send", str(MN_ADDRESS), "--rate", "1000", "--seconds", "0.5")
        sent = sender.wait_for("done")
        eventually(lambda: sum(r["received"] for r in sink.reports("interval")) == sent["sent"])
        done = sink.stop()
        assert (done["received"], done["lost"], done["duplicates"]) == (sent["sent"], 0, 0)
        assert sent["sent"] == 500
        assert sent["unreachable"] == 0

    def test_every_arrival_is_noted_with_both_times(self, cn: Host, mn: Host) -> None:
        sink = Program(mn, "udp-sink")
        sink.wait_for("ready")
        sent = Program(cn, "udp-send", str(MN_ADDRESS), "--seconds", "0.2").wait_for("done")["sent"]
        eventually(lambda: sum(r["received"] for r in sink.reports("interval")) == sent)
        arrivals = [each for r in sink.reports("interval") for each in r["arrivals"]]
        assert [number for number, _, _ in arrivals] == list(range(sent))
        assert all(0 <= arrived - sent < 1 for _, sent, arrived in arrivals)

    def test_probes_into_a_broken_link_are_counted_as_lost(self, world: World, cn: Host, mn: Host) -> None:
        sink = Program(mn, "udp-sink")
        sink.wait_for("ready")
        sender = Program(cn, "udp-send", str(MN_ADDRESS))
        arrived = lambda: sum(r["received"] for r in sink.reports("interval"))  # noqa: E731
        eventually(lambda: arrived() > 100)
        world.detach()
        silent, sent_before = arrived(), len(sender.reports("progress"))
        eventually(lambda: len(sender.reports("progress")) > sent_before + 1, what="500 probes more")
        world.attach("mar1")
        eventually(lambda: arrived() > silent + 300)
        sent, done = sender.stop(), sink.stop()
        assert done["lost"] > 0
        assert done["received"] + done["lost"] <= sent["sent"]
        # the rest waited in mar1 for an answer to its neighbour solicitation, and arrived late
        assert done["lost"] <= done["longest_gap"] * 1000 + 5

    def test_an_unreachable_destination_is_counted_and_tolerated(self, world: World) -> None:
        sender = Program(world["air"], "udp-send", "2001:db8::1", "--seconds", "0.05")
        done = sender.wait_for("done")
        assert done["unreachable"] == done["sent"] == 50

    def test_a_capture_survives_the_loss_of_its_link(self, world: World, tmp_path: Path) -> None:
        file = tmp_path / "node0.pcapng"
        capture = Program(world["air"], "node0", str(file), module="router.demo.capture")
        capture.wait_for("ready")
        for _ in range(2):
            world.attach("mar1")
            sender = Program(world["cn"], "udp-send", str(MN_ADDRESS), "--seconds", "0.2")
            sender.wait_for("done")
        done = capture.stop()
        packets = read_packets(file)
        assert (len(packets), 0) == (done["packets"], done["dropped"])
        assert sum(packet.destination == MN_ADDRESS and packet.outgoing for packet in packets) > 250
        assert [packet.time for packet in packets] == sorted(packet.time for packet in packets)

    @pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
    def test_tshark_reads_a_capture(self, world: World, tmp_path: Path) -> None:
        file = tmp_path / "mar1.pcapng"
        capture = Program(world["core"], "mar1", str(file), module="router.demo.capture")
        capture.wait_for("ready")
        Program(world["cn"], "udp-send", str(MN_ADDRESS), "--seconds", "0.1").wait_for("done")
        capture.stop()
        command = ["tshark", "-r", str(file), "-Y", f"udp.dstport == {UDP_PORT}", "-T", "fields", "-e", "ipv6.dst"]
        command += ["-e", "frame.interface_name"]
        environment = {**os.environ, "HOME": str(tmp_path)}  # it reads settings there
        told = subprocess.run(command, capture_output=True, check=True, env=environment)
        assert told.stdout.decode().split()[:2] == [str(MN_ADDRESS), "mar1"]


# Without a network


def octets_of(stream: Stream, count: int) -> bytes:
    octets = b""
    while len(octets) < count:
        octets += bytes(stream.peek(count - len(octets)))
        stream.place = len(octets)
    return octets


def test_the_stream_is_recognised_however_it_is_cut() -> None:
    octets = octets_of(Stream(), 100_000)
    rng = random.Random(7)
    reception = Reception()
    rest = memoryview(octets)
    while rest:
        count = rng.randrange(1, 5000)
        reception.take(rest[:count])
        rest = rest[count:]
    assert (reception.stream.place, reception.corrupt) == (100_000, 0)


def test_a_single_wrong_octet_is_found() -> None:
    octets = bytearray(octets_of(Stream(), 40_000))
    octets[30_000] ^= 1
    reception = Reception()
    reception.take(memoryview(octets))
    assert reception.corrupt == 1


def test_a_missing_octet_spoils_all_that_follow() -> None:
    octets = octets_of(Stream(), 40_000)
    reception = Reception()
    reception.take(memoryview(octets[:100] + octets[101:]))
    assert reception.corrupt > 39_000


@pytest.mark.parametrize(
    ("numbers", "lost", "duplicates", "reordered"),
    [
        ([5, 6, 7], 0, 0, 0),
        ([5, 7, 8], 1, 0, 0),
        ([5, 7, 6, 8], 0, 0, 1),
        ([5, 6, 6, 7], 0, 1, 0),
        ([5, 8, 6, 6], 1, 1, 1),
        ([7, 8, 5, 6], 0, 0, 2),
        ([7, 5, 7, 5], 1, 2, 1),
    ],
)
def test_lost_duplicate_and_late_numbers_are_told_apart(
    numbers: list[int], lost: int, duplicates: int, reordered: int
) -> None:
    arrivals = Arrivals()
    for when, sequence in enumerate(numbers):
        arrivals.take(sequence, float(when))
    summary = arrivals.summary()
    assert (summary["lost"], summary["duplicates"], summary["reordered"]) == (lost, duplicates, reordered)


def test_the_longest_gap_and_its_beginning_are_kept() -> None:
    arrivals = Arrivals()
    for sequence, arrived in enumerate([10.0, 10.1, 10.7, 10.8]):
        arrivals.take(sequence, arrived)
    assert arrivals.longest_gap == pytest.approx(0.6)
    assert arrivals.gap_began == 10.1


def test_a_capture_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    file = tmp_path / "cut.pcapng"
    whole = packet_block(1_500_000_000_250_000_000, b"frame", 5, True)
    file.write_bytes(block(1, bytes(8)) + whole + whole[:-3])
    assert read_packets(file) == [Packet(1_500_000_000.25, b"frame", True)]
