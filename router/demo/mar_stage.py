"""The stage of the first demo: a MAR on every router of `topology.World`, each a peer of all others."""

from itertools import combinations
from pathlib import Path

from router.demo.stage import Stage, Told, basics, new_key
from router.demo.toml import toml
from router.demo.topology import World, node_link_layer, pool, underlay_address

NODE_ID = "mn1@example.net"


class MarStage(Stage[World]):
    """Three MARs, or as many as wanted."""

    def __init__(self, directory: Path, *, encapsulation: str = "udp", mars: int = 3) -> None:
        super().__init__(directory, World(mars=mars))
        self._encapsulation = encapsulation
        self.store = f"sqlite://{directory / 'sessions.db'}"  # URL of where they keep the sessions
        self.anchor: dict[str, float] = {}  # of their table [anchor], beside the prefixes
        self._keys = {frozenset(pair): new_key() for pair in combinations(range(1, mars + 1), 2)}

    def told(self) -> dict[str, Told]:
        """One configuration for each MAR."""
        return {name: Told("mar", self._configuration(number)) for number, name in enumerate(self.world.mars, 1)}

    def _configuration(self, number: int) -> str:
        address = underlay_address(number)
        return toml(
            {
                **basics(f"mar{number}", self.directory, address, self._encapsulation),
                "access": {"interfaces": ["acc0"]},
                "anchor": {"prefixes": [str(pool(number))], **self.anchor},
                "store": {"url": self.store},
                "node": [{"id": NODE_ID, "link_layer": node_link_layer(0).hex(":")}],
                "peer": [
                    {
                        "name": f"mar{other}",
                        "address": str(underlay_address(other)),
                        "key": self._keys[frozenset((number, other))],
                    }
                    for other in range(1, len(self.world.mars) + 1)
                    if other != number
                ],
            }
        )
