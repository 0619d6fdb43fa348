"""The stage of `demo handover --pmip`: an LMA and two MAGs on `proxy_world`."""

from pathlib import Path

from router.demo.proxy_world import ANCHOR, GATEWAYS, NAMES, POOL, UNDERLAY, ProxyWorld
from router.demo.stage import Stage, Told, basics, new_key
from router.demo.toml import toml
from router.demo.topology import node_link_layer


class ProxyStage(Stage[ProxyWorld]):
    """One LMA, two MAGs, and nodes that both MAGs know."""

    def __init__(
        self,
        directory: Path,
        *,
        encapsulation: str = "udp",
        nodes: int = 1,
        local_routing: bool = False,
        hold_seconds: float = 1.0,
    ) -> None:
        super().__init__(directory, ProxyWorld(nodes=nodes))
        self._encapsulation = encapsulation
        self._local_routing = local_routing
        self._hold_seconds = hold_seconds
        self._keys = {name: new_key() for name in GATEWAYS}

    def told(self) -> dict[str, Told]:
        """The LMA first: MAGs register as soon as they have a node."""
        return {ANCHOR: Told("lma", self._anchor()), **{name: Told("mag", self._gateway(name)) for name in GATEWAYS}}

    def reached_by(self) -> dict[str, str]:
        """Prefix -> gateway, as the anchor forwards now."""
        ways = {row["prefix"]: row["ways"] for row in self.show(ANCHOR, "bindings") if row["path"] == "to gateway"}
        # a way is BID, label and address of the other end, with colons between them
        return {prefix: NAMES.get(way.split(":", 2)[2], way) for prefix, (way, *_) in ways.items()}

    def _anchor(self) -> str:
        peers = [{"name": name, "address": str(UNDERLAY[name]), "key": self._keys[name]} for name in GATEWAYS]
        return toml(
            {
                **basics(ANCHOR, self.directory, UNDERLAY[ANCHOR], self._encapsulation),
                "anchor": {"prefixes": [str(POOL)], "hold_seconds": self._hold_seconds},
                "store": {"url": f"sqlite://{self.directory / 'lma.db'}"},
                "peer": peers,
            }
        )

    def _gateway(self, name: str) -> str:
        return toml(
            {
                **basics(name, self.directory, UNDERLAY[name], self._encapsulation),
                "access": {"interfaces": ["acc0"]},
                "gateway": {"anchor": ANCHOR, "local_routing": self._local_routing},
                "peer": [{"name": ANCHOR, "address": str(UNDERLAY[ANCHOR]), "key": self._keys[name]}],
                "node": [
                    {"id": node_id(number), "link_layer": node_link_layer(number).hex(":")}
                    for number in range(len(self.world.nodes))
                ],
            }
        )


def node_id(number: int) -> str:
    """MN-Identifier of node number, counted from 0."""
    return f"mn{number + 1}@example.net"
