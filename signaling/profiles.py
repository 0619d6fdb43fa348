"""What an operator laid down about nodes, found by name (RFC 5213 6.2)."""

from collections.abc import Iterable, Iterator

from signaling.settings import NodeProfile

EVERY_NODE = ""  # name of the profile of nodes without one


class Profiles:
    """Profiles by node."""

    def __init__(self, profiles: Iterable[NodeProfile], *, known_only: bool) -> None:
        self._profiles = {profile.node: profile for profile in profiles}
        self._default = self._profiles.get(EVERY_NODE, NodeProfile(node=EVERY_NODE))
        self._known_only = known_only

    def __iter__(self) -> Iterator[NodeProfile]:
        return iter(self._profiles.values())

    def of(self, node: str) -> NodeProfile:
        """The profile that holds for a node: its own, or the default one."""
        return self._profiles.get(node, self._default)

    def admits(self, node: str, gateway: str) -> bool:
        """Whether this gateway may extend IPv6 sessions of the node: what the checks of an update ask a profile."""
        profile = self.of(node)
        allowed = profile.gateways is None or gateway in profile.gateways
        return allowed and profile.ipv6 and not profile.refused and self.knows(node)

    def knows(self, node: str) -> bool:
        """Whether the node may be served at all: it has a profile, or nobody needs one."""
        return not self._known_only or (node in self._profiles and node != EVERY_NODE)
