"""The play of `demo handover --pmip`: a stock host moves between two MAGs and keeps its only address."""

from ipaddress import IPv6Network
from typing import Any

from router.demo.handover import Journey, Outcome, Sentences
from router.demo.narrator import noticed
from router.demo.proxy_stage import ProxyStage
from router.demo.proxy_world import ANCHOR, GATEWAYS, NAMES, POOL
from router.demo.stage import Stay


def peer(event: dict[str, Any]) -> str:
    """Name of the other end."""
    address = str(event.get("peer", event.get("anchor", "")))
    return NAMES.get(address, address)


SENTENCES: Sentences = {
    "attached": noticed,
    "detached": lambda event: f"has lost the node ({event['reason']})",
    "registration-refused": lambda event: f"was refused {event.get('prefix', 'a prefix')}: {event.get('status')}",
    "tunnel-to-visited": lambda event: f"now tunnels {event['prefix']} to {peer(event)}",
    "back-to-anchor": lambda event: f"gives what still comes for {event['prefix']} back to {peer(event)}",
    "tunnel-to-anchor": lambda event: f"tunnels what {event['prefix']} sends to {peer(event)}",
}


class ProxyPlay(Journey[ProxyStage]):
    """One run of it."""

    picture = """\
            cn  2001:db8:cccc::80                 a correspondent: serves the download
             |
           core ---- lma                          `python -m router --lma`, anchor of every address
          /    \\
       mag1    mag2                               two `python -m router --mag`
         :      :                                 access links
        mn <--> mn                                a stock host, nothing of ours on it
"""
    places = GATEWAYS
    up = "an anchor and two gateways are up"
    sentences = SENTENCES

    def pool(self, router: str) -> IPv6Network:
        """The LMA's, wherever the node is."""
        return POOL

    def connected(self, stay: Stay) -> str:
        """From which address; it should be the one it always had."""
        assert stay.connection is not None
        wrong = "" if self._kept(stay) else f"  <-- it was {self.stage.address}"
        return f"from {stay.connection.source}, through {stay.router} and the anchor{wrong}"

    def carried(self) -> str:
        """Where the anchor sends which prefix."""
        carried = [f"{ANCHOR} carries {prefix} to {name}" for prefix, name in self.stage.reached_by().items()]
        return "; ".join(carried) or "no tunnel stands"

    def judge(self, outcome: Outcome, end: float) -> None:
        """The node has one address, whatever happens."""
        stays = self.stage.stays
        for item, stay in zip(outcome.handovers, stays[1:], strict=True):
            item["address_kept"] = self._kept(stay)
        others = sorted({str(address) for address in self.stage.addresses() if address != self.stage.address})
        outcome.more["address"] = str(self.stage.address)
        for stay in stays:
            if not self._kept(stay):
                outcome.broken.append(f"a new connection at {stay.router} did not use {self.stage.address}")
        if others:
            outcome.broken.append(f"the node has other addresses: {', '.join(others)}")

    def _kept(self, stay: Stay) -> bool:
        return stay.connection is not None and stay.connection.source == str(self.stage.address)


def summary(outcome: Outcome) -> str:
    """The figures for people."""
    return outcome.summary(
        "address",
        lambda item: "kept" if item["address_kept"] else "CHANGED",
        f"the node is {outcome.more['address']} everywhere",
    )
