"""The stage of `demo multipath`: an LMA, and a MAG with an uplink for each wire of `branch`; policies change live.

Rules are written as the anchor sends: source is the correspondent, destination a host of the branch; the MAG turns
them around for what it sends. So `source_port = 7001` is a connection to port 7001 of the correspondent, both ways.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from router.demo.branch import ACCESSES, ANCHOR, ANCHOR_ADDRESS, GATEWAY, HOSTS, POOL, WLAN, Access, Branch
from router.demo.figures import Stream, stream
from router.demo.lab import PROJECT
from router.demo.stage import Stage, Told, basics, new_key
from router.demo.toml import toml
from router.demo.topology import CN_ADDRESS, node_link_layer
from router.demo.traffic import Program
from router.errors import RouterError

PATHS_WITHIN = 10.0  # s for all paths to be registered, and found to be up
POLICY = "default"  # of the gateway, for all its nodes
FIRST_WITHIN = 5.0  # s for a datagram to arrive
QUIET = 0.3  # s without a datagram after which none is on its way any more
DOWN_PORT, UP_PORT = 7002, 7003  # UDP: of the host; of the correspondent
Rule = dict[str, Any]  # a [[flow]]

DOWN_FLOW: Rule = {"protocol": "udp", "destination_port": DOWN_PORT}
UP_FLOW: Rule = {"protocol": "udp", "source_port": UP_PORT}
TCP_FLOW: Rule = {"protocol": "tcp"}


class BranchStage(Stage[Branch]):
    """Routers, hosts h1 and h2 that are attached all the time, and a way to change what their flows do."""

    def __init__(
        self,
        directory: Path,
        *,
        rules: Sequence[Rule] = (),
        weights: Mapping[str, int] | None = None,
        paths: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """rules: [[flow]] tables at the start. weights: of the uplinks, by name of the access; 1 if not there.

        paths: the table [paths] of both ends.
        """
        super().__init__(directory, Branch(seed=seed))
        self.rules = list(rules)
        self.weights = dict(weights or {})
        self._probing = dict(paths or {})
        self._key = new_key()

    def told(self) -> dict[str, Told]:
        """The LMA knows all addresses of the MAG; what flows do is told to the MAG alone, which tells the LMA."""
        return {ANCHOR: Told("lma", self._anchor()), GATEWAY: Told("mag", self.gateway_text())}

    def _anchor(self) -> str:
        addresses = [str(access.gateway_address) for access in ACCESSES]
        return toml(
            {
                **basics(ANCHOR, self.directory, ANCHOR_ADDRESS, "gre"),
                "anchor": {"prefixes": [str(POOL)]},
                "store": {"url": f"sqlite://{self.directory / 'lma.db'}"},
                "paths": self._probing,
                "labels": {access.name: access.label for access in ACCESSES},
                "peer": [{"name": GATEWAY, "address": addresses[0], "addresses": addresses[1:], "key": self._key}],
            }
        )

    def gateway_text(self) -> str:
        """The configuration of the MAG, with the rules and weights of now."""
        return toml(
            {
                **basics(GATEWAY, self.directory, WLAN.gateway_address, "gre"),
                "access": {"interfaces": ["acc0"]},
                "gateway": {"anchor": ANCHOR},
                "paths": self._probing,
                "labels": {access.name: access.label for access in ACCESSES},
                "uplink": [self._uplink(access) for access in ACCESSES],
                "peer": [{"name": ANCHOR, "address": str(ANCHOR_ADDRESS), "key": self._key}],
                "node": [
                    {"id": f"{name}@example.net", "link_layer": node_link_layer(number).hex(":")}
                    for number, name in enumerate(HOSTS)
                ],
                "flow": self.rules,
            }
        )

    def _uplink(self, access: Access) -> dict[str, Any]:
        return {
            "interface": access.interface,
            "bid": access.binding_id,
            "label": access.name,
            "att": access.technology,
            "weight": self.weights.get(access.name, 1),
        }

    # --- paths and policies ---

    def attach_hosts(
        self, accesses: Sequence[Access] = ACCESSES, *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Give both hosts their link; wait until they have addresses and these paths are up. Raises RouterError."""
        for name in HOSTS:
            self.world.attach(GATEWAY, name)
        for name in HOSTS:
            self.wait_for_address(POOL, name, meanwhile=meanwhile)
        self.wait_for_paths({access.name: "up" for access in accesses})

    def paths(self, router: str = GATEWAY) -> dict[str, str]:
        """State of each path, by the name of its access, as a router sees it."""
        names: dict[Any, str] = {access.binding_id: access.name for access in ACCESSES}
        return {names.get(row["bid"], str(row["bid"])): str(row["state"]) for row in self.show(router, "paths")}

    def wait_for_paths(self, wanted: Mapping[str, str], within: float = PATHS_WITHIN) -> float:
        """Wait until both routers see the paths so; how long that took, s. Raises RouterError."""
        begin = time.monotonic()
        while any(self.paths(router) != wanted for router in (GATEWAY, ANCHOR)):
            if time.monotonic() > begin + within:
                seen = {router: self.paths(router) for router in (GATEWAY, ANCHOR)}
                raise RouterError(f"paths are {seen} after {within:g} s, expected {dict(wanted)}")
            time.sleep(0.02)  # whoever asks more often disturbs what is asked
        return time.monotonic() - begin

    def set_policy(self, *rules: Rule) -> str:
        """Change what flows do, with the command a user would give; that command. Raises RouterError."""
        self.rules = list(rules)
        file = self.directory / "policy.toml"
        file.write_text(toml({"flow": self.rules}))
        words = ("policy", "--socket", str(self.socket_file(GATEWAY)), "set", POLICY, str(file))
        command = [sys.executable, "-m", "router", *words]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=20.0)
        if done.returncode:
            raise RouterError(f"policy set: {done.stderr.strip() or done.stdout.strip()}")
        return f"python -m router policy --name {GATEWAY} set {POLICY} {file.name}"

    # --- traffic ---

    def serve(self) -> None:
        """Let the correspondent answer TCP."""
        self.program("server", "cn", "tcp-serve").wait_for("ready")

    def start_streams(self, host: str = HOSTS[0], *, rate: int = 1000) -> "Streams":
        """A numbered datagram each so often (per s) to a host, and from it."""
        return Streams(self, host, rate)

    def bulk(self, seconds: float, host: str = HOSTS[0], *, settle: float = 0.0) -> float:
        """Mbit/s of one download as fast as it goes. settle: s at its beginning that do not count."""
        name = f"bulk {len(self.programs)}"
        get = self.program(name, host, "tcp-get", str(CN_ADDRESS), "--rate", "0", "--seconds", str(seconds + settle))
        connected = get.wait_for("connected")
        done = get.wait_for("done", seconds + settle + PATHS_WITHIN)
        if done["error"] or done["corrupt"]:
            raise RouterError(f"a download broke: {done['error'] or 'wrong octets'}")
        return rate_between(get, connected["time"] + settle, done)


class Streams:
    """Datagrams to a host and from it, since it was made: the first of each have arrived by then."""

    def __init__(self, stage: BranchStage, host: str, rate: int) -> None:
        address = stage.wait_for_address(POOL, host)
        number = len(stage.programs)
        ends = {"down": ("cn", host, str(address), DOWN_PORT), "up": (host, "cn", str(CN_ADDRESS), UP_PORT)}
        self.sinks: dict[str, Program] = {}
        self._senders: dict[str, Program] = {}
        for way, (sender, receiver, to, port) in ends.items():
            self.sinks[way] = stage.program(f"sink {way} {number}", receiver, "udp-sink", str(port))
            self.sinks[way].wait_for("ready")
            about = ("udp-send", to, str(port), "--rate", str(rate))
            self._senders[way] = stage.program(f"sender {way} {number}", sender, *about)
        for way in ends:
            self._wait_for_first(way)  # a sink counts from the first that comes: none must overtake it

    def received(self, way: str) -> int:
        """Datagrams so far."""
        return sum(report["received"] for report in self.sinks[way].reports("interval"))

    def stop(self) -> dict[str, Stream]:
        """End them; what became of the datagrams, "down" and "up"."""
        sent = {way: sender.stop() for way, sender in self._senders.items()}
        for way in self.sinks:
            self._wait_until_quiet(way)
        return {way: stream(sent[way], sink.stop()) for way, sink in self.sinks.items()}

    def _wait_for_first(self, way: str) -> None:
        deadline = time.monotonic() + FIRST_WITHIN
        while not self.received(way):
            if time.monotonic() > deadline:
                raise RouterError(f"no datagram came {way} within {FIRST_WITHIN:g} s")
            time.sleep(0.02)

    def _wait_until_quiet(self, way: str) -> None:
        seen, since = -1, time.monotonic()
        while time.monotonic() < since + QUIET:
            if (now := self.received(way)) != seen:
                seen, since = now, time.monotonic()
            time.sleep(0.02)


def rate_between(get: Program, begin: float, done: Mapping[str, Any]) -> float:
    """Mbit/s of a download from some time (CLOCK_REALTIME, s) to its end, as its progress tells."""
    before = [report for report in get.reports("progress") if report["time"] <= begin]
    octets, since = (before[-1]["octets"], before[-1]["time"]) if before else (0, begin)
    return float((done["octets"] - octets) * 8e-6 / (done["time"] - since))
