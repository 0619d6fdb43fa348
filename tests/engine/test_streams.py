"""Streams of packets, good and broken, through every underlay.

In memory the compiled path says octet for octet what the model says. Over real sockets, between two TUN devices, with
every offload on or off, what one host sends another hears.

    source   TUN om0 - engine - 2001:db8:1::1, 10.9.1.1 == 2001:db8:1::2, 10.9.1.2 - engine - TUN om0   sink
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

import engine
from engine import (
    Bundle,
    Discard,
    Drop,
    Encapsulation,
    Engine,
    FlowRule,
    Path,
    Policy,
    Port,
    Side,
    Spread,
    Steer,
    Tables,
    TrafficSelector,
    Tunnel,
    open_gre,
    open_ip,
    open_tun,
    open_udp,
)
from engine.offloads import ALL, Offloads
from engine.tunnels import TunnelState
from router.demo.lab import Host, Lab, connect
from tests.engine import flow_packets
from tests.engine.descriptors import PATIENCE, give_ipv4, usable
from tests.engine.nodes import (
    ELSEWHERE4,
    HERE,
    HERE4,
    UNDERLAYS,
    arriving,
    name_of,
    segment,
    with_checksum,
)
from tests.eventually import eventually
from tests.namespaces import why_no_lab

compiled_only = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")

# --- in memory ---

PREFIXES = [IPv6Network((int(host) >> 64 << 64, 64)) for host in flow_packets.HOSTS6]
PREFIXES += [IPv4Network((host, 32)) for host in flow_packets.HOSTS4]
TUNNELS = [
    *UNDERLAYS,
    Tunnel(local=HERE, remote=IPv6Address("2001:db8:a3::1"), encapsulation=Encapsulation.UDP),
    Tunnel(local=HERE4, remote=ELSEWHERE4, encapsulation=Encapsulation.UDP, port=40001),
    Tunnel(local=HERE, remote=IPv6Address("2001:db8:a4::1"), encapsulation=Encapsulation.GRE, sequence=True),
]


@dataclass
class Twin:
    """One of two engines that do the same."""

    engine: Engine
    bundles: list[Bundle]
    policies: list[Policy]

    @property
    def tables(self) -> Tables:
        return self.engine.tables

    def state(self) -> tuple[object, ...]:
        """All that can be seen of it."""
        rules = [(stats.rule, stats.packets, stats.octets) for stats in self.tables.flow_rules()]
        bound = [(each.prefix, each.side, each.tunnel, each.held) for each in self.tables.bindings()]
        active = [self.tables.activity(each.prefix) is None for each in self.tables.bindings()]
        return self.engine.counters(), self.tables.tunnels(), rules, bound, active


def some_rules(dice: random.Random) -> list[FlowRule]:
    return [
        FlowRule(some_selector(dice), Discard() if dice.random() < 0.1 else some_action(dice))
        for _ in range(dice.choice([1, 2, 5, 40]))
    ]


def some_selector(dice: random.Random) -> TrafficSelector | None:
    def range_of(most: int) -> tuple[int, int] | None:
        if dice.random() < 0.6:
            return None
        low, high = sorted((dice.randrange(most + 1), dice.randrange(most + 1)))
        return low, high

    if dice.random() < 0.1:
        return None
    return TrafficSelector(
        family=dice.choice([4, 6]),
        protocol=range_of(60),
        source_port=range_of(6000),
        destination_port=range_of(6000),
        traffic_class=range_of(255),
    )


def some_action(dice: random.Random) -> Steer:
    named = dice.choice(["", "labels", "bids"])
    numbers = tuple(dice.sample(range(1, 5), dice.randrange(1, 4)))
    return Steer(spread=dice.choice(list(Spread)), **({named: numbers} if named else {}))


def some_paths(dice: random.Random) -> list[Path]:
    tunnels = dice.sample(TUNNELS, dice.randrange(1, 5))
    return [
        Path(tunnel, bid=n, label=dice.randrange(1, 4), weight=dice.choice([1, 1, 3, 65535]))
        for n, tunnel in enumerate(tunnels, 1)
    ]


def edit(dice: random.Random) -> Callable[[Twin], object]:
    """A change of the tables, to be made in both."""
    prefix, tunnel, side = dice.choice(PREFIXES), dice.choice(TUNNELS), dice.choice(list(Side))
    number, paths, rules = dice.randrange(3), some_paths(dice), some_rules(dice)
    state, mtu = dice.choice(list(TunnelState)), dice.choice([None, 1000, 1280, 1400])

    def known(twin: Twin) -> Tunnel | None:
        found = [stats.tunnel for stats in twin.tables.tunnels()]
        return found[number % len(found)] if found else None

    def of_a_tunnel(what: Callable[[Tables, Tunnel], object]) -> Callable[[Twin], object]:
        return lambda twin: what(twin.tables, found) if (found := known(twin)) else None

    return dice.choice(
        [
            lambda twin: twin.tables.bind(prefix, tunnel, side=side),
            lambda twin: twin.tables.bind(prefix, twin.bundles[number], side=side),
            lambda twin: twin.tables.bind(prefix, twin.bundles[number], side=side, policy=twin.policies[number]),
            lambda twin: twin.tables.bind(prefix, twin.bundles[number], side=side, policy=twin.policies[number]),
            lambda twin: twin.tables.bind(prefix, tunnel, side=side, policy=twin.policies[number]),
            lambda twin: twin.tables.hold(prefix),
            lambda twin: twin.tables.change(twin.bundles[number], paths),
            lambda twin: twin.tables.change(twin.policies[number], rules),
            of_a_tunnel(lambda tables, found: tables.set_state(found, state)),
            of_a_tunnel(lambda tables, found: tables.set_mtu(found, mtu)),
        ]
    )


def some_packet(dice: random.Random) -> bytes:
    """Anything; most IPv4 headers have a right checksum."""
    kind = dice.random()
    if kind < 0.03:
        return dice.randbytes(dice.randrange(100))
    if kind < 0.1:
        hosts = dice.choice([flow_packets.HOSTS6, flow_packets.HOSTS4])
        options = dice.choice([b"\2\4\xff\xff", b"\1\2\4\xff\xff\1\1\1", b"\3\0\2\4\xff\xff\0\0", b""])
        return segment(*dice.sample(hosts, 2), flags=dice.choice([2, 18, 16]), options=options)
    if kind < 0.13:
        return segment(*dice.sample(flow_packets.HOSTS6, 2), payload=bytes(dice.randrange(1200, 1500)))
    octets = flow_packets.packet(dice)
    if octets[0] >> 4 == 4 and dice.random() < 0.95:
        header = max(20, 4 * (octets[0] & 15))
        octets = with_checksum(octets[:header], 10) + octets[header:]
    return octets


def damaged(dice: random.Random, octets: bytes) -> bytes:
    """Sometimes cut short, prolonged, or with one bit changed."""
    kind = dice.random()
    if kind < 0.05:
        return octets[: dice.randrange(len(octets) + 1)]
    if kind < 0.1:
        return octets + dice.randbytes(dice.randrange(1, 20))
    if kind < 0.2 and octets:
        changed = bytearray(octets)
        changed[dice.randrange(min(len(octets), 80))] ^= 1 << dice.randrange(8)
        return bytes(changed)
    return octets


def some_arrival(dice: random.Random) -> bytes:
    sequence = dice.choice([None, 0, dice.randrange(1 << 32)])
    octets = arriving(dice.choice(TUNNELS), some_packet(dice), traffic_class=dice.randrange(256), sequence=sequence)
    return damaged(dice, octets)


@compiled_only
@pytest.mark.parametrize("flow_pause", [0, 3600])  # s: not what the model's slowness would make of it
@pytest.mark.parametrize("clamp", [0, 1300])
def test_both_engines_say_the_same_of_every_packet_whatever_changes_between(
    dice: random.Random, clamp: int, flow_pause: float
) -> None:
    paths, rules = [some_paths(dice) for _ in range(3)], [some_rules(dice) for _ in range(3)]
    twins, kept = [], []
    for compiled in (True, False):
        tables = Tables(compiled=compiled, flow_pause=flow_pause)
        if flow_pause:  # flows are pinned to a tunnel while it lasts: all of them last
            kept.append(tables.bundle([Path(tunnel, bid=n) for n, tunnel in enumerate(TUNNELS, 1)]))
        bundles, policies = [tables.bundle(each) for each in paths], [tables.policy(each) for each in rules]
        twins.append(Twin(Engine(tables, clamp_mss=clamp), bundles, policies))
    passed = 0
    for _ in range(40):
        for change in [edit(dice) for _ in range(dice.choice([1, 1, 2, 20]))]:
            for twin in twins:
                change(twin)
        out = [some_packet(dice) for _ in range(dice.choice([1, 50, 300]))]
        arrivals = [some_arrival(dice) for _ in range(dice.choice([1, 50, 300]))]
        one, other = ((each.engine.encapsulate(out), each.engine.decapsulate(arrivals)) for each in twins)
        assert one == other
        assert twins[0].state() == twins[1].state()
        passed += sum(not isinstance(answer, Drop) for answers in one for answer in answers)
    assert passed > 100, "if nothing passes, nothing was compared"


@compiled_only
@pytest.mark.parametrize("tunnel", UNDERLAYS, ids=name_of)
def test_both_engines_make_the_same_stream_and_take_it_apart_alike(dice: random.Random, tunnel: Tunnel) -> None:
    near = [Engine(Tables(compiled=compiled)) for compiled in (True, False)]
    far = [Engine(Tables(compiled=compiled)) for compiled in (True, False)]
    back = replace(tunnel, local=tunnel.remote, remote=tunnel.local, key_in=tunnel.key_out, key_out=tunnel.key_in)
    for prefix in PREFIXES:
        for each in near:
            each.tables.bind(prefix, tunnel, side=Side.ANCHOR)
        for each in far:
            each.tables.bind(prefix, back, side=Side.ACCESS)
    packets = [some_packet(dice) for _ in range(1000)]
    streams = [each.encapsulate(packets) for each in near]
    assert streams[0] == streams[1]
    wire = [damaged(dice, copy) for copies in streams[0] if not isinstance(copies, Drop) for copy in copies]
    answers = [each.decapsulate(wire) for each in far]
    assert answers[0] == answers[1]
    for pair in (near, far):
        assert pair[0].counters() == pair[1].counters()
    assert sum(not isinstance(answer, Drop) for answer in answers[0]) > 500


# --- over sockets, from kernel to kernel ---

MTU = 1400  # of the TUN: every underlay carries it whole
SOURCE, SINK = 7, 8  # hosts of the prefixes below
INSIDE6, INSIDE4 = IPv6Network("2001:db8:7::/64"), IPv4Network("172.16.0.0/16")
UDP_SEGMENT, SOL_UDP, SO_RCVBUFFORCE, ETH_P_ALL = 103, 17, 33, 3
AT_FAULT = (Drop.BAD_OFFLOAD, Drop.UNDERLAY_ERROR, Drop.UNDERLAY_FULL, Drop.TUN_ERROR, Drop.TUN_FULL, Drop.NO_PORT)


def real(tunnel: Tunnel) -> Tunnel:
    """The same kind of tunnel between the hosts of the drawing."""
    six = tunnel.local.version == 6
    ends = (IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:1::2"))
    ends4 = (IPv4Address("10.9.1.1"), IPv4Address("10.9.1.2"))
    local, remote = ends if six else ends4
    return replace(tunnel, local=local, remote=remote)


def turned(tunnel: Tunnel) -> Tunnel:
    return replace(tunnel, local=tunnel.remote, remote=tunnel.local, key_in=tunnel.key_out, key_out=tunnel.key_in)


@pytest.fixture(scope="module")
def cable() -> Iterator[tuple[Host, Host]]:
    with Lab() as lab:
        near, far = lab.host("near"), lab.host("far")
        connect(near, "eth0", far, "eth0")
        for number, host in enumerate((near, far), 1):
            host.address("eth0", f"2001:db8:1::{number}/64")
            give_ipv4(host, "eth0", f"10.9.1.{number}/24")
        yield near, far


@dataclass
class End:
    """One side: a host, its engine in a thread, a TUN whose other side is the kernel's."""

    host: Host
    engine: Engine
    number: int

    def address(self, version: int) -> str:
        return str((INSIDE6 if version == 6 else INSIDE4)[self.number])

    def socket(self, version: int, style: int, protocol: int = 0) -> socket.socket:
        """A socket on this host, of that version of IP."""
        with self.host.inside():
            sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, style, protocol)
        sock.settimeout(PATIENCE)
        return sock

    def listener(self, version: int, style: int) -> socket.socket:
        sock = self.socket(version, style)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        sock.bind((self.address(version), 0))
        return sock

    def tap(self) -> socket.socket:
        """What crosses the TUN, either way; of packets of the kernel's own making the test knows nothing."""
        with self.host.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
            sock.bind(("om0", ETH_P_ALL))
        sock.settimeout(PATIENCE)
        return sock


@contextmanager
def running(host: Host, number: int, tunnel: Tunnel, offloads: Offloads, *, compiled: bool) -> Iterator[End]:
    with ExitStack() as stack, host.inside():
        made = Engine(Tables(compiled=compiled))
        for version in (INSIDE6, INSIDE4):
            made.tables.bind(type(version)(version[SOURCE + SINK - number]), tunnel, side=Side.ANCHOR)
        tun = open_tun("om0", mtu=MTU, offloads=offloads)
        for port in (tun, *underlay(tunnel, offloads)):
            stack.callback(port.close)
            made.add_port(port)
        host.netlink.set_mtu(host.link("om0").index, MTU)
        host.link_up("om0")
        host.address("om0", f"{INSIDE6[number]}/64")
        give_ipv4(host, "om0", f"{INSIDE4[number]}/16")
        eventually(lambda: usable(INSIDE6[number]), PATIENCE)
        wake_reader, wake_writer = socket.socketpair()
        ended: list[object] = []
        thread = threading.Thread(target=lambda: ended.append(made.run(wake_reader.fileno())))
        thread.start()
        try:
            yield End(host, made, number)
        finally:
            wake_writer.send(b"\0")
            thread.join()
            wake_reader.close()
            wake_writer.close()
            assert ended == [None], "it ended before it was told to"


def underlay(tunnel: Tunnel, offloads: Offloads) -> tuple[Port, ...]:
    if tunnel.encapsulation is Encapsulation.UDP:
        return (open_udp(tunnel.local, offloads=offloads),)
    return open_ip(tunnel.local) if tunnel.encapsulation is Encapsulation.IP else (open_gre(tunnel.local),)


def cases() -> Iterator[object]:
    """Every underlay with all offloads, each refused that it could use, and none; on the model with none."""
    none = Offloads(**{field.name: False for field in fields(Offloads)})
    for tunnel in UNDERLAYS:
        names = [field.name for field in fields(Offloads)]
        if tunnel.encapsulation is not Encapsulation.UDP:
            names = ["tso", "uso", "checksum"]
        sets = {"all": ALL, **{f"no {name}": Offloads(**{name: False}) for name in names}, "none": none}
        for name, offloads in sets.items():
            if engine.compiled:
                yield pytest.param(tunnel, offloads, True, id=f"{name_of(tunnel)}, {name}")
        yield pytest.param(tunnel, none, False, id=f"{name_of(tunnel)}, model")


@pytest.fixture
def ends(cable: tuple[Host, Host], request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    tunnel, offloads, compiled = request.param
    tunnel = real(tunnel)
    near, far = cable
    with (
        running(near, SOURCE, tunnel, offloads, compiled=compiled) as source,
        running(far, SINK, turned(tunnel), offloads, compiled=compiled) as sink,
    ):
        yield source, sink
    for end in (source, sink):
        counters = end.engine.counters()
        drops = counters.drops
        assert counters.packets_to_tun > 300
        assert {reason: drops[reason] for reason in AT_FAULT} == dict.fromkeys(AT_FAULT, 0)


each_case = pytest.mark.parametrize(
    "ends",
    [pytest.param(case.values, id=case.id) for case in cases()],
    indirect=True,  # type: ignore[attr-defined]
)


@pytest.mark.namespaces
@pytest.mark.skipif(why_no_lab() is not None, reason=str(why_no_lab()))
@each_case
def test_what_one_kernel_sends_the_other_hears(ends: tuple[End, End], dice: random.Random) -> None:
    source, sink = ends
    for version in (6, 4):
        check_datagrams(source, sink, version, dice)
        check_transfer(source, sink, version, dice)
    check_packets(source, sink, dice)


def check_datagrams(source: End, sink: End, version: int, dice: random.Random) -> None:
    """Single ones of any size, and many of one size in one call."""
    with sink.listener(version, socket.SOCK_DGRAM) as hears, source.socket(version, socket.SOCK_DGRAM) as speaks:
        speaks.connect(hears.getsockname()[:2])
        expected = []
        for _ in range(6):
            for size in (dice.randrange(1, 1340), 0, 1):
                expected.append(dice.randbytes(size))
                speaks.send(expected[-1])
            size, count = dice.randrange(100, 1330), dice.randrange(2, 40)
            whole = dice.randbytes(size * count + dice.randrange(size))
            speaks.sendmsg([whole], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))])
            expected += [whole[at : at + size] for at in range(0, len(whole), size)]
        assert [hears.recv(2000) for _ in expected] == expected


def check_transfer(source: End, sink: End, version: int, dice: random.Random) -> None:
    """A connection, there and back."""
    whole = dice.randbytes(300_000)
    heard = []
    with sink.listener(version, socket.SOCK_STREAM) as listener, source.socket(version, socket.SOCK_STREAM) as near:
        listener.listen()
        near.connect(listener.getsockname()[:2])
        far, _ = listener.accept()

        def echo() -> None:
            with far:
                heard.append(everything(far))
                far.sendall(heard[0])

        thread = threading.Thread(target=echo)
        thread.start()
        near.sendall(whole)
        near.shutdown(socket.SHUT_WR)
        back = everything(near)
        thread.join()
    assert heard == [whole]
    assert back == whole


def everything(sock: socket.socket) -> bytes:
    sock.settimeout(PATIENCE)
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def check_packets(source: End, sink: End, dice: random.Random) -> None:
    """Packets of no known protocol, with extension headers, whole and in fragments: what comes out is what went in."""
    with (
        source.socket(6, socket.SOCK_RAW, socket.IPPROTO_RAW) as six,
        source.socket(4, socket.SOCK_RAW, socket.IPPROTO_RAW) as four,
        sink.tap() as hears,
    ):
        sent = [strange(source, sink, dice) for _ in range(100)]
        for octets in sent:
            sock, version = (six, 6) if octets[0] >> 4 == 6 else (four, 4)
            sock.sendto(octets, (sink.address(version), 0))
        heard: list[bytes] = []
        while len(heard) < len(sent):
            octets = hears.recv(70000)
            if octets in sent:
                heard.append(octets)
        for version in (6, 4):  # raw sockets have one of their own for each
            assert [x for x in heard if x[0] >> 4 == version] == [x for x in sent if x[0] >> 4 == version]


def strange(source: End, sink: End, dice: random.Random) -> bytes:
    payload = dice.randbytes(16) + bytes(dice.choice([0, 1, 30, 1100, 1240, 1300]))
    if dice.random() < 0.5:
        ends4 = IPv4Address(source.address(4)), IPv4Address(sink.address(4))
        octets = flow_packets.ip4(
            *ends4, 253, payload, identification=1 + dice.randrange(9), field=dice.choice([0, 0xB8, 0xBA])
        )
        return with_checksum(octets[:20], 10) + octets[20:]
    number, body = flow_packets.chain(dice, 253, payload)
    if len(body) > 1300:
        number, body = 253, payload
    ends6 = IPv6Address(source.address(6)), IPv6Address(sink.address(6))
    return flow_packets.ip6(*ends6, number, body, word=dice.choice([0, 0xB8 << 20, 0xBA << 20]))
