"""Ports are opened ready for use, or the error says what to do."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from engine import (
    AddressInUse,
    AddressNotLocal,
    DeviceMissing,
    Engine,
    Misused,
    NameInUse,
    NoRights,
    PortError,
    PortKind,
    Tables,
    offloads,
    open_gre,
    open_ip,
    open_tun,
    open_udp,
    ports,
)
from engine.offloads import ALL, NONE, Offloads

LOOPBACK, LOOPBACK4 = IPv6Address("::1"), IPv4Address("127.0.0.1")
NOBODY, NOBODY4 = IPv6Address("2001:db8::dead"), IPv4Address("192.0.2.1")
NO_TUN = Offloads(tso=False, uso=False, checksum=False)


def opened(opening: Callable[[], ports.Port | tuple[ports.Port, ...]]) -> tuple[ports.Port, ...] | PortError:
    """The ports, or what this machine lacks for them."""
    try:
        made = opening()
        return made if isinstance(made, tuple) else (made,)
    except (DeviceMissing, NoRights) as error:
        return error


def check_ready(port: ports.Port) -> None:
    assert not os.get_blocking(port.fd)
    assert fcntl.fcntl(port.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def option(port: ports.Port, level: int, number: int) -> int:
    with socket.socket(fileno=os.dup(port.fd)) as sock:
        return sock.getsockopt(level, number)


@pytest.mark.parametrize("local", [LOOPBACK, LOOPBACK4])
def test_a_udp_port_is_ready_and_alone(local: ports.AnyAddress) -> None:
    try:
        port = open_udp(local)
    except AddressInUse:
        pytest.skip("someone else has the port")
    try:
        check_ready(port)
        assert (port.kind, port.local, port.fileno()) == (PortKind.UDP, local, port.fd)
        assert port.offloads & NO_TUN == port.offloads
        if local.version == 6:
            assert option(port, socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) == 1
            assert option(port, socket.IPPROTO_IPV6, ports.IPV6_MTU_DISCOVER) == ports.IPV6_PMTUDISC_DO
        else:
            assert option(port, socket.IPPROTO_IP, ports.IP_RECVTOS) == 1
            assert option(port, socket.IPPROTO_IP, ports.IP_MTU_DISCOVER) == ports.IP_PMTUDISC_DO
        with pytest.raises(AddressInUse, match="another router"):
            open_udp(local)
        with pytest.raises(AddressInUse, match="another router"):
            open_udp(local, reuse_port=True)
    finally:
        port.close()


def test_workers_share_an_address_when_all_say_so() -> None:
    try:
        port = open_udp(LOOPBACK, reuse_port=True)
    except AddressInUse:
        pytest.skip("someone else has the port")
    try:
        open_udp(LOOPBACK, reuse_port=True).close()
    finally:
        port.close()


@pytest.mark.parametrize("nobody", [NOBODY, NOBODY4])
def test_an_address_of_someone_else_is_refused(nobody: ports.AnyAddress) -> None:
    with pytest.raises(AddressNotLocal, match=str(nobody)):
        open_udp(nobody)


@pytest.mark.parametrize("receives", [True, False])
@pytest.mark.parametrize("opening", [open_ip, open_gre])
@pytest.mark.parametrize("local", [LOOPBACK, LOOPBACK4])
def test_a_raw_port_is_ready_or_asks_for_the_right(
    local: ports.AnyAddress, opening: Callable[..., ports.Port | tuple[ports.Port, ...]], receives: bool
) -> None:
    answer = opened(lambda: opening(local, receives=receives))
    if isinstance(answer, PortError):
        assert "CAP_NET_RAW" in answer.cure
        return
    for port in answer:
        check_ready(port)
        assert (port.family, bool(port.flags & ports.SEND_ONLY)) == (local.version, not receives)
        port.close()
    assert [port.inner for port in answer] == ([6, 4] if opening is open_ip else [0])


def test_when_one_raw_port_fails_the_other_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def open_raw(kind: PortKind, *_: object, inner: int, **__: object) -> ports.Port:
        if inner == 4:
            raise PortError("no more")
        owner = socket.socket()
        monkeypatch.setattr(ports.Port, "close", lambda port: closed.append(port.fd))
        return ports.Port(fd=owner.fileno(), kind=kind, owner=owner)

    monkeypatch.setattr(ports, "_open_raw", open_raw)
    with pytest.raises(PortError, match="no more"):
        open_ip(LOOPBACK)
    assert len(closed) == 1


@pytest.mark.parametrize("with_pytun", [True, False])
def test_a_tun_is_ready_or_the_error_has_a_cure(monkeypatch: pytest.MonkeyPatch, with_pytun: bool) -> None:
    if not with_pytun:
        monkeypatch.setattr(ports, "pytun", None)
    answer = opened(lambda: open_tun("omtest%d", mtu=1400))
    if isinstance(answer, PortError):
        assert answer.cure
        return
    [port] = answer
    try:
        check_ready(port)
        assert port.name.startswith("omtest")
        assert (port.kind, port.mtu, port.packed) == (PortKind.TUN, 1400, bytes(16))
    finally:
        port.close()


def test_a_loop_that_watches_an_engine_hears_packets_after_an_error() -> None:
    uvloop = pytest.importorskip("uvloop")
    try:
        port = open_udp(LOOPBACK4)
    except AddressInUse:
        pytest.skip("someone else has the port")
    heard: list[bytes] = []

    async def listen() -> None:
        done = asyncio.Event()

        def read() -> None:
            with suppress(BlockingIOError):
                sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)
                heard.append(b"error")
                sock.sendto(b"packet", ("127.0.0.1", ports.UDP_PORT))
            with suppress(BlockingIOError):
                heard.append(sock.recv(100))
                done.set()

        engine = Engine(Tables())
        engine.add_port(port)
        asyncio.get_running_loop().add_reader(engine.fileno(), read)
        sock.sendto(b"nobody", ("127.0.0.1", 7))
        await asyncio.wait_for(done.wait(), 5.0)
        asyncio.get_running_loop().remove_reader(engine.fileno())
        engine.remove_port(port)

    with closing(port), socket.socket(fileno=os.dup(port.fd)) as sock:
        uvloop.run(listen())
    assert heard == [b"error", b"packet"]


# Offloads


@pytest.mark.parametrize(
    ("refused", "lost"),
    [
        (frozenset(), frozenset()),
        ({"uso"}, {"uso"}),
        ({"tso"}, {"tso"}),
        ({"checksum"}, {"checksum", "tso", "uso"}),
        ({"checksum", "tso", "uso"}, {"checksum", "tso", "uso"}),
    ],
)
def test_what_is_refused_is_not_used(refused: set[str], lost: set[str]) -> None:
    everything = offloads.probe()
    answer = opened(lambda: open_tun("omtest%d", mtu=1400, offloads=Offloads(**dict.fromkeys(refused, False))))
    if isinstance(answer, PortError):
        pytest.skip(str(answer))
    [port] = answer
    with closing(port):
        wanted = {name for name in ("checksum", "tso", "uso") if getattr(everything, name)} - lost
        assert {name for name in Offloads.__slots__ if getattr(port.offloads, name)} == wanted
        assert port.virtio == (len(refused) < 3)
        assert bool(port.flags & ports.VNET) == port.virtio


def test_a_kernel_without_uso_gives_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloads, "_set_tun", lambda fd, flags: not flags & offloads.USO)
    assert offloads.switch_on_tun(0, ALL) == Offloads(uso=False, udp_segment=False, udp_gro=False)


def test_a_kernel_without_any_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloads, "_set_tun", lambda fd, flags: False)
    monkeypatch.setattr(offloads, "_set_udp", lambda sock, option, value: False)
    assert offloads.switch_on_tun(0, ALL) == offloads.switch_on_udp(socket.socket(), ALL) == NONE
    assert not NONE


def test_each_offload_has_a_number_of_its_own() -> None:
    alone = [Offloads(**{**dict.fromkeys(Offloads.__slots__, False), name: True}) for name in Offloads.__slots__]
    assert sorted(one.flags for one in alone) == [2, 4, 8, 16, 32]
    assert (ALL.flags, NONE.flags) == (62, 0)


@pytest.mark.parametrize("mtu", [1279, 65536])
def test_an_mtu_ipv6_cannot_use_is_refused(mtu: int) -> None:
    with pytest.raises(PortError, match="MTU"):
        open_tun("omtest%d", mtu=mtu)


@pytest.mark.parametrize("with_pytun", [True, False])
@pytest.mark.parametrize("name", ["a" * 16, "\u00e9" * 8, "a\0b"])
def test_a_name_no_device_can_have_is_refused(monkeypatch: pytest.MonkeyPatch, with_pytun: bool, name: str) -> None:
    if not with_pytun:
        monkeypatch.setattr(ports, "pytun", None)
    with pytest.raises(PortError, match="15 octets at most"):
        open_tun(name, mtu=1400)


@pytest.mark.parametrize("opening", [open_udp, open_ip, open_gre])
def test_a_local_end_is_an_address(opening: Callable[..., object]) -> None:
    with pytest.raises(Misused, match=r"'::1'.*str; give IPv6Address or IPv4Address"):
        opening("::1")


@pytest.mark.parametrize(("name", "mtu"), [(b"omtest0", 1400), ("omtest0", "1400")])
def test_a_tun_has_a_name_and_an_mtu(name: Any, mtu: Any) -> None:
    with pytest.raises(Misused, match=r"cannot open TUN \(.*(1400|omtest0)"):
        open_tun(name, mtu=mtu)


@pytest.mark.parametrize("with_pytun", [True, False])
@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOENT, DeviceMissing, "--device /dev/net/tun"),
        (errno.EPERM, NoRights, "CAP_NET_ADMIN"),
        (errno.EBUSY, NameInUse, "another name"),
        (errno.EINVAL, NameInUse, "another name"),
        (errno.ENFILE, PortError, "Too many open files"),
    ],
)
def test_each_failure_of_a_tun_names_its_cure(
    monkeypatch: pytest.MonkeyPatch, with_pytun: bool, number: int, kind: type[PortError], words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        error = ports.pytun.Error if with_pytun else OSError
        raise error(number, os.strerror(number))

    if with_pytun:
        if ports.pytun is None:
            pytest.skip("no pytun here")
        monkeypatch.setattr(ports.pytun, "TunTapDevice", fail)
    else:
        monkeypatch.setattr(ports, "pytun", None)
        monkeypatch.setattr(ports.io, "FileIO", fail)
    with pytest.raises(kind, match=words):
        open_tun("omtest0", mtu=1400)


def test_a_port_of_another_process_is_the_same_with_its_own_descriptor() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as theirs:
        shape = ports.Port(fd=-1, kind=PortKind.UDP, local=LOOPBACK, offloads=ALL)
        port = ports.adopt_port(shape, os.dup(theirs.fileno()))
        assert (port.kind, port.local, port.offloads, port.fd) == (PortKind.UDP, LOOPBACK, ALL, port.fileno())
        assert os.fstat(port.fd).st_ino == os.fstat(theirs.fileno()).st_ino
        port.close()
        assert theirs.fileno() >= 0
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(port.fd)
