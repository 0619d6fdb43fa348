"""The rehearsal of Proxy Mobile IPv6: one anchor, one gateway."""

from ipaddress import IPv6Network

from router.rehearsal import ANCHOR, KEY, ROUTER, Rehearsal
from signaling.events import LinkDetached
from signaling.roles.lma import Lma
from signaling.roles.mag import Mag
from signaling.settings import LmaSettings, MagSettings, Peer

POOL = IPv6Network("2001:db8:1::/48")


class ProxyRehearsal(Rehearsal):
    """A node comes to a gateway, and leaves it."""

    def _cast(self) -> None:
        anchor = LmaSettings(
            address=ANCHOR, tunnel_mtu=1280, peers=(Peer(name="mag", address=ROUTER, key=KEY),), pools=(POOL,)
        )
        gateway = MagSettings(
            address=ROUTER, tunnel_mtu=1280, peers=(Peer(name="lma", address=ANCHOR, key=KEY),), anchor="lma"
        )
        self._add(ANCHOR, Lma(anchor), aggregated=True)
        self._add(ROUTER, Mag(gateway), aggregated=False)

    def _depart(self) -> None:
        gateway = self.drivers[ROUTER]
        gateway.feed(LinkDetached(node=self._sighting().node, reason="rehearsal"))
        self._carry()
        self._pass_time(gateway)
