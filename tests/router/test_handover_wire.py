"""Frames between two processes of a router, with descriptors; and what is no such frame."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from router.handover_wire import AT_ONCE, HEAD, HandoverError, HandoverWire

Talk = Callable[[HandoverWire, HandoverWire, socket.socket], Awaitable[Any]]


def talk(what: Talk) -> Any:
    """Two ends of one connection; the raw socket of the first."""

    async def both() -> Any:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        first, second = HandoverWire(one), HandoverWire(other)
        try:
            return await what(first, second, one)
        finally:
            first.close()
            second.close()

    return asyncio.run(both())


def test_what_is_said_is_heard() -> None:
    body = {"text": "ä" * 1_000_000, "number": 1.5, "none": None}

    async def saying(one: HandoverWire, other: HandoverWire, raw: socket.socket) -> Any:
        _, heard = await asyncio.gather(one.send("state", body), other.expect("state", 5.0))
        return heard

    assert talk(saying) == (body, [])


@pytest.mark.parametrize("count", [1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_descriptors_come_with_their_frame_and_in_order(count: int) -> None:
    made = [os.memfd_create(f"number {number}") for number in range(count)]

    async def saying(one: HandoverWire, other: HandoverWire, raw: socket.socket) -> Any:
        await one.send("descriptors", "body", made)
        await one.send("after")
        found = await other.expect("descriptors", 5.0)
        assert await other.expect("after", 5.0) == (None, [])
        return found

    body, descriptors = talk(saying)
    try:
        assert body == "body"
        assert [os.fstat(each).st_ino for each in descriptors] == [os.fstat(each).st_ino for each in made]
        assert not any(os.get_inheritable(each) for each in descriptors)
    finally:
        for each in (*made, *descriptors):
            os.close(each)


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (HEAD.pack(2, 0) + b"{}", "does not speak our language"),
        (HEAD.pack(2, 0) + b"[[", "does not speak our language"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak our language"),
        (HEAD.pack(28, 0) + b'{"kind": "odd", "body": nul}'[:28], "does not speak our language"),
        (HEAD.pack(27, 0) + b'{"kind":"odd","body": null}', "said 'odd', and not 'state'"),
        (HEAD.pack(29, 1) + b'{"kind":"state","body": null}', "said 'state', and not 'state'"),
        (HEAD.pack(33, 0) + b'{"kind":"failed","body":"no luck"}'[:33] + b"", "does not speak our language"),
        (HEAD.pack(34, 0) + b'{"kind":"failed","body":"no luck"}', "^no luck$"),
    ],
)
def test_what_is_no_such_frame_is_refused(octets: bytes, problem: str) -> None:
    async def saying(one: HandoverWire, other: HandoverWire, raw: socket.socket) -> Any:
        raw.send(octets)
        await other.expect("state", 5.0)

    with pytest.raises(HandoverError, match=problem):
        talk(saying)


def test_who_hangs_up_is_noticed() -> None:
    async def saying(one: HandoverWire, other: HandoverWire, raw: socket.socket) -> Any:
        raw.send(HEAD.pack(100, 0))
        one.close()
        await other.expect("state", 5.0)

    with pytest.raises(HandoverError, match=r"^takeover: the other process hung up$"):
        talk(saying)


def test_who_says_nothing_is_not_waited_for() -> None:
    async def saying(one: HandoverWire, other: HandoverWire, raw: socket.socket) -> Any:
        await other.expect("state", 0.01)

    with pytest.raises(HandoverError, match=r"said no 'state' in 0\.01 s$"):
        talk(saying)


def test_speaking_to_nobody_is_an_error_too() -> None:
    async def saying(one: HandoverWire, other: HandoverWire, raw: socket.socket) -> Any:
        other.close()
        await one.send("state", "x" * 10_000_000)

    with pytest.raises(HandoverError, match="hung up"):
        talk(saying)
