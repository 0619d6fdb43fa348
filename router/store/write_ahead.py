"""Changes that are promised before the database has them: a file that each is appended to, in place.

One write to a file of the page cache takes some microseconds, where a commit in a thread takes the better part of a
millisecond: an update is answered after the first, the second follows. What is written survives the death of the
process, as a commit of the database does.

    change: number (of the session), length, CRC-32 of what follows and of the two before | value; no value: forgotten

The database is whole without the file again whenever nothing waits: then it is cut to nothing. A change that is cut
short, or broken, and what comes after it, was never promised.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

HEAD = struct.Struct("!QII")  # number, length, CRC
MOST = 16 << 20  # octets; then changes wait for the database again, until nothing does


class WriteAhead:
    """The file, opened. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """What was appended, oldest first: the number of a session and its value, b"": forgotten."""
        octets = os.pread(self._file, self._size, 0)
        at = 0
        while at + HEAD.size <= len(octets):
            number, length, check = HEAD.unpack_from(octets, at)
            at += HEAD.size
            value = octets[at : at + length]
            if len(value) < length or _check(number, value) != check:
                return
            yield number, value
            at += length

    def append(self, number: int, value: bytes) -> bool:
        """Write a change. False: it is not durable by this."""
        octets = HEAD.pack(number, len(value), _check(number, value)) + value
        if self._size + len(octets) > MOST:
            return False
        try:
            written = os.write(self._file, octets)
        except OSError:
            return False
        self._size += written
        return written == len(octets)  # what follows a part of one would never be read

    def clear(self) -> None:
        """The database has all of it."""
        if self._size:
            os.ftruncate(self._file, 0)
            self._size = 0

    @property
    def removed(self) -> bool:
        """Whether the file has no name any more."""
        return not os.fstat(self._file).st_nlink

    def close(self) -> None:
        """No more changes."""
        os.close(self._file)


def _check(number: int, value: bytes) -> int:
    return crc32(value, crc32(number.to_bytes(8)) ^ len(value))
