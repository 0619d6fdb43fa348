"""ICMPv6 messages that are not neighbor discovery: errors and echo (RFC 4443).

0               1               2               4               8
|     Type      |     Code      |   Checksum    | parameter (4) | as much of the packet at fault as fits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from signaling.iana import Icmpv6Type
from signaling.wire.codec import NUMBER, OCTETS, Field, Layout
from signaling.wire.message import Message

MAX_QUOTE: Final = 1280 - 40 - 8  # octets: the error must fit in the minimum MTU, RFC 4443 2.4 (c)

_QUOTE = Field(bytes, lambda octets: octets[:MAX_QUOTE])


@dataclass(frozen=True, slots=True, kw_only=True)
class IcmpErrorMessage(Message):
    """An ICMPv6 error."""

    code: int = 0
    invoking: bytes  # octets of the packet at fault, IPv6 header first; cut when sent


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationUnreachable(IcmpErrorMessage):
    """A packet could not be delivered (RFC 4443 3.1)."""

    TYPE: ClassVar[int] = Icmpv6Type.DESTINATION_UNREACHABLE
    LAYOUT: ClassVar[Layout] = Layout("RFC 4443 3.1", "4x", invoking=_QUOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketTooBig(IcmpErrorMessage):
    """A packet was larger than the link it should leave by (RFC 4443 3.2)."""

    TYPE: ClassVar[int] = Icmpv6Type.PACKET_TOO_BIG
    LAYOUT: ClassVar[Layout] = Layout("RFC 4443 3.2", "I", mtu=NUMBER, invoking=_QUOTE)

    mtu: int  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeExceeded(IcmpErrorMessage):
    """A packet ran out of hops (RFC 4443 3.3)."""

    TYPE: ClassVar[int] = Icmpv6Type.TIME_EXCEEDED
    LAYOUT: ClassVar[Layout] = Layout("RFC 4443 3.3", "4x", invoking=_QUOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterProblem(IcmpErrorMessage):
    """A field of a packet made no sense (RFC 4443 3.4). code: see iana.ParameterProblemCode."""

    TYPE: ClassVar[int] = Icmpv6Type.PARAMETER_PROBLEM
    LAYOUT: ClassVar[Layout] = Layout("RFC 4443 3.4", "I", pointer=NUMBER, invoking=_QUOTE)

    pointer: int  # octets from the start of the packet at fault


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoRequest(Message):
    """Asks for an EchoReply (RFC 4443 4.1)."""

    TYPE: ClassVar[int] = Icmpv6Type.ECHO_REQUEST
    LAYOUT: ClassVar[Layout] = Layout("RFC 4443 4.1", "HH", identifier=NUMBER, sequence_number=NUMBER, data=OCTETS)

    identifier: int  # 16 bits
    sequence_number: int  # 16 bits
    data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoReply(Message):
    """Answers an EchoRequest, with all of its fields (RFC 4443 4.2)."""

    TYPE: ClassVar[int] = Icmpv6Type.ECHO_REPLY
    LAYOUT: ClassVar[Layout] = Layout("RFC 4443 4.2", "HH", identifier=NUMBER, sequence_number=NUMBER, data=OCTETS)

    identifier: int  # 16 bits
    sequence_number: int  # 16 bits
    data: bytes = b""
