"""Captures: what goes through a tunnel, as a pcapng file that is streamed to whoever asked for it. One at a time.

    taps of all engines --every 20 ms--> engine.capture.Capture --> HTTP --> `python -m router capture`, or curl

While nobody asks, the taps are closed; they close when who asked has gone, whatever the reason.
"""

import asyncio
import io
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aiohttp import web

from engine import EngineError, Tunnel
from engine.capture import Capture
from router.errors import RouterError

if TYPE_CHECKING:
    from router.daemon import Router

log = logging.getLogger("openmar")

NUMBER = "Openmar-Capture"  # header: what a capture is called when it is asked to stop
ALL = "all"
EVERY = 0.02  # s between two readings: the ring of an engine (4 MiB) is full after that long at 1.6 Gbit/s
FACES = {"": False, "inner": False, "outer": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be captured."""

    name: str  # of the tunnel, for the file
    tunnel: Tunnel | None  # None: all of them
    outer: bool  # with the headers of the underlay
    count: int | None  # packets, at most


class Recording:
    """A capture that runs."""

    def __init__(self, router: "Router", wanted: Wanted, number: str) -> None:
        """Opens the taps. Raises RouterError."""
        self.wanted = wanted
        self.number = number
        self.began = time.monotonic()
        self.stopped = asyncio.Event()
        self._packets = router.packets
        self._octets = io.BytesIO()
        self._capture = Capture(self._octets, tunnel=wanted.name, count=wanted.count)
        try:
            self._packets.open_tap(wanted.tunnel, outer=wanted.outer)
        except (EngineError, RuntimeError) as error:
            raise RouterError(f"capture {wanted.name}: {error}") from None

    async def write(self, response: web.StreamResponse, request: web.Request) -> None:
        """All of it, until it is stopped, has all its packets, or the other end has gone."""
        await response.write(self._taken())
        while not self.stopped.is_set() and not self._capture.full and not _gone(request):
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self.stopped.wait()
            self._capture.feed(self._packets.read_tap())
            if octets := self._taken():
                await response.write(octets)  # waits for a slow reader; what does not fit then is lost, and counted
        self._finish()
        await response.write(self._taken())

    def close(self) -> None:
        """Close the taps, however it ended."""
        self._finish()
        log.info("capture of %s: ended with %d packets", self.wanted.name, self._capture.packets)

    def _finish(self) -> None:
        records, lost = self._packets.close_tap()
        if records:
            self._capture.feed(records)
        self._capture.close(lost=lost)

    def _taken(self) -> bytes:
        octets = self._octets.getvalue()
        self._octets.seek(0)
        self._octets.truncate()
        return octets


class Captures:
    """The captures of one router: one at a time."""

    def __init__(self, router: "Router") -> None:
        self._router = router
        self._running: Recording | None = None
        self._begun = 0

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/capture. Raises RouterError."""
        wanted = _wanted(self._router, request.query)
        if self._running is not None:
            since = time.monotonic() - self._running.began
            raise RouterError(
                f"capture {wanted.name}: a capture of {self._running.wanted.name} is running already, for {since:.0f} "
                "s: stop it first: there is one at a time"
            )
        self._begun += 1
        self._running = running = Recording(self._router, wanted, str(self._begun))
        log.info("capture of %s: begins", wanted.name)
        response = web.StreamResponse(headers={"Content-Type": "application/x-pcapng", NUMBER: running.number})
        try:
            await response.prepare(request)
            await running.write(response, request)
        except ConnectionResetError:
            pass  # who asked has gone
        finally:
            running.close()
            self._running = None
        return response

    def stop(self, number: str) -> None:
        """Let the capture of that number end, with all that is due to it. Raises RouterError."""
        if self._running is None or self._running.number != number:
            raise RouterError(f"capture {number}: it has ended already")
        self._running.stopped.set()

    async def end(self, _: web.Application) -> None:
        """The router stops."""
        if self._running is not None:
            self._running.stopped.set()


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _wanted(router: "Router", query: Mapping[str, str]) -> Wanted:
    """What a request asks for. Raises RouterError."""
    name, face, count = (query.get(key, "") for key in ("tunnel", "face", "count"))
    if face not in FACES:
        raise RouterError(f"capture: face {face}: expected inner or outer")
    if count and not (count.isascii() and count.isdigit() and len(count) < 19 and int(count)):
        raise RouterError(f"capture: count {count[:40]}: expected a whole number, at least 1")
    tunnel = None if name == ALL else _tunnel(router, name)
    return Wanted(name=name, tunnel=tunnel, outer=FACES[face], count=int(count) if count else None)


def _tunnel(router: "Router", name: str) -> Tunnel:
    """The tunnel to a peer, by its name or address; it need not be in use now. Raises RouterError."""
    used = {item.tunnel.remote: item.tunnel for item in router.tables.tunnels()}
    # where a peer is that roams, first by the path it has had for longest
    peers = {peer.name: at for at in reversed(used) if (peer := router.role.door.peer(at)) is not None}
    peers |= {peer.name: peer.address for peer in router.config.peers if peer.address is not None}
    remote = peers.get(name)
    if remote is None:
        with suppress(ValueError):
            remote = next((each for each in (*peers.values(), *used) if each == ip_address(name)), None)
    if remote is None:
        there = [f"{peer} ({address})" for peer, address in peers.items()]
        there += [str(address) for address in used if address not in peers.values()]
        raise RouterError(f"capture {name}: no such tunnel: there are: {', '.join([*there, ALL])}")
    local, encapsulation = router.underlay.address, router.config.encapsulation
    return used.get(remote) or Tunnel(local=local, remote=remote, encapsulation=encapsulation)
