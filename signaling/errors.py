"""Errors of the signaling package: one small tree.

Refusing is an answer (an acknowledgement with its status); what is here is for octets that are no message at
all, and for messages that do not fit in octets. Nobody parses the text: `reason` is for counters, `reaction`
for the router.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class Reaction(Enum):
    """What a receiver owes the sender of octets it cannot use (RFC 6275 9.2)."""

    DISCARD = "discard"
    """Silence."""
    BINDING_ERROR = "binding-error"
    """Unknown MH Type: a Binding Error with status 2."""
    PARAMETER_PROBLEM = "parameter-problem"
    """ICMPv6 type 4 with the error's `code` and `pointer`."""


class Reason(StrEnum):
    """Why octets were refused: a short slug, one counter each."""

    TRUNCATED = "truncated"
    CHECKSUM = "checksum"
    UNKNOWN_TYPE = "unknown-type"
    PAYLOAD_PROTO = "payload-proto"
    HEADER_LEN = "header-len"
    OPTION_TRUNCATED = "option-truncated"
    OPTION_OVERRUN = "option-overrun"
    OPTION_LENGTH_ZERO = "option-length-zero"
    FIELD = "field"
    HOP_LIMIT = "hop-limit"
    CODE = "code"
    SOURCE = "source"
    TARGET = "target"
    SOLICITED = "solicited"
    VERSION = "version"
    FRAGMENT = "fragment"
    EXTENSION_HEADER = "extension-header"
    ROUTING_HEADER = "routing-header"
    HOME_ADDRESS = "home-address"
    UNKNOWN_DESTINATION_OPTION = "unknown-destination-option"


class SignalingError(Exception):
    """Root of every error raised by the signaling package."""


class UnencodableMessage(SignalingError):  # noqa: N818  it names the message, as does MalformedMessage
    """A value does not fit the octets its RFC gives it: a fault of ours, not of a peer."""


class MalformedMessage(SignalingError):  # noqa: N818  the name says error already
    """Octets that are no message. The only exception decoding raises, whatever the octets.

    what: the structure being read; at: offset in octets from the start of what was given to decode();
    why: for a human; reason: for a counter. code and pointer (octets, in the IPv6 packet) matter for
    Reaction.PARAMETER_PROBLEM only (RFC 4443 3.4).
    """

    def __init__(
        self,
        what: str,
        *,
        at: int,
        why: str,
        reason: Reason,
        reaction: Reaction = Reaction.DISCARD,
        pointer: int | None = None,
        code: int = 0,
    ) -> None:
        super().__init__(f"{what} at octet {at}: {why}")
        self.what = what
        self.at = at
        self.why = why
        self.reason = reason
        self.reaction = reaction
        self.pointer = pointer
        self.code = code
