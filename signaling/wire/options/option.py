"""What an option is: type, length, data (RFC 6275 6.2.1), and how a row of them is read and written.

A new option is a class in one file of this package, decorated with `register`; nothing else changes. What a
peer sends and we do not know is kept as `UnknownOption`; what we know but cannot make sense of, inside an
intact frame, is kept as `MalformedOption`: the answer to it is the role's (a status), not the decoder's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self, TypeVar

from signaling.errors import MalformedMessage, Reason, UnencodableMessage
from signaling.iana import OptionType
from signaling.wire.codec import (
    MAX_OPTION_DATA,
    UNALIGNED,
    Alignment,
    Layout,
    padding,
)

ALIGNMENT: Final[dict[int, Alignment]] = {
    OptionType.BINDING_REFRESH_ADVICE: Alignment(2),
    OptionType.ALTERNATE_CARE_OF_ADDRESS: Alignment(8, 6),
    OptionType.NONCE_INDICES: Alignment(2),
    OptionType.BINDING_AUTHORIZATION_DATA: Alignment(8, 2),
    OptionType.MOBILE_NETWORK_PREFIX: Alignment(8, 4),
    # RFC 4285 5 says 4n+1; 8n+5 is that too, and with 12 or 20 octets of data the message ends unpadded
    OptionType.MOBILITY_MESSAGE_AUTHENTICATION: Alignment(8, 5),
    OptionType.MOBILITY_MESSAGE_REPLAY_PROTECTION: Alignment(8, 2),
    OptionType.VENDOR_SPECIFIC: Alignment(4, 2),
    OptionType.HOME_NETWORK_PREFIX: Alignment(8, 4),
    OptionType.LINK_LOCAL_ADDRESS: Alignment(8, 6),
    OptionType.TIMESTAMP: Alignment(8, 2),
    OptionType.RESTART_COUNTER: Alignment(4, 2),
    OptionType.IPV4_HOME_ADDRESS: Alignment(4),
    OptionType.IPV4_ADDRESS_ACKNOWLEDGEMENT: Alignment(4),
    OptionType.NAT_DETECTION: Alignment(4),
    OptionType.IPV4_CARE_OF_ADDRESS: Alignment(4),
    OptionType.GRE_KEY: Alignment(4),
    OptionType.MOBILITY_HEADER_IPV6_ADDRESS_PREFIX: Alignment(8, 4),
    OptionType.BINDING_IDENTIFIER: Alignment(2),
    OptionType.IPV4_HOME_ADDRESS_REQUEST: Alignment(4),
    OptionType.IPV4_HOME_ADDRESS_REPLY: Alignment(4),
    OptionType.IPV4_DEFAULT_ROUTER_ADDRESS: Alignment(4),
    OptionType.FLOW_SUMMARY: Alignment(2),
    OptionType.FLOW_IDENTIFICATION: Alignment(2),
    OptionType.REDIRECT_CAPABILITY: Alignment(4),
    OptionType.REDIRECT: Alignment(4),
    OptionType.LOAD_INFORMATION: Alignment(4),
    OptionType.ALTERNATE_IPV4_CARE_OF_ADDRESS: Alignment(4, 2),
    OptionType.MAG_IPV6_ADDRESS: Alignment(8, 4),
    OptionType.ACCESS_NETWORK_IDENTIFIER: Alignment(4),
    OptionType.IPV4_TRAFFIC_OFFLOAD_SELECTOR: Alignment(4),
    OptionType.DELEGATED_MOBILE_NETWORK_PREFIX: Alignment(8, 2),
    OptionType.ACTIVE_MULTICAST_SUBSCRIPTION_IPV4: Alignment(4, 1),
    OptionType.ACTIVE_MULTICAST_SUBSCRIPTION_IPV6: Alignment(8, 1),
    OptionType.QUALITY_OF_SERVICE: Alignment(4),
    OptionType.LMA_USER_PLANE_ADDRESS: Alignment(8, 2),
    OptionType.LMA_CONTROLLED_MAG_PARAMETERS: Alignment(4, 2),
    OptionType.ANCHORED_PREFIX: Alignment(8, 4),
    OptionType.LOCAL_PREFIX: Alignment(8, 4),
    OptionType.PREVIOUS_MAAR: Alignment(8, 4),
    OptionType.SERVING_MAAR: Alignment(8, 6),
    OptionType.DLIF_LINK_LOCAL_ADDRESS: Alignment(8, 6),
}
"""Where the Type octet of an option stands, by the RFC named in `iana.OptionType`; the rest: anywhere."""

PAD1: Final = int(OptionType.PAD1)  # plain numbers: an enumeration's members are slow to reach
PADS: Final[tuple[int, ...]] = (PAD1, int(OptionType.PADN))
BINDING_IDENTIFIER_WITH_ADDRESS: Final = Alignment(8, 2)  # RFC 5648 4.3
_LENGTH_WITHOUT_ADDRESS = 4  # octets, of a Binding Identifier option


def _alignment_of_raw(number: int, data: bytes) -> Alignment:
    if number == OptionType.BINDING_IDENTIFIER and len(data) > _LENGTH_WITHOUT_ADDRESS:
        return BINDING_IDENTIFIER_WITH_ADDRESS
    return ALIGNMENT.get(number, UNALIGNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a message; `number` is its Type octet."""

    TYPE: ClassVar[int]
    LAYOUT: ClassVar[Layout]  # of the data, after Type and Length

    @property
    def number(self) -> int:
        """Type octet."""
        return self.TYPE

    @property
    def alignment(self) -> Alignment:
        """Where the Type octet has to stand."""
        return ALIGNMENT.get(self.TYPE, UNALIGNED)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Make the option from its data, without Type and Length. Raises ValueError."""
        return cls(**cls.LAYOUT.read(data))

    def write(self, position: int) -> bytes:
        """Data without Type and Length. position: octets from the start of the message to data[0]."""
        return self.LAYOUT.write(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOption(Option):
    """An option as it came."""

    type: int
    data: bytes

    @property
    def number(self) -> int:
        """Type octet."""
        return self.type

    @property
    def alignment(self) -> Alignment:
        """Where the Type octet has to stand."""
        return _alignment_of_raw(self.type, self.data)

    def write(self, position: int) -> bytes:
        """Data as it came."""
        return self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownOption(RawOption):
    """An option of a type this package has no class for: skipped by roles, kept for whoever re-encodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedOption(RawOption):
    """An option of a known type whose content is broken. No reaction is laid down; the role chooses one."""

    why: str


KINDS: Final[dict[int, type[Option]]] = {}
"""Mobility option type -> its class; filled by `register` when the files of this package are imported."""

_Kind = TypeVar("_Kind", bound=type[Option])


def register(kind: _Kind) -> _Kind:
    """Class decorator: decode options of kind.TYPE as kind."""
    KINDS[kind.TYPE] = kind
    return kind


def read_option(number: int, data: bytes, kinds: dict[int, type[Option]]) -> Option:
    """Give the option of this type and data; never raises, a broken one is a MalformedOption."""
    kind = kinds.get(number)
    if kind is None:
        return UnknownOption(type=number, data=data)
    try:
        return kind.read(data)
    except ValueError as error:
        return MalformedOption(type=number, data=data, why=str(error))


SHORT: Final = 6  # octets of data: options of so few have few values, the same in most messages
_SHORT_ONES: dict[tuple[int, bytes], Option] = {}
_MOST_SHORT_ONES: Final = 4096


def _read_short(number: int, data: bytes, kinds: dict[int, type[Option]]) -> Option:
    """As read_option; an option that was read before is given again, as nobody can change it."""
    option = _SHORT_ONES.get((number, data))
    if option is None:
        option = read_option(number, data, kinds)
        if len(_SHORT_ONES) < _MOST_SHORT_ONES:  # a peer that sends every value gets no more than this
            _SHORT_ONES[number, data] = option
    return option


def frames(octets: bytes, start: int, *, pads: tuple[int, ...] = PADS) -> list[tuple[int, int, int]]:
    """Split octets from start into options, padding left out: (type, start of data, end of data) each.

    pads: the types that are padding; none in an option whose sub-options use the numbers 0 and 1 otherwise.

    Raises MalformedMessage if one has no Length or overruns the end. Alignment is not enforced: no RFC asks.
    """
    found = []
    at, end = start, len(octets)
    while at < end:
        number = octets[at]
        if number == PAD1 and number in pads:
            at += 1
            continue
        if at + 2 > end:
            raise MalformedMessage(
                "mobility option",
                at=at,
                why=f"type {number} without a length",
                reason=Reason.OPTION_TRUNCATED,
            )
        data, at = at + 2, at + 2 + octets[at + 1]
        if at > end:
            raise MalformedMessage(
                "mobility option",
                at=data - 2,
                why=f"type {number} needs {at - end} octets more than there are",
                reason=Reason.OPTION_OVERRUN,
            )
        if number not in pads:
            found.append((number, data, at))
    return found


def read_options(octets: bytes, start: int) -> tuple[Option, ...]:
    """Give the options that stand in octets from start to the end, in wire order. Raises MalformedMessage."""
    found = []
    for number, data, end in frames(octets, start):
        read = _read_short if end - data <= SHORT else read_option
        found.append(read(number, octets[data:end], KINDS))
    return tuple(found)


def append_options(octets: bytearray, options: tuple[Option, ...]) -> None:
    """Append options, each with the padding before it. Raises UnencodableMessage."""
    for option in options:
        multiple, offset = option.alignment
        gap = (offset - len(octets)) % multiple
        if gap:
            octets += padding(gap)
        data = option.write(len(octets) + 2)
        if len(data) > MAX_OPTION_DATA:
            raise UnencodableMessage(f"{type(option).__name__}: {len(data)} octets, at most {MAX_OPTION_DATA}")
        octets.append(option.number)
        octets.append(len(data))
        octets += data
