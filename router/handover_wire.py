"""Between two processes of one router: frames of JSON over the control socket, some with descriptors (SCM_RIGHTS).

    | length, 4 octets | number of descriptors, 4 octets | {"kind": ..., "body": ...} |

Plain data only; a frame that is not what is expected, or does not come in time, ends it all.
"""

import array
import asyncio
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from router.errors import RouterError

HEAD = struct.Struct("!II")
MOST_OCTETS = 1 << 30  # of a frame
AT_ONCE = 64  # descriptors in one message; the kernel takes 253
PIECE = 1 << 18  # octets read at once


class HandoverError(RouterError):
    """The other process did not do its part; what was before goes on."""


class HandoverWire:
    """One end. It owns the socket, and what was received and not taken yet."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._octets = bytearray()
        self._descriptors: list[int] = []

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    async def send(self, kind: str, body: Any = None, descriptors: Sequence[int] = ()) -> None:
        """Say something; the descriptors stay open here. Raises HandoverError."""
        text = json.dumps({"kind": kind, "body": body}, separators=(",", ":")).encode()
        head = HEAD.pack(len(text), len(descriptors))
        loop = asyncio.get_running_loop()
        try:
            for at in range(0, len(descriptors), AT_ONCE):  # each with one octet that says so
                await self._ready(loop.add_writer, loop.remove_writer)
                socket.send_fds(self._socket, [b"\0"], descriptors[at : at + AT_ONCE])
            await loop.sock_sendall(self._socket, head + text)
        except OSError as error:
            raise HandoverError(f"takeover: the other process hung up ({os.strerror(error.errno or 0)})") from None

    async def expect(self, kind: str, within: float) -> tuple[Any, list[int]]:
        """What the other end says next, and its descriptors, which are the caller's. Raises HandoverError."""
        try:
            async with asyncio.timeout(within):
                return await self._frame(kind)
        except TimeoutError:
            raise HandoverError(f"takeover: the other process said no {kind!r} in {within:g} s") from None

    async def wait_for_end(self, within: float) -> None:
        """Until the other end hangs up; or for so long."""
        try:
            async with asyncio.timeout(within):
                while True:
                    await self._read()
        except (TimeoutError, HandoverError):
            return

    async def _frame(self, kind: str) -> tuple[Any, list[int]]:
        while len(self._octets) < HEAD.size:
            await self._read()
        length, count = HEAD.unpack_from(self._octets)
        if length > MOST_OCTETS:
            raise HandoverError("takeover: the other process does not speak our language")
        while len(self._octets) < HEAD.size + length:
            await self._read()
        text = bytes(self._octets[HEAD.size : HEAD.size + length])
        del self._octets[: HEAD.size + length]
        try:
            frame = json.loads(text)
            said, body = frame["kind"], frame["body"]
        except (ValueError, KeyError, TypeError):
            raise HandoverError("takeover: the other process does not speak our language") from None
        if said == "failed":
            raise HandoverError(str(body))
        if said != kind or len(self._descriptors) < count:  # those that are left, close() closes
            raise HandoverError(f"takeover: the other process said {said!r}, and not {kind!r}")
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return body, descriptors

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        await self._ready(loop.add_reader, loop.remove_reader)
        try:
            space = socket.CMSG_SPACE(AT_ONCE * 4)
            octets, ancillary, _, _ = self._socket.recvmsg(PIECE, space, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError as error:
            raise HandoverError(f"takeover: the other process hung up ({os.strerror(error.errno or 0)})") from None
        found = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
        self._descriptors += found
        if not octets:
            raise HandoverError("takeover: the other process hung up")
        self._octets += octets[1:] if found else octets

    async def _ready(self, add: Any, remove: Any) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        add(self._socket.fileno(), _done, ready)
        try:
            await ready
        finally:
            remove(self._socket.fileno())


def _done(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
