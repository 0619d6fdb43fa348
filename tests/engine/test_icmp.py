"""Senders are told what cannot go through a tunnel, and only what they must be told.

near  2001:db8:1::1, 10.9.1.1      middle      2001:db8:2::2, 10.9.2.2  far
      the engine                   MTU 1300    its peer
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from engine import (
    Drop,
    Encapsulation,
    Engine,
    Path,
    Port,
    PortKind,
    Side,
    Tables,
    Tunnel,
    open_gre,
    open_ip,
    open_udp,
)
from engine.offloads import NONE
from router.demo.lab import Host, Lab, connect
from tests.engine.descriptors import drained, give_ipv4, route_ipv4, serve_until, settle
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    CORRESPONDENT,
    CORRESPONDENT4,
    DONT_FRAGMENT,
    ELSEWHERE4,
    HERE,
    HERE4,
    ICMP,
    ICMP6,
    TUNNEL,
    AnyAddress,
    datagram,
    fill,
    leaving,
    packet,
    pseudo_header,
    unlabelled,
    with_checksum,
)
from tests.namespaces import why_no_lab

TUNNEL4 = Tunnel(local=HERE4, remote=ELSEWHERE4, encapsulation=Encapsulation.IP)
NAMELESS = IPv4Address("192.0.0.8")  # says a router without an IPv4 address, RFC 7600 4.8
OVERHEAD = {Encapsulation.UDP: 8, Encapsulation.IP: 0, Encapsulation.GRE: 4}


def sized(octets: int, *, fragment: int = 0, version: int = 6) -> bytes:
    """A packet toward the node that is away, of so many octets."""
    if version == 6:
        return packet(CORRESPONDENT, ANCHORED[5], payload=bytes(octets - 40))
    return packet(CORRESPONDENT4, ANCHORED4[5], payload=bytes(octets - 20), fragment=fragment)


def error6(kind: int, code: int, value: int, quoted: bytes, source: IPv6Address = HERE) -> bytes:
    """An ICMPv6 error to the sender of what it quotes: as much as fits into 1280 octets (RFC 4443 2.4 c)."""
    to = IPv6Address(quoted[8:24])
    body = struct.pack("!BBHI", kind, code, 0, value) + quoted[: 1280 - 48]
    body = with_checksum(body, 2, pseudo_header(source, to, ICMP6, len(body)))
    return packet(source, to, payload=body, protocol=ICMP6, hop_limit=64)


def error4(code: int, mtu: int, quoted: bytes, source: IPv4Address = HERE4) -> bytes:
    """Destination unreachable: no more than 576 octets (RFC 1812 4.3.2.3), precedence of network control."""
    body = with_checksum(struct.pack("!BBHHH", 3, code, 0, 0, mtu) + quoted[: 576 - 28], 2)
    to = IPv4Address(quoted[12:16])
    return packet(source, to, payload=body, protocol=ICMP, hop_limit=64, traffic_class=0xC0)


@pytest.fixture
def kernel(any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    """The far end of the engine's TUN; there is no underlay: what is let in dies of NO_PORT."""
    ours, far = tun_pair
    any_engine.add_port(Port(fd=ours.fileno(), kind=PortKind.TUN))
    return far


def told(engine: Engine, kernel: socket.socket, *packets: bytes) -> list[bytes]:
    """What the kernel hears about these packets."""
    for octets in packets:
        kernel.send(octets)
    settle(engine)
    return drained(kernel)


# --- tunnels of which the MTU is known ---


@pytest.mark.parametrize("tunnel", [TUNNEL, TUNNEL4], ids=["over IPv6", "over IPv4"])
@pytest.mark.parametrize(
    ("mtu", "size", "says"),
    [(1400, 1400, None), (1400, 1401, 1400), (1280, 1281, 1280), (1232, 1280, None), (1232, 1281, 1280)],
)
def test_ipv6_too_big_for_a_tunnel_is_answered_and_1280_octets_always_pass(
    any_engine: Engine, kernel: socket.socket, tunnel: Tunnel, mtu: int, size: int, says: int | None
) -> None:
    fill(any_engine.tables, tunnel)
    any_engine.tables.set_mtu(tunnel, mtu)
    source = HERE if tunnel.local.version == 6 else ANCHORED[5]
    expected = [] if says is None else [error6(2, 0, says, sized(size), source)]
    assert told(any_engine, kernel, sized(size)) == expected
    counters = any_engine.counters()
    assert counters.errors == len(expected)
    assert counters.drops[Drop.TOO_BIG if expected else Drop.NO_PORT] == 1


@pytest.mark.parametrize(("tunnel", "source"), [(TUNNEL, NAMELESS), (TUNNEL4, HERE4)], ids=["over IPv6", "over IPv4"])
@pytest.mark.parametrize(
    ("mtu", "size", "fragment", "says"),
    [
        (1400, 1400, DONT_FRAGMENT, None),
        (1400, 1401, DONT_FRAGMENT, 1400),
        (1400, 1401, 0, None),
        (1000, 1001, DONT_FRAGMENT, 1000),
        (1000, 60000, 0, None),
    ],
)
def test_ipv4_too_big_for_a_tunnel_is_answered_if_it_may_not_be_fragmented(
    any_engine: Engine,
    kernel: socket.socket,
    tunnel: Tunnel,
    source: IPv4Address,
    mtu: int,
    size: int,
    fragment: int,
    says: int | None,
) -> None:
    fill(any_engine.tables, tunnel)
    any_engine.tables.set_mtu(tunnel, mtu)
    octets = sized(size, fragment=fragment, version=4)
    expected = [] if says is None else [error4(4, says, octets, source)]
    assert told(any_engine, kernel, octets) == expected
    assert any_engine.counters().drops[Drop.TOO_BIG if expected else Drop.NO_PORT] == 1


def test_without_a_known_mtu_every_packet_may_try(any_engine: Engine, kernel: socket.socket) -> None:
    assert told(any_engine, kernel, sized(9000), sized(9000, version=4, fragment=DONT_FRAGMENT)) == []
    assert any_engine.tables.mtu(TUNNEL) is None
    any_engine.tables.set_mtu(TUNNEL, 1300)
    assert len(told(any_engine, kernel, sized(9000))) == 1
    any_engine.tables.set_mtu(TUNNEL, None)
    assert told(any_engine, kernel, sized(9000)) == []


def test_in_memory_the_same_packets_are_refused(any_engine: Engine) -> None:
    any_engine.tables.set_mtu(TUNNEL, 1300)
    assert any_engine.encapsulate([sized(1301), sized(1301, version=4, fragment=DONT_FRAGMENT)]) == [Drop.TOO_BIG] * 2
    [[six], [four]] = any_engine.encapsulate([sized(1300), sized(1301, version=4)])
    assert unlabelled(six) == leaving(TUNNEL, sized(1300))
    assert unlabelled(four) == leaving(TUNNEL, sized(1301, version=4))


def message(version: int, kind: int) -> bytes:
    """An ICMP message too large for most tunnels."""
    body = bytes([kind, 0, 0, 0]) + bytes(1400)
    if version == 6:
        return packet(CORRESPONDENT, ANCHORED[5], payload=body, protocol=ICMP6)
    return packet(CORRESPONDENT4, ANCHORED4[5], payload=body, protocol=ICMP, fragment=DONT_FRAGMENT)


@pytest.mark.parametrize(
    ("version", "kind", "answered"),
    [
        *((6, kind, kind >= 128) for kind in (1, 2, 3, 4, 127, 128, 129, 135)),
        *((4, kind, kind in (0, 8, 13, 17)) for kind in (0, 3, 4, 5, 8, 11, 12, 13, 17, 40)),
    ],
)
def test_an_error_is_never_answered_with_an_error(
    any_engine: Engine, kernel: socket.socket, version: int, kind: int, answered: bool
) -> None:
    any_engine.tables.set_mtu(TUNNEL, 1300)
    assert len(told(any_engine, kernel, message(version, kind))) == answered
    assert any_engine.counters().drops[Drop.TOO_BIG] == 1


def test_a_later_fragment_is_not_answered(any_engine: Engine, kernel: socket.socket) -> None:
    any_engine.tables.set_mtu(TUNNEL, 1300)
    assert told(any_engine, kernel, sized(1400, version=4, fragment=DONT_FRAGMENT | 100)) == []
    assert len(told(any_engine, kernel, sized(1400, version=4, fragment=DONT_FRAGMENT | 0x2000))) == 1


def test_a_packet_to_a_group_is_told_its_size_in_ipv6_only(any_engine: Engine, kernel: socket.socket) -> None:
    any_engine.tables.set_mtu(TUNNEL, 1300)
    six = packet(IPv6Address("2001:db8:a2:200::7"), IPv6Address("ff0e::1"), payload=bytes(1400))
    four = packet(IPv4Address("10.2.0.7"), IPv4Address("239.1.1.1"), payload=bytes(1400), fragment=DONT_FRAGMENT)
    assert told(any_engine, kernel, six, four) == [error6(2, 0, 1300, six)]  # RFC 4443 2.4 e.3, RFC 1812 4.3.2.7


def test_errors_are_rationed(any_engine: Engine, kernel: socket.socket) -> None:
    any_engine.tables.set_mtu(TUNNEL, 1300)
    heard = 0
    for _ in range(10):
        heard += len(told(any_engine, kernel, *[sized(1301)] * 60))
    counters = any_engine.counters()
    assert counters.drops[Drop.TOO_BIG] == 600
    assert 100 <= heard == counters.errors < 600


def test_an_error_that_the_tun_does_not_take_is_not_counted(any_engine: Engine, kernel: socket.socket) -> None:
    any_engine.tables.set_mtu(TUNNEL, 1300)
    kernel.send(sized(1400))
    kernel.shutdown(socket.SHUT_RD)
    any_engine.turn()
    assert any_engine.counters().errors == 0


def test_a_copy_that_is_too_big_for_one_path_takes_the_other(any_engine: Engine) -> None:
    from engine import FlowRule, Spread, Steer

    tables = any_engine.tables
    second = Tunnel(local=HERE, remote=IPv6Address("2001:db8:a3::1"), encapsulation=Encapsulation.UDP)
    both = tables.bundle([Path(TUNNEL, bid=1), Path(second, bid=2)])
    policy = tables.policy([FlowRule(None, Steer(spread=Spread.BICAST))])
    tables.bind(ANCHORED, both, side=Side.ANCHOR, policy=policy)
    tables.set_mtu(second, 1300)
    [[one]] = any_engine.encapsulate([sized(1301)])
    assert unlabelled(one) == leaving(TUNNEL, sized(1301))
    tables.set_mtu(TUNNEL, 1300)
    assert any_engine.encapsulate([sized(1301)]) == [Drop.TOO_BIG]
    assert [stats.packets_out for stats in tables.tunnels()] == [1, 0]


# --- what the underlay says: real sockets ---

needs_lab = pytest.mark.skipif(why_no_lab() is not None, reason=str(why_no_lab()))


@pytest.fixture
def small_path() -> Iterator[Host]:
    """The near host, with this thread on it; the far one is behind a link of 1300 octets."""
    with Lab() as lab:
        near, middle, far = lab.host("near"), lab.host("middle"), lab.host("far")
        connect(near, "eth0", middle, "near")
        connect(middle, "far", far, "eth0", mtu=1300)
        middle.sysctl("net/ipv6/conf/all/forwarding", 1)
        middle.sysctl("net/ipv4/ip_forward", 1)
        near.address("eth0", "2001:db8:1::1/64")
        middle.address("near", "2001:db8:1::2/64")
        middle.address("far", "2001:db8:2::1/64")
        far.address("eth0", "2001:db8:2::2/64")
        near.route("2001:db8:2::/64", via="2001:db8:1::2")
        give_ipv4(near, "eth0", "10.9.1.1/24")
        give_ipv4(middle, "near", "10.9.1.2/24")
        give_ipv4(middle, "far", "10.9.2.1/24")
        give_ipv4(far, "eth0", "10.9.2.2/24")
        route_ipv4(near, "10.9.2.0/24", via="10.9.1.2")
        with near.inside():
            yield near


def ports_for(tunnel: Tunnel) -> list[Port]:
    if tunnel.encapsulation is Encapsulation.UDP:
        return [open_udp(tunnel.local, offloads=NONE)]
    return list(open_ip(tunnel.local)) if tunnel.encapsulation is Encapsulation.IP else [open_gre(tunnel.local)]


@pytest.mark.namespaces
@needs_lab
@pytest.mark.parametrize("encapsulation", Encapsulation)
@pytest.mark.parametrize(
    ("local", "remote"),
    [
        (IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:2::2")),
        (IPv4Address("10.9.1.1"), IPv4Address("10.9.2.2")),
    ],
    ids=["over IPv6", "over IPv4"],
)
def test_a_router_on_the_way_teaches_the_tunnel_its_mtu_and_the_senders_hear_of_it(
    any_engine: Engine,
    kernel: socket.socket,
    small_path: Host,
    encapsulation: Encapsulation,
    local: AnyAddress,
    remote: AnyAddress,
) -> None:
    tunnel = Tunnel(local=local, remote=remote, encapsulation=encapsulation)
    fill(any_engine.tables, tunnel)
    ports = ports_for(tunnel)
    for port in ports:
        any_engine.add_port(port)
    mtu = 1300 - (40 if local.version == 6 else 20) - OVERHEAD[encapsulation]
    source6 = local if local.version == 6 else ANCHORED[5]
    source4 = local if local.version == 4 else NAMELESS
    whole4 = sized(1400, version=4, fragment=DONT_FRAGMENT)

    kernel.send(sized(1400))
    serve_until(lambda: any_engine.tables.mtu(tunnel) is not None, any_engine)
    assert any_engine.tables.mtu(tunnel) == mtu
    drained(kernel)
    six, four = told(any_engine, kernel, sized(1400), whole4)
    assert six == error6(2, 0, max(mtu, 1280), sized(1400), source6)
    assert four == error4(4, mtu, whole4, source4)
    before = any_engine.counters().packets_to_underlay
    assert told(any_engine, kernel, sized(1280), sized(1400, version=4), sized(mtu)) == []
    assert any_engine.counters().packets_to_underlay == before + 3
    for port in ports:
        any_engine.remove_port(port)
        port.close()


@pytest.mark.namespaces
@needs_lab
def test_the_sender_of_the_first_packet_is_told_by_what_the_error_quotes(
    any_engine: Engine, kernel: socket.socket, small_path: Host
) -> None:
    local = IPv6Address("2001:db8:1::1")
    tunnel = Tunnel(local=local, remote=IPv6Address("2001:db8:2::2"), encapsulation=Encapsulation.UDP)
    fill(any_engine.tables, tunnel)
    [port] = ports_for(tunnel)
    any_engine.add_port(port)
    kernel.send(sized(1400))
    serve_until(lambda: any_engine.counters().errors == 1, any_engine)
    [error] = drained(kernel)
    quoted = error[48:]
    assert sized(1400).startswith(quoted)
    assert error == error6(2, 0, 1280, quoted, local)
    any_engine.remove_port(port)
    port.close()


@pytest.mark.parametrize("loopback", [IPv6Address("::1"), IPv4Address("127.0.0.1")], ids=["over IPv6", "over IPv4"])
@pytest.mark.parametrize("inner", [6, 4])
def test_a_tunnel_whose_end_is_gone_is_unreachable_for_senders(
    compiled: bool, tun_pair: tuple[socket.socket, socket.socket], loopback: AnyAddress, inner: int
) -> None:
    ours, kernel = tun_pair
    here = HERE if loopback.version == 6 else HERE4
    gone = Tunnel(local=here, remote=loopback, encapsulation=Encapsulation.UDP, port=7)  # nobody listens there
    engine = Engine(Tables(compiled=compiled))
    fill(engine.tables, gone)
    opened = open_udp(loopback, offloads=NONE)
    tun, udp = Port(fd=ours.fileno(), kind=PortKind.TUN), Port(fd=opened.fd, kind=PortKind.UDP, local=here)
    engine.add_port(tun)
    engine.add_port(udp)
    octets = (
        datagram(CORRESPONDENT, ANCHORED[5], (1, 2), b"hello")
        if inner == 6
        else datagram(CORRESPONDENT4, ANCHORED4[5], (1, 2), b"hello")
    )
    kernel.send(octets)
    serve_until(lambda: engine.counters().errors == 1, engine)
    [error] = drained(kernel)
    if inner == 6:
        assert error == error6(1, 3, 0, octets, HERE if loopback.version == 6 else ANCHORED[5])
    else:
        assert error == error4(1, 0, octets, HERE4 if loopback.version == 4 else NAMELESS)
    engine.remove_port(udp)
    opened.close()


def test_an_error_about_a_tunnel_that_nobody_has_is_not_believed(
    compiled: bool, tun_pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, kernel = tun_pair
    gone = Tunnel(local=HERE, remote=IPv6Address("::1"), encapsulation=Encapsulation.UDP, port=7)
    engine = Engine(Tables(compiled=compiled))
    engine.tables.bind(ANCHORED, gone, side=Side.ANCHOR)
    opened = open_udp(IPv6Address("::1"), offloads=NONE)
    engine.add_port(Port(fd=ours.fileno(), kind=PortKind.TUN))
    engine.add_port(Port(fd=opened.fd, kind=PortKind.UDP, local=HERE))
    garbage = [b"", b"\0", b"\x60" * 39, sized(100)[:39], sized(100)[:8] + bytes(32), b"\x4f" * 20, bytes(60)]
    with socket.socket(fileno=os.dup(opened.fd)) as sock:  # the tunnels' own port
        for octets in garbage:
            sock.sendto(octets, ("::1", 7))
            settle(engine)
        engine.tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
        sock.sendto(sized(100), ("::1", 7))
        settle(engine)
        assert drained(kernel) == []
        engine.tables.bind(ANCHORED, gone, side=Side.ANCHOR)
        sock.sendto(sized(100), ("::1", 7))
        serve_until(lambda: engine.counters().errors == 1, engine)
    opened.close()
