"""Ports of a router that has several addresses, some of which come and go while packets move.

ours --eth0 ===== eth0-- theirs       one tunnel for each pair of addresses
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
import uvloop

from engine import AddressNotLocal, Encapsulation, Path, Side, Tables, Tunnel
from engine.ports import AnyAddress, PortKind
from engine.tunnels import UDP_PORT
from router.config import Config
from router.demo.lab import Lab, available, connect
from router.links.rtnetlink import Address
from router.packets import Packets
from tests.eventually import becomes

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]

FIRST, SECOND, THERE = (IPv6Address(f"2001:db8::{number}") for number in (1, 2, 9))
HERE4 = IPv4Address("192.0.2.1")
NODE = IPv6Network("2001:db8:a::/64")
MTU = 1400


def packet(number: int) -> bytes:
    """An IPv6 packet to the node, from the far end."""
    udp = (9).to_bytes(2, "big") + (9).to_bytes(2, "big") + (9).to_bytes(2, "big") + b"\1\1" + bytes([number])
    head = b"\x60\0\0\0" + len(udp).to_bytes(2, "big") + b"\x11\x40"
    return head + IPv6Address("2001:db8:b::1").packed + NODE[9].packed + udp


class Bench:
    def __init__(self, lab: Lab, stack: ExitStack, config: Config) -> None:
        self.ours, self.theirs = lab.host("ours"), lab.host("theirs")
        connect(self.ours, "eth0", self.theirs, "eth0")
        for host, addresses in ((self.ours, (FIRST, SECOND)), (self.theirs, (THERE,))):
            for address in addresses:
                host.address("eth0", f"{address}/64")
        index = self.ours.link("eth0").index
        self.ours.netlink.add_address(Address(index=index, address=HERE4, prefixlen=24))
        stack.enter_context(self.ours.inside())
        self.loop = uvloop.new_event_loop()
        stack.callback(self.loop.close)
        self.tables = Tables()
        self.packets = Packets(config, self.tables)
        self.hear_first: Callable[[], None] = lambda: None
        stack.callback(self.packets.close, self.loop)
        ways = [Tunnel(local=local, remote=THERE, encapsulation=config.encapsulation) for local in (FIRST, SECOND)]
        both = self.tables.bundle(Path(way, bid=number) for number, way in enumerate(ways, 1))
        self.tables.bind(NODE, both, side=Side.ACCESS)

    def begin(self, *addresses: AnyAddress) -> None:
        self.packets.open(addresses, mtu=MTU)
        self.ours.link_up("tun9")
        self.packets.serve(self.loop, lambda error: pytest.fail(str(error)), lambda: self.hear_first())

    def kinds(self) -> list[tuple[AnyAddress | None, PortKind]]:
        return [(port.local, port.kind) for port in self.packets._ports() if port.local is not None]

    def passes(self, local: IPv6Address) -> bool:
        """Whether what comes from the far end to that address reaches the TUN."""
        before = self.packets.counters().packets_to_tun
        with self.theirs.inside(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.bind((str(THERE), UDP_PORT))
            sender.sendto(packet(1), (str(local), UDP_PORT))
        return self.becomes(lambda: self.packets.counters().packets_to_tun > before)

    def becomes(self, condition: Callable[[], object], within: float = 2.0) -> bool:
        return self.loop.run_until_complete(becomes(condition, within))


CONFIG = Config(tun="tun9")


@pytest.fixture(params=[0, 2], ids=["loop", "workers"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Lab() as lab, ExitStack() as stack:
        yield Bench(lab, stack, replace(CONFIG, workers=request.param))


def test_packets_arrive_at_every_address_that_is_open(bench: Bench) -> None:
    bench.begin(FIRST, SECOND)
    assert bench.passes(FIRST)
    assert bench.passes(SECOND)


@pytest.mark.parametrize("bench", [0], indirect=True, ids=["loop"])
def test_what_a_message_tells_of_is_known_before_packets_are_read(bench: Bench) -> None:
    way = Tunnel(local=FIRST, remote=THERE, encapsulation=CONFIG.encapsulation)
    bench.tables.unbind(NODE)
    bench.hear_first = lambda: bench.tables.bind(NODE, way, side=Side.ACCESS)
    bench.begin(FIRST)
    assert bench.passes(FIRST)


def test_an_address_may_come_while_packets_move(bench: Bench) -> None:
    bench.begin(FIRST)
    assert bench.passes(FIRST)
    bench.packets.add_local(SECOND)
    bench.packets.add_local(SECOND)
    assert bench.passes(SECOND)
    assert bench.passes(FIRST)


def test_a_router_may_begin_without_any_address(bench: Bench) -> None:
    bench.begin()
    bench.packets.add_local(FIRST)
    assert bench.passes(FIRST)


def test_an_address_that_went_can_come_again(bench: Bench) -> None:
    bench.begin(FIRST, SECOND)
    bench.packets.remove_local(SECOND)
    bench.packets.remove_local(SECOND)
    assert {local for local, _ in bench.kinds()} == {FIRST}
    assert bench.passes(FIRST)
    bench.packets.add_local(SECOND)
    assert bench.passes(SECOND)


def test_counters_and_a_capture_go_on_when_an_address_comes(bench: Bench) -> None:
    bench.begin(FIRST)
    bench.packets.open_tap(None)
    assert bench.passes(FIRST)
    bench.packets.add_local(SECOND)
    assert bench.passes(SECOND)
    assert bench.packets.counters().packets_to_tun == 2
    assert len(bench.packets.read_tap()) == 2
    assert bench.packets.close_tap() == ([], 0)


def test_an_address_of_another_machine_is_refused_and_nothing_stays_open(bench: Bench) -> None:
    bench.begin(FIRST)
    before = bench.kinds()
    with pytest.raises(AddressNotLocal):
        bench.packets.add_local(IPv6Address("2001:db8::77"))
    assert bench.kinds() == before
    assert bench.passes(FIRST)


@pytest.mark.parametrize("encapsulation", Encapsulation)
def test_over_ipv4_udp_is_always_there(encapsulation: Encapsulation) -> None:
    with Lab() as lab, ExitStack() as stack:
        bench = Bench(lab, stack, replace(CONFIG, encapsulation=encapsulation))
        bench.begin(FIRST, HERE4)
        assert {kind for local, kind in bench.kinds() if local == FIRST} == {PortKind[encapsulation.name]}
        assert (HERE4, PortKind.UDP) in bench.kinds()
