"""blast.c in Python, for machines without a C compiler: the same commands, the same answers, far fewer packets.

python -m bench.blast serve-tcp|tcp|udp-receive|udp-send|ping ...     see blast.c
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread

from bench.settings import options

CHUNK = 128 << 10  # octets in one TCP call
BUFFER = 64 << 20  # octets, of the UDP receiver
BATCH = 64  # datagrams between two looks at the clock
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
ICMP6_FILTER = 1  # linux/icmpv6.h
ECHO_REQUEST, ECHO_REPLY = 128, 129  # RFC 4443 4
PING_OCTETS = 64  # ICMPv6 header and data
QUIET = 0.5  # s without a datagram after which udp-receive is done
NOTHING = 10.0  # s it waits for the first
PING_TIMEOUT = 1.0  # s
TICK = 0.1  # s after which a TCP call that is stuck looks at the clock
COUNT = struct.Struct("=Q")
ECHO = struct.Struct("!BBHHH")  # type, code, checksum (the kernel's work), identifier, sequence number


def take(stream: socket.socket, until: float) -> int:
    """Octets that came until the other end closed, or until then (monotonic s)."""
    stream.settimeout(TICK)
    buffer, octets = bytearray(CHUNK), 0
    while time.monotonic() < until:
        with suppress(TimeoutError):
            if not (got := stream.recv_into(buffer)):
                break
            octets += got
    return octets


def give(stream: socket.socket, until: float) -> None:
    """Send until then (monotonic s), or until the other end closes."""
    stream.settimeout(TICK)
    chunk = bytes(CHUNK)
    while time.monotonic() < until:
        with suppress(TimeoutError):
            try:
                stream.send(chunk)
            except ConnectionError:
                break


def serve_tcp(port: str) -> None:
    with socket.create_server(("::", int(port)), family=socket.AF_INET6) as server:
        print("ready", flush=True)
        while True:
            Thread(target=serve_stream, args=(server.accept()[0],), daemon=True).start()


def serve_stream(stream: socket.socket) -> None:
    with stream, suppress(ConnectionError):
        way = stream.recv(1)
        if way == b"i":
            give(stream, float("inf"))
        elif way == b"o":
            octets = take(stream, float("inf"))
            stream.sendall(COUNT.pack(octets))


def tcp(address: str, port: str, seconds: str, streams: str, way: str) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(int(streams)) as pool:
        running = [pool.submit(run_stream, address, int(port), float(seconds), way[0]) for _ in range(int(streams))]
    octets = sum(each.result() for each in running)
    print(json.dumps({"octets": octets, "seconds": time.monotonic() - began}))


def run_stream(address: str, port: int, seconds: float, way: str) -> int:
    """Octets that one stream delivered. way: o or i."""
    with socket.create_connection((address, port)) as stream:
        stream.sendall(way.encode())
        until = time.monotonic() + seconds
        if way == "i":
            return take(stream, until)
        give(stream, until)
        stream.shutdown(socket.SHUT_WR)
        stream.settimeout(NOTHING)  # the server still has to take what is on its way
        octets: int = COUNT.unpack(stream.recv(COUNT.size, socket.MSG_WAITALL))[0]
        return octets


def udp_receive(port: str) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        try:
            server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        server.bind(("::", int(port)))
        server.settimeout(NOTHING)
        print("ready", flush=True)
        buffer, packets, first, last = bytearray(2048), 0, 0.0, 0.0
        with suppress(TimeoutError):
            while server.recv_into(buffer) >= 0:
                last = time.monotonic()
                if not packets:
                    first = last
                    server.settimeout(QUIET)
                packets += 1
    print(json.dumps({"packets": packets, "seconds": last - first}))


def udp_send(address: str, port: str, octets: str, seconds: str) -> None:
    payload, packets, began = bytes(int(octets)), 0, time.monotonic()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.connect((address, int(port)))
        while (elapsed := time.monotonic() - began) < float(seconds):
            for _ in range(BATCH):
                with suppress(OSError):  # a full queue: it is saturated, as it should be
                    sender.send(payload)
                    packets += 1
    print(json.dumps({"packets": packets, "seconds": elapsed}))


def ping(address: str, count: str, interval: str) -> None:
    trips = []
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as pinger:
        blocked = [2**32 - 1] * 8  # a bit for each type: struct icmp6_filter
        blocked[ECHO_REPLY // 32] &= ~(1 << ECHO_REPLY % 32)
        pinger.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *blocked))
        pinger.settimeout(PING_TIMEOUT)
        pinger.connect((address, 0))
        for number in range(int(count)):
            if number:
                time.sleep(float(interval))
            trips.append(round_trip(pinger, number & 0xFFFF))
    back = [round(trip * 1e6, 1) for trip in trips if trip is not None]
    print(json.dumps({"round_trips": back, "lost": len(trips) - len(back)}))


def round_trip(pinger: socket.socket, number: int) -> float | None:
    """Seconds until the echo with this number is back, or None."""
    identity = os.getpid() & 0xFFFF
    request = ECHO.pack(ECHO_REQUEST, 0, 0, identity, number).ljust(PING_OCTETS, b"\0")
    began = time.monotonic()
    try:
        pinger.send(request)
        while time.monotonic() < began + PING_TIMEOUT:
            answer = pinger.recv(1500)
            back = time.monotonic()
            if len(answer) >= ECHO.size and ECHO.unpack_from(answer)[3:] == (identity, number):
                return back - began
    except OSError:  # no way yet, or no answer in time
        pass
    return None


COMMANDS: dict[str, Callable[..., None]] = {
    "serve-tcp": serve_tcp,
    "tcp": tcp,
    "udp-receive": udp_receive,
    "udp-send": udp_send,
    "ping": ping,
}

if __name__ == "__main__":
    made = options("blast", __doc__)
    made.add_argument("command", choices=COMMANDS)
    made.add_argument("words", nargs="*", help="address, port, seconds and so on, as blast.c has them")
    about = made.parse_args()
    with suppress(KeyboardInterrupt):
        COMMANDS[about.command](*about.words)
