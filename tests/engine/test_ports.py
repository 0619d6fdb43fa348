"""Ports are opened ready for use, or the error says what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from engine import (
    AddressInUse,
    AddressNotLocal,
    DeviceMissing,
    NameInUse,
    NoRights,
    PortError,
    PortKind,
    open_ip6,
    open_tun,
    open_udp,
    ports,
)

LOOPBACK = IPv6Address("::1")
NOBODY = IPv6Address("2001:db8::dead")


def opened(opening: Callable[[], ports.Port]) -> ports.Port | PortError:
    """The port, or what this machine lacks for it."""
    try:
        return opening()
    except (DeviceMissing, NoRights) as error:
        return error


def check_ready(port: ports.Port) -> None:
    assert not os.get_blocking(port.fd)
    assert fcntl.fcntl(port.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_udp_port_is_ready_and_alone() -> None:
    try:
        port = open_udp(LOOPBACK)
    except AddressInUse:
        pytest.skip("someone else has the port")
    try:
        check_ready(port)
        assert (port.kind, port.local, port.fileno()) == (PortKind.UDP, LOOPBACK, port.fd)
        with socket.socket(fileno=os.dup(port.fd)) as sock:
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) == 1
        with pytest.raises(AddressInUse, match="another router"):
            open_udp(LOOPBACK)
    finally:
        port.close()


def test_an_address_of_someone_else_is_refused() -> None:
    with pytest.raises(AddressNotLocal, match="2001:db8::dead"):
        open_udp(NOBODY)


def test_a_raw_port_is_ready_or_asks_for_the_right() -> None:
    answer = opened(lambda: open_ip6(LOOPBACK))
    if isinstance(answer, PortError):
        assert "CAP_NET_RAW" in answer.cure
    else:
        check_ready(answer)
        answer.close()


@pytest.mark.parametrize("with_pytun", [True, False])
def test_a_tun_is_ready_or_the_error_has_a_cure(monkeypatch: pytest.MonkeyPatch, with_pytun: bool) -> None:
    if not with_pytun:
        monkeypatch.setattr(ports, "pytun", None)
    answer = opened(lambda: open_tun("omtest%d", mtu=1400))
    if isinstance(answer, PortError):
        assert answer.cure
        return
    try:
        check_ready(answer)
        assert answer.name.startswith("omtest")
        assert (answer.kind, answer.mtu) == (PortKind.TUN, 1400)
    finally:
        answer.close()


@pytest.mark.parametrize("mtu", [1279, 65536])
def test_an_mtu_ipv6_cannot_use_is_refused(mtu: int) -> None:
    with pytest.raises(PortError, match="MTU"):
        open_tun("omtest%d", mtu=mtu)


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
