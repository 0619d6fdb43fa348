"""Many datagrams with one system call: sendmmsg and recvmmsg for a connected socket, from Python.

A load generator has to be cheaper than what it loads; a call for each message alone would cost as much as the message.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator, Sequence
from errno import EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, ENOBUFS, EPROTO

MOST = 64  # messages a call
SIZE = 512  # octets of the longest
NOT_NOW = {EAGAIN, EINTR, ENOBUFS, EHOSTUNREACH, ECONNREFUSED, EPROTO}  # the last: the other end is not there yet
_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):  # struct mmsghdr: how long what came is
    _fields_ = (("message", _Message), ("length", ctypes.c_uint))


class Batch:
    """Room for MOST messages, and the calls that move them."""

    def __init__(self, opened: socket.socket) -> None:
        self._number = opened.fileno()
        self._room = ctypes.create_string_buffer(MOST * SIZE)
        begin = ctypes.addressof(self._room)
        self._octets = memoryview(self._room).cast("B")
        self._vectors = (_Vector * MOST)(*(_Vector(begin + at * SIZE, SIZE) for at in range(MOST)))
        self._headers = (_Header * MOST)()
        for header, vector in zip(self._headers, self._vectors, strict=True):
            header.message.vectors, header.message.vector_count = ctypes.addressof(vector), 1

    def send(self, messages: Sequence[bytes | bytearray]) -> int:
        """Send these, at most MOST. Returns how many the kernel took. Raises OSError."""
        for at, message in enumerate(messages):
            end = at * SIZE + len(message)
            self._octets[at * SIZE : end] = message
            self._vectors[at].length = len(message)
        return self._done(_libc.sendmmsg(self._number, self._headers, len(messages), 0))

    def receive(self) -> Iterator[memoryview]:
        """What has come, at most MOST messages; each is good until the next call. Raises OSError."""
        for vector in self._vectors:
            vector.length = SIZE
        count = self._done(_libc.recvmmsg(self._number, self._headers, MOST, socket.MSG_DONTWAIT, None))
        for at in range(count):
            yield self._octets[at * SIZE : at * SIZE + self._headers[at].length]

    def _done(self, result: int) -> int:
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number in NOT_NOW:
            return 0
        raise OSError(number, os.strerror(number))
