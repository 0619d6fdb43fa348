"""The Proxy Binding Update as the routers and the CMD of Dynamic Mobility Anchoring send it: one order of options."""

from collections.abc import Iterable

from signaling.iana import BindingUpdateFlag
from signaling.update_request import identifier_of
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeLinkLayerIdentifier
from signaling.wire.options.option import Option
from signaling.wire.options.time import Timestamp

ACKNOWLEDGED_PROXY = BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION


def proxy_update(
    node: str,
    prefixes: Iterable[Option],
    *,
    sequence_number: int,
    lifetime: int,
    handoff: int,
    technology: int,
    link_layer: bytes,
    timestamp: int,
    distributed: bool = False,
    more: Iterable[Option] = (),
) -> BindingUpdate:
    """A PBU (RFC 5213 6.9.1.5). lifetime: s; timestamp: 1/65536 s; more: options behind all others.

    distributed: with the D flag (RFC 8885 4.1).
    """
    options: list[Option] = [
        identifier_of(node),
        *prefixes,
        HandoffIndicatorOption(indicator=handoff),
        AccessTechnologyTypeOption(technology=technology),
    ]
    if any(link_layer):  # an identifier of zeros is not valid: left out (RFC 5213 6.9.1.1)
        options.append(MobileNodeLinkLayerIdentifier(identifier=link_layer))
    return BindingUpdate(
        sequence_number=sequence_number,
        flags=ACKNOWLEDGED_PROXY | BindingUpdateFlag.DISTRIBUTED_MOBILITY if distributed else ACKNOWLEDGED_PROXY,
        lifetime=lifetime,
        options=(*options, Timestamp(value=timestamp), *more),
    )
