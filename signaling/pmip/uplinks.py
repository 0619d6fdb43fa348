"""The uplinks of a gateway: which paths to the anchor there are at this moment (RFC 8278 3).

An uplink is a path while it has a carrier, an address, and an anchor that can be reached in the family of that
address. A packet always leaves with the address of its uplink as source: other sources are filtered on the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from signaling.door import addresses_of
from signaling.iana import AccessTechnologyType
from signaling.settings import Address, Peer, Uplink


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkPath:
    """One path to the anchor. binding_id 0: the only one there is, without a name of its own."""

    anchor: Address
    care_of: Address  # the Proxy-CoA of what is registered by it
    source: Address | None = None  # None: the address of this router, which care_of then is
    binding_id: int = 0
    label: int = 0
    weight: int = 1
    technology: AccessTechnologyType = AccessTechnologyType.IEEE_802_3  # If-ATT

    def is_way_of(self, other: "UplinkPath") -> bool:
        """Whether packets go the same way by the other one, whatever label and weight say of it."""
        return replace(self, label=other.label, weight=other.weight) == other


class Uplinks:
    """The paths that can be used now, in the order of the configuration."""

    def __init__(self, uplinks: Sequence[Uplink], address: Address) -> None:
        """No uplinks: one path, from address. Nothing is live before it leads anywhere."""
        self.configured = tuple(uplinks)
        self._anchors: tuple[Address, ...] = ()
        self._address = address
        self._carriers: dict[str, Address] = {}  # interface -> its address

    @property
    def several(self) -> bool:
        """Whether paths have binding identifiers: the anchor is asked for multipath."""
        return bool(self.configured)

    def up(self, interface: str, address: Address) -> None:
        """An interface has this address; one that is configured otherwise is no path."""
        self._carriers[interface] = address

    def down(self, interface: str) -> None:
        """An interface lost its carrier or its address."""
        self._carriers.pop(interface, None)

    def configure(self, uplinks: Sequence[Uplink]) -> None:
        """Take other uplinks; those whose interface has an address already are live at once."""
        self.configured = tuple(uplinks)

    def lead_to(self, anchor: Peer | None) -> None:
        """The anchor, with the addresses it has now. None: the configuration names no peer; then nothing is live."""
        self._anchors = () if anchor is None else addresses_of(anchor)

    def live(self) -> dict[int, UplinkPath]:
        """What can be used now, by BID, best first."""
        if not self.several:
            anchor = self._anchor_for(self._address)
            return {} if anchor is None else {0: UplinkPath(anchor=anchor, care_of=self._address)}
        paths = (self._path(uplink) for uplink in self.configured)
        return {path.binding_id: path for path in paths if path is not None}

    def _path(self, uplink: Uplink) -> UplinkPath | None:
        address = self._carriers.get(uplink.interface)
        if address is None or uplink.address not in (None, address):
            return None
        anchor = self._anchor_for(address)
        if anchor is None:
            return None
        return UplinkPath(
            anchor=anchor,
            care_of=address,
            source=address,
            binding_id=uplink.binding_id,
            label=uplink.label,
            weight=uplink.weight,
            technology=uplink.technology,
        )

    def _anchor_for(self, address: Address) -> Address | None:
        return next((anchor for anchor in self._anchors if anchor.version == address.version), None)
