"""The play of `demo`: a stock host moves MAR1 -> MAR2 -> MAR3 -> MAR1 during a download that does not break."""

from ipaddress import IPv6Address, IPv6Network
from typing import Any

from router.demo.figures import strays, tunnelled
from router.demo.handover import SETTLED, Journey, Outcome, Sentences
from router.demo.mar_stage import MarStage
from router.demo.narrator import noticed
from router.demo.stage import Stay
from router.demo.topology import pool, underlay_address


def peer(event: dict[str, Any]) -> str:
    """mar2 for 2001:db8:ff:2::1, as the topology numbers its routers."""
    parts = str(event.get("peer", event.get("anchor", ""))).split(":")
    return f"mar{parts[3]}" if len(parts) > 3 else "?"


SENTENCES: Sentences = {
    "attached": noticed,
    "native": lambda event: f"serves {event['prefix']} natively",
    "tunnel-to-visited": lambda event: f"now tunnels {event['prefix']} to {peer(event)}",
    "tunnel-to-anchor": lambda event: f"asks {peer(event)} for {event['prefix']}, and will answer through the tunnel",
    "back-to-anchor": lambda event: f"gives what still comes for {event['prefix']} back to {peer(event)}",
    "prefix-visits": lambda event: f"has the consent of {peer(event)}: {event['prefix']} lives on, deprecated",
    "detached": lambda event: f"has lost the node ({event['reason']})",
    "registration-refused": lambda event: f"was refused {event['prefix']}: {event['status']}",
    "prefix-gone": lambda event: f"is done with {event['prefix']} of {peer(event)}",
}


class MarPlay(Journey[MarStage]):
    """One run of it."""

    picture = """\
            cn  2001:db8:cccc::80                 a correspondent: serves the download
             |
           core                                   a plain kernel router
        /    |    \\
    mar1   mar2   mar3                            three `python -m router --mar`
      :      :      :                             access links
      mn --> mn --> mn --> back to mar1           a stock host, nothing of ours on it
"""
    up = "three routers are up"
    places = ("mar1", "mar2", "mar3")
    sentences = SENTENCES

    def pool(self, router: str) -> IPv6Network:
        """Each MAR lends prefixes of its own."""
        return pool(self.stage.world.mars.index(router) + 1)

    def connected(self, stay: Stay) -> str:
        """From which address; it should need no tunnel."""
        assert stay.connection is not None
        right = f", through {stay.router} without a tunnel"
        wrong = f"  <-- not its address at {stay.router}, of {self.pool(stay.router)}"
        return f"from {stay.connection.source}{right if self._good(stay) else wrong}"

    def carried(self) -> str:
        """Which anchor tunnels which prefix to whom."""
        names = {str(underlay_address(number)): name for number, name in enumerate(self.stage.world.mars, 1)}
        carried = [
            f"{mar} carries {row['prefix']} to {names.get(row['peer'], row['peer'])}"
            for mar in self.stage.world.mars
            for row in self.stage.show(mar, "bindings")
            if row["path"] == "to visited router"
        ]
        return "; ".join(carried) or "no tunnel is needed"

    def judge(self, outcome: Outcome, end: float) -> None:
        """New connections use the router where the node is, and never a tunnel."""
        stays = self.stage.stays
        for item, stay in zip(outcome.handovers, stays[1:], strict=True):
            item["new_connection_prefix_ok"] = self._good(stay)
        for stay in stays:
            if not self._good(stay):
                outcome.broken.append(f"a new connection at {stay.router} did not use an address of {stay.router}")
        outcome.more["local_traffic_bypassed_tun"] = bypassed = self._bypassed(end)
        if not bypassed:
            outcome.broken.append("traffic of a router's own prefix went through a tunnel")

    def _good(self, stay: Stay) -> bool:
        source = stay.connection.source if stay.connection is not None else ""
        return bool(source) and IPv6Address(source) in self.pool(stay.router)

    def _bypassed(self, end: float) -> bool:
        """Whether packets of a router's own prefix stayed out of all tunnels while the node was there."""
        stays, inner = self.stage.stays, tunnelled(self.stage.captured("underlay"))
        ends = [stay.broken for stay in stays[1:]] + [end]
        return not any(
            strays(inner, self.pool(stay.router), stay.made + SETTLED, until)
            for stay, until in zip(stays, ends, strict=True)
        ) and bool(inner)


def summary(outcome: Outcome) -> str:
    """The figures for people."""
    bypassed = outcome.more["local_traffic_bypassed_tun"]
    return outcome.summary(
        "new connections",
        lambda item: "on the right prefix" if item["new_connection_prefix_ok"] else "WRONG PREFIX",
        f"local traffic {'never met a tunnel' if bypassed else 'WENT THROUGH A TUNNEL'}",
    )
