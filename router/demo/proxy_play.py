"""The play of `demo handover --pmip`: a stock host moves between two MAGs and keeps its only address."""

import math
from collections.abc import Sequence
from ipaddress import IPv6Network
from statistics import median
from typing import Any

from router.demo.handover import Journey, Outcome, Sentences
from router.demo.narrator import Narrator, noticed
from router.demo.proxy_stage import ProxyStage
from router.demo.proxy_world import ANCHOR, GATEWAYS, NAMES, POOL
from router.demo.stage import Stay

FIRST, LOST = "rs_to_first_packet", "lost_per_move"  # of the summary


def peer(event: dict[str, Any]) -> str:
    """Name of the other end."""
    address = str(event.get("peer", event.get("anchor", "")))
    return NAMES.get(address, address)


SENTENCES: Sentences = {
    "attached": noticed,
    "detached": lambda event: f"has lost the node ({event['reason']})",
    "registration-refused": lambda event: f"was refused {event.get('prefix', 'a prefix')}: {event.get('status')}",
    "tunnel-to-visited": lambda event: f"now tunnels {event['prefix']} to {peer(event)}",
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
    up = "an anchor and two gateways are up"
    sentences = SENTENCES

    def __init__(
        self, stage: ProxyStage, narrator: Narrator, *, stay: float, moves: int, record: bool = False
    ) -> None:
        super().__init__(stage, narrator, stay=stay, record=record)
        self.route: Sequence[str] = [GATEWAYS[number % len(GATEWAYS)] for number in range(moves + 1)]

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
        outcome.more[FIRST] = spread(outcome)
        outcome.more[LOST] = lost(outcome)
        for stay in stays:
            if not self._kept(stay):
                outcome.broken.append(f"a new connection at {stay.router} did not use {self.stage.address}")
        if others:
            outcome.broken.append(f"the node has other addresses: {', '.join(others)}")

    def _kept(self, stay: Stay) -> bool:
        return stay.connection is not None and stay.connection.source == str(self.stage.address)


def spread(outcome: Outcome) -> dict[str, float]:
    """Median and 95th percentile of the handovers that came about, ms; empty: there was none."""
    times = sorted(item["rs_to_first_packet_ms"] for item in outcome.handovers if item["rs_to_first_packet_ms"])
    if not times:
        return {}
    return {"median_ms": median(times), "p95_ms": times[math.ceil(0.95 * len(times)) - 1]}


def lost(outcome: Outcome) -> dict[str, float]:
    """Datagrams lost in a move: median, and in the worst one; empty: there was no move."""
    counts = [item["lost_packets"] for item in outcome.handovers]
    return {"median": median(counts), "most": max(counts)} if counts else {}


def summary(outcome: Outcome) -> str:
    """The figures for people."""
    figures = ", ".join(f"{name.removesuffix('_ms')} {value:.2f} ms" for name, value in outcome.more[FIRST].items())
    losses = ", ".join(f"{name} {value:g}" for name, value in outcome.more[LOST].items())
    return outcome.summary(
        "address",
        lambda item: "kept" if item["address_kept"] else "CHANGED",
        f"to first packet: {figures}; datagrams lost in a move: {losses}",
        f"the node is {outcome.more['address']} everywhere",
    )
