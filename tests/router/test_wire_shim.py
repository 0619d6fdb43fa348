"""The wire of the demos does to frames what it is told, and nothing else: first its model, then between namespaces."""

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from router.demo.capture import SO_TIMESTAMPNS, stamp
from router.demo.lab import Host, Lab, available, connect
from router.demo.traffic import Program
from router.demo.wire_shim import ETHERNET, Conditions, Way, Wires, whole_frames
from tests.eventually import eventually

FRAME = bytes(ETHERNET + 1000)
A, B = "2001:db8:a::1", "2001:db8:a::2"
PATIENCE = 5.0  # s
END = b"the end"


def arrivals(way: Way, frames: int, *, every: float = 0.0) -> list[float]:
    """When frames arrive that enter from time 1 on; s after they entered, in order."""
    for number in range(frames):
        way.enter(FRAME, 1.0 + number * every)
    found = []
    while (at := way.next_arrival) < float("inf"):
        found += [at for _ in way.arrived(at)]
    return found


# The model


def test_a_wire_without_conditions_passes_everything_on_at_once() -> None:
    assert arrivals(Way(), 3) == [1.0, 1.0, 1.0]


def test_a_frame_is_late_by_the_delay() -> None:
    assert arrivals(Way(Conditions(delay=20.0)), 2, every=0.5) == [1.02, 1.52]


def test_frames_leave_one_after_the_other_at_the_rate() -> None:
    way = Way(Conditions(rate=8.0, delay=10.0))  # 1000 octets take 1 ms
    assert arrivals(way, 3) == pytest.approx([1.011, 1.012, 1.013])


def test_the_queue_drops_what_comes_last() -> None:
    way = Way(Conditions(rate=8.0, queue_packets=2))
    assert arrivals(way, 5) == pytest.approx([1.001, 1.002])
    assert way.counts["overflowed"] == 3


def test_the_queue_is_bounded_in_octets_too() -> None:
    way = Way(Conditions(rate=8.0, queue_octets=2500))
    assert arrivals(way, 5) == pytest.approx([1.001, 1.002])


def test_a_queue_that_drained_takes_frames_again() -> None:
    way = Way(Conditions(rate=8.0, queue_packets=1))
    assert len(arrivals(way, 5, every=0.001)) == 5


def test_jitter_keeps_the_order_and_its_bound() -> None:
    way = Way(Conditions(delay=10.0, jitter=5.0), seed=7)
    found = arrivals(way, 500, every=0.0001)
    late = [at - 1.0 - number * 0.0001 for number, at in enumerate(found)]
    assert found == sorted(found)
    assert 0.010 <= min(late) < max(late) <= 0.015 + 1e-9


def test_loss_is_as_frequent_as_told_and_the_same_for_the_same_seed() -> None:
    first, second = (Way(Conditions(loss=10.0), seed=3) for _ in range(2))
    assert len(arrivals(first, 10_000)) == len(arrivals(second, 10_000))
    assert 900 < first.counts["lost"] < 1100


def test_a_shorter_delay_lets_no_frame_overtake() -> None:
    way = Way(Conditions(delay=100.0))
    way.enter(FRAME + b"1", 1.0)
    way.conditions = Conditions(delay=1.0)
    way.enter(FRAME + b"2", 1.05)
    assert [frame[-1:] for frame in way.arrived(1.1)] == [b"1", b"2"]


def test_a_silent_wire_loses_what_is_on_its_way_too() -> None:
    way = Way(Conditions(delay=10.0))
    way.enter(FRAME, 1.0)
    way.conditions = Conditions(delay=10.0, silent=True)
    way.enter(FRAME, 1.005)
    assert list(way.arrived(2.0)) == []
    assert way.counts["silenced"] == 2


# Between namespaces


@dataclass
class Place:
    """a ==== [shim] ==== b."""

    a: Host
    b: Host
    middle: Host
    wires: Wires

    def udp(self, host: Host, address: str) -> socket.socket:
        """A socket on that host, with the kernel's stamps of what arrives."""
        with host.inside():
            made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        made.settimeout(PATIENCE)
        made.bind((address, 4321))
        return made


@pytest.fixture
def place() -> Iterator[Place]:
    if (reason := available()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        a, b, middle = lab.host("a"), lab.host("b"), lab.host("wires")
        for host in (a, b):
            host.sysctl("net/ipv6/conf/default/accept_dad", 0)
        for kind in ("all", "default"):
            middle.sysctl(f"net/ipv6/conf/{kind}/disable_ipv6", 1)
        for host, address in ((a, A), (b, B)):
            connect(middle, f"to-{host.name}", host, "eth0")
            host.address("eth0", f"{address}/64")
            whole_frames(host, "eth0")
        with Wires(middle, {"wire": ("to-a", "to-b")}) as wires:
            yield Place(a, b, middle, wires)


def lateness(sender: socket.socket, receiver: socket.socket, address: str) -> float:
    """Seconds from just before a datagram is sent to when the receiver's kernel had it."""
    begin = time.time()
    sender.sendto(b"there", (address, 4321))
    _, control, _, _ = receiver.recvmsg(100, socket.CMSG_SPACE(16))
    return stamp(control) / 1e9 - begin


@pytest.mark.namespaces
class TestNamespaces:
    def test_datagrams_are_late_by_the_delay_of_their_direction(self, place: Place) -> None:
        place.wires.change("wire", toward="to-b", delay=20.0)
        with place.udp(place.a, A) as a, place.udp(place.b, B) as b:
            there, back = zip(*((lateness(a, b, B), lateness(b, a, A)) for _ in range(10)), strict=True)
        assert 0.0199 < min(there) < 0.035
        assert min(back) < 0.015

    @pytest.mark.alone
    def test_a_stream_arrives_whole_at_the_rate_of_the_wire(self, place: Place) -> None:
        place.wires.change("wire", rate=20.0, delay=2.0)
        server = Program(place.b, "tcp-serve")
        server.wait_for("ready")
        get = Program(place.a, "tcp-get", B, "--octets", "2500000", "--rate", "0")
        connected, done = get.wait_for("connected"), get.wait_for("done")
        assert (done["octets"], done["corrupt"], done["error"]) == (2_500_000, 0, "")
        assert 15.0 < 20.0 / (done["time"] - connected["time"]) < 20.5  # headers take their part
        ends = place.wires.report()["wires"]["wire"]
        assert ends["to-a"]["strange"] == ends["to-b"]["strange"] == 0
        for program in (server, get):
            program.close()

    def test_a_silent_wire_keeps_its_carriers_and_returns(self, place: Place) -> None:
        with place.udp(place.a, A) as a, place.udp(place.b, B) as b:
            a.sendto(b"before", (B, 4321))
            assert b.recv(100) == b"before"
            place.wires.change("wire", silent=True)
            a.sendto(b"never", (B, 4321))
            eventually(lambda: place.wires.report()["wires"]["wire"]["to-b"]["silenced"] >= 1)
            assert {host.link("eth0").operstate for host in (place.a, place.b)} == {6}
            place.wires.change("wire", silent=False)
            a.sendto(b"after", (B, 4321))
            assert b.recv(100) == b"after"

    def test_a_wire_whose_end_was_unplugged_carries_again_and_was_not_busy_meanwhile(self, place: Place) -> None:
        middle = place.middle
        with place.udp(place.a, A) as a, place.udp(place.b, B) as b:
            a.sendto(b"before", (B, 4321))
            assert b.recv(100) == b"before"
            middle.link_down("to-b")
            eventually(lambda: place.b.link("eth0").operstate != 6, what="b lost carrier")
            before = place.wires.report()
            b.settimeout(0.3)
            with pytest.raises(TimeoutError):
                b.recv(100)
            after = place.wires.report()
            assert after["cpu"] - before["cpu"] < 0.1
            b.settimeout(PATIENCE)
            middle.link_up("to-b")
            eventually(lambda: place.b.link("eth0").operstate == 6, what="b has carrier")
            a.sendto(b"after", (B, 4321))
            assert b.recv(100) == b"after"

    def test_loss_costs_what_it_should_at_the_udp_socket(self, place: Place) -> None:
        with place.udp(place.a, A) as a, place.udp(place.b, B) as b:
            a.sendto(b"hello", (B, 4321))
            b.recv(100)
            place.wires.change("wire", toward="to-b", loss=50.0)
            before = self._seen(place)
            for number in range(200):
                a.sendto(struct.pack("!I", number), (B, 4321))
            eventually(lambda: self._seen(place) >= before + 200, what="all frames came to the wire")
            place.wires.change("wire", toward="to-b", loss=0.0)
            a.sendto(END, (B, 4321))
            got = [struct.unpack("!I", octets)[0] for octets in iter(lambda: b.recv(100), END)]
            assert got == sorted(got)
            assert 60 < 200 - len(got) < 140

    def test_an_unknown_condition_is_refused_and_the_wire_goes_on(self, place: Place) -> None:
        with pytest.raises(ValueError, match="no colour"):
            place.wires.change("wire", colour=7.0)
        with pytest.raises(ValueError, match="KeyError"):
            place.wires.change("other", delay=7.0)
        assert place.wires.change("wire", delay=0.0) > 0

    def _seen(self, place: Place) -> int:
        """Frames toward b: those of this test, and what kernels say by themselves."""
        counts = place.wires.report()["wires"]["wire"]["to-b"]
        return int(counts["carried"] + counts["lost"])
