"""The Internet checksum in each of its shapes is that of RFC 1071, whatever the length and wherever the octets lie."""

from __future__ import annotations

import random

import pytest

checksum = pytest.importorskip("engine._fast.checksum", reason="nothing is compiled")

pytestmark = pytest.mark.parametrize("kind", ["best", "plain", "vectors"])


def internet_checksum(octets: bytes) -> int:
    """RFC 1071, by another way than the code: 2**16 is 1 modulo 2**16 - 1."""
    number = int.from_bytes(octets + bytes(len(octets) % 2), "big")
    return -number % 0xFFFF if number else 0xFFFF


def test_the_example_of_the_standard(kind: str) -> None:
    octets = bytes.fromhex("0001 f203 f4f5 f6f7")
    assert checksum.internet_checksum(octets, 0, kind) == 0xDDF2 ^ 0xFFFF  # RFC 1071 3


def test_every_length_at_every_alignment(kind: str, dice: random.Random) -> None:
    octets = dice.randbytes(600)
    for length in range(520):
        start = dice.randrange(64)
        assert checksum.internet_checksum(octets[: start + length], start, kind) == internet_checksum(
            octets[start : start + length]
        ), (start, length)


@pytest.mark.parametrize("length", [1400, 1401, 9000, 65535, 65536, 1 << 20])
def test_long_ones(kind: str, length: int, dice: random.Random) -> None:
    octets = dice.randbytes(length)
    assert checksum.internet_checksum(octets, 0, kind) == internet_checksum(octets)


@pytest.mark.parametrize("length", [2, 7, 64, 129, 65535, 1 << 20])
@pytest.mark.parametrize("pattern", ["00", "ff", "ff00", "00ff", "fffe", "8000000000000000", "ffffffffffffffff01"])
def test_no_carry_is_lost(kind: str, pattern: str, length: int) -> None:
    octets = (bytes.fromhex(pattern) * length)[:length]
    assert checksum.internet_checksum(octets, 0, kind) == internet_checksum(octets)


def test_nothing_at_all(kind: str) -> None:
    assert checksum.internet_checksum(b"", 0, kind) == 0xFFFF


def test_octets_with_their_checksum_among_them_give_nought(kind: str, dice: random.Random) -> None:
    for length in range(2, 400, 2):
        octets = b"\0\0" + dice.randbytes(length)
        whole = checksum.internet_checksum(octets, 0, kind).to_bytes(2, "big") + octets[2:]
        assert checksum.internet_checksum(whole, 0, kind) == 0


def test_a_start_behind_the_end_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="behind"):
        checksum.internet_checksum(b"abc", 4, kind)
