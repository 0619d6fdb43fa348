"""Which prefixes a node brought along, and who anchors them: the list an acknowledgement of RFC 8885 carries.

Nothing of the RFC ties the addresses of a DLIF (69, 70) to one Previous MAAR (67) where there are several. Here the
order does: each 67 is followed by its own 69 and 70.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network

from signaling.dmm.dlif import Dlif
from signaling.iana import BindingAckFlag
from signaling.settings import Address
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.maar import DlifLinkLayerAddress, DlifLinkLocalAddress, PreviousMaar
from signaling.wire.options.option import Option


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """One prefix of a node, and the P-MAAR that anchors it."""

    prefix: IPv6Network
    anchor: Address
    dlif: Dlif | None = None


def distributed(ack: BindingAck, options: Iterable[Option] = ()) -> BindingAck:
    """The acknowledgement with the D flag, and with these options behind its own (RFC 8885 4.2)."""
    flags = ack.flags | BindingAckFlag.DISTRIBUTED_MOBILITY
    return replace(ack, flags=flags, options=(*ack.options, *options))


def options_of(previous: Iterable[Previous]) -> list[Option]:
    """The list as options."""
    options: list[Option] = []
    for item in previous:
        assert isinstance(item.anchor, IPv6Address)  # the option has room for no other
        options.append(PreviousMaar(address=item.anchor, prefix=item.prefix))
        options += item.dlif.options if item.dlif else ()
    return options


def previous_of(ack: BindingAck) -> list[Previous]:
    """The list that an acknowledgement carries; empty without the D flag, which says that these options count."""
    if BindingAckFlag.DISTRIBUTED_MOBILITY not in ack.flags:
        return []
    starts = [at for at, option in enumerate(ack.options) if isinstance(option, PreviousMaar)]
    ends = [*starts[1:], len(ack.options)]
    return [_previous(ack.options[start:end]) for start, end in zip(starts, ends, strict=False)]


def _previous(options: Sequence[Option]) -> Previous:
    first, *others = options
    assert isinstance(first, PreviousMaar)
    return Previous(prefix=first.prefix, anchor=first.address, dlif=dlif_of(others))


def dlif_of(options: Iterable[Option]) -> Dlif | None:
    """The first DLIF among options; None unless both of its addresses are there."""
    found = list(options)
    link_local = next((option.address for option in found if isinstance(option, DlifLinkLocalAddress)), None)
    link_layer = next((option.address for option in found if isinstance(option, DlifLinkLayerAddress)), None)
    return Dlif(link_local=link_local, link_layer=link_layer) if link_local and link_layer else None
