"""How many flow rules one Proxy Binding Update can say: it cannot be longer than a Mobility Header (RFC 6275 6.1.1).

All rules of a session go into each update that changes one (RFC 6089 5.3.4: what is left out is removed), so what does
not fit together can never be told to the anchor, and is to be refused where it is laid down.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address

from signaling.actions import TunnelEnd
from signaling.errors import UnencodableMessage
from signaling.flow_bindings import options_of
from signaling.flow_rules import FlowRule
from signaling.wire.codec import MAX_MOBILITY_HEADER
from signaling.wire.options.option import append_options

REST = 384  # octets of an update for all else: names of some 150 octets, prefixes, addresses, the authenticator
ROOM = MAX_MOBILITY_HEADER - REST  # octets
ANYWHERE = IPv6Address(0)


def why_too_long(rules: Sequence[FlowRule], uplinks: Iterable[tuple[int, int]]) -> str | None:
    """Why no update can say these rules, and how many of them it can; None: it can. uplinks: BID and label of each."""
    ways = [TunnelEnd(remote=ANYWHERE, binding_id=binding_id, label=label) for binding_id, label in uplinks]
    if _octets(rules, ways) <= ROOM:
        return None
    fitting = bisect_right(range(1, len(rules) + 1), ROOM, key=lambda count: _octets(rules[:count], ways))
    return (
        f"{len(rules)} rules do not fit into one binding update, which has {ROOM} octets for them (RFC 6275 6.1.1): "
        f"expected no more than the first {fitting} (one that names no family counts as two)"
    )


def _octets(rules: Iterable[FlowRule], ways: Sequence[TunnelEnd]) -> int:
    """What the rules take over all these ways; more than any message where one does not even fit into its option."""
    octets = bytearray()
    try:
        append_options(octets, options_of(rules, ways))
    except UnencodableMessage:
        return MAX_MOBILITY_HEADER + 1
    return len(octets)
