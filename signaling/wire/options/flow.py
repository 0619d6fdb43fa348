"""Flows and the bindings they take (RFC 6089 4.2).

    0               2               4               6               8
    | Type | Length | FID           | FID-PRI       | Rsvd | Status | sub-options: binding reference, selector

Sub-options are padded by where they stand in the message, like options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from signaling.errors import MalformedMessage, UnencodableMessage
from signaling.iana import FlowIdentificationStatus, FlowSuboption, OptionType
from signaling.wire import traffic_selector
from signaling.wire.codec import MAX_OPTION_DATA, NUMBER, NUMBERS_16, OCTETS, Layout, named, padding
from signaling.wire.options.option import Option, frames, register
from signaling.wire.traffic_selector import TrafficSelector, UnreadableSelector


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSummary(Option):
    """Flows to be kept as they are (RFC 6089 4.2.2)."""

    TYPE: ClassVar[int] = OptionType.FLOW_SUMMARY
    LAYOUT: ClassVar[Layout] = Layout("RFC 6089 4.2.2", "", flow_ids=NUMBERS_16)

    flow_ids: tuple[int, ...]  # 16 bits each


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowIdentification(Option):
    """One flow: which packets, and which bindings they take (RFC 6089 4.2).

    Sub-options not known here are skipped. A selector we cannot use is an UnreadableSelector, so that the
    answer can name the flow (status 130 or 133).
    """

    TYPE: ClassVar[int] = OptionType.FLOW_IDENTIFICATION
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 6089 4.2",
        "HHxB",
        flow_id=NUMBER,
        priority=NUMBER,
        status=named(FlowIdentificationStatus),
        _suboptions=OCTETS,
    )

    flow_id: int  # FID, 16 bits, not 0
    priority: int  # FID-PRI, 16 bits, not 0; lower wins
    status: FlowIdentificationStatus | int = FlowIdentificationStatus.FLOW_BINDING_SUCCESSFUL
    binding_ids: tuple[int, ...] | None = None  # 16 bits each; None: no binding reference
    selector: TrafficSelector | UnreadableSelector | None = None

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Make the option from its data. Raises ValueError."""
        values = cls.LAYOUT.read(data)
        values |= _read_suboptions(values.pop("_suboptions"))
        return cls(**values)

    def write(self, position: int) -> bytes:
        """Data without Type and Length. position: octets from the start of the message to data[0].

        Raises UnencodableMessage.
        """
        octets = bytearray(self.LAYOUT.write(self))
        if self.binding_ids is not None:
            reference = NUMBERS_16.write(self.binding_ids)
            if len(reference) > MAX_OPTION_DATA:
                raise UnencodableMessage(f"FlowIdentification: {len(self.binding_ids)} bindings, at most 127")
            octets += bytes([FlowSuboption.BINDING_REFERENCE, len(reference)]) + reference
        if self.selector is not None:
            selector = traffic_selector.write(self.selector)
            gap = self.selector.alignment.gap(position + len(octets))
            # a peer may send an option too full for our padding; echoing it unaligned beats not answering
            if len(octets) + gap + 2 + len(selector) <= MAX_OPTION_DATA:
                octets += padding(gap)
            octets += bytes([FlowSuboption.TRAFFIC_SELECTOR, len(selector)]) + selector
        return bytes(octets)

    @property
    def _suboptions(self) -> bytes:
        return b""  # write() appends them: their padding depends on where they stand


def _read_suboptions(octets: bytes) -> dict[str, Any]:
    values: dict[str, Any] = {}
    try:
        found = frames(octets, 0)
    except MalformedMessage as error:
        raise ValueError(f"sub-options: {error.why}") from error
    for number, start, end in found:
        if number == FlowSuboption.BINDING_REFERENCE:
            _once(values, "binding_ids", NUMBERS_16.read(octets[start:end]))
        elif number == FlowSuboption.TRAFFIC_SELECTOR:
            _once(values, "selector", traffic_selector.read(octets[start:end]))
    return values


def _once(values: dict[str, Any], name: str, value: object) -> None:
    if name in values:
        raise ValueError(f"{name} twice, RFC 6089 4.2.1 says at most once")
    values[name] = value
