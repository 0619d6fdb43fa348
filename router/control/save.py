"""Saving a capture: from a running router into a file, whole blocks only, so that it can be read at any time.

Ctrl-C and SIGTERM ask the router to end it: what is on its way still comes, and how many packets were lost.
"""

import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from router.control.client import Capturing, Client
from router.errors import NoRights, NotRunning, RouterError, TimedOut

STANDARD_OUTPUT = "-"
SECTION, STATISTICS, PACKET = 0x0A0D0D0A, 5, 6  # block types, as in engine/capture.py
HEAD = struct.Struct("<II")  # block type, octets of the block
LEAST_BLOCK = 12  # octets
DROPPED_AT = 24  # octets into the statistics: isb_ifdrop, the only option (engine/capture.py)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What became of a capture."""

    file: str
    packets: int  # written
    lost: int | None  # found the ring of the router full; None: it ended before it could say

    def __str__(self) -> str:
        where = "standard output" if self.file == STANDARD_OUTPUT else self.file
        lost = "nobody knows how many were lost: it was cut off" if self.lost is None else f"{self.lost} lost"
        return f"{self.packets} packet{'s' * (self.packets != 1)} written to {where}, {lost}"


class Blocks:
    """Cuts octets of a pcapng file into whole blocks, and counts what is in them."""

    def __init__(self) -> None:
        self.packets = 0
        self.lost: int | None = None
        self._rest = b""
        self._begun = False

    def whole(self, octets: bytes) -> bytes:
        """The blocks that are complete now. Raises ValueError: this is no pcapng file of ours."""
        octets = self._rest + octets
        at = 0
        while len(octets) - at >= LEAST_BLOCK:
            kind, length = HEAD.unpack_from(octets, at)
            if length < LEAST_BLOCK or length % 4 or (not self._begun and kind != SECTION):
                raise ValueError("not a pcapng file")
            if length > len(octets) - at:
                break
            self._begun = True
            self._count(kind, octets, at)
            at += length
        self._rest = octets[at:]
        return octets[:at]

    def _count(self, kind: int, octets: bytes, at: int) -> None:
        if kind == PACKET:
            self.packets += 1
        elif kind == STATISTICS:
            (self.lost,) = struct.unpack_from("<Q", octets, at + DROPPED_AT)


def save(client: Client, tunnel: str, file: str, *, outer: bool = False, count: int | None = None) -> Saved:
    """Capture into file ("-": standard output) until it is full, stopped by a signal, or the router ends.

    count: packets. Raises RouterError; nothing is written before the router agreed.
    """
    capturing = client.capture(tunnel, outer=outer, count=count)
    blocks = Blocks()
    try:
        with _explained(file, blocks), _opened(file) as opened, _ended_by_signals(capturing):
            print(f"capturing {tunnel}: Ctrl-C ends it", file=sys.stderr, flush=True)
            for octets in capturing.pieces():
                opened.write(blocks.whole(octets))
                opened.flush()
    finally:
        capturing.close()
    return Saved(file=file, packets=blocks.packets, lost=blocks.lost)


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        return
    with Path(file).open("wb") as opened:
        yield opened


@contextmanager
def _explained(file: str, blocks: Blocks) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        pass  # whoever reads it has enough
    except OSError as error:
        kind = NoRights if isinstance(error, PermissionError) else RouterError
        written = f" after {blocks.packets} packets" if blocks.packets else ""
        why = (error.strerror or str(error)).lower()
        raise kind(f"{file}: cannot be written{written}: {why}: choose another file") from None
    except ValueError as error:
        raise NotRunning(f"no router answered on its socket ({error})") from None


@contextmanager
def _ended_by_signals(capturing: Capturing) -> Iterator[None]:
    """The first signal asks the router to end the capture, the second leaves at once. Raises TimedOut."""
    asked: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        try:
            capturing.stop()
        except TimedOut:
            raise
        except RouterError:
            pass  # it has ended already, and so will we

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # a handler that Python did not set
                signal.signal(number, handler)
