"""Gateways and the real anchor on one clock: what one end says, the other end reads.

        mn1 mn2                  wire: loses, delays, cut per address
         |                      /
    --- lan0 --- mag1 --wlan----------------- lma
                  \\-------lte---------------/
    --- lan0 --- mag2 -----------------------/
"""

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

from signaling import actions
from signaling.actions import Action, Held, TowardAnchor, TowardVisited
from signaling.events import ClockStepped, DatagramReceived
from signaling.roles.lma import Lma
from signaling.settings import Address, LmaSettings, PathCare, Peer, Uplink
from tests.signaling.pmip.pmip_world import ADDRESSES, KEY, LMA, WALL, World

POOL = IPv6Network("2001:db8:1000::/40")


class Domain(World):
    """A world whose anchor is one of ours."""

    def __init__(
        self, *, mags: int = 1, uplinks: tuple[Uplink, ...] = (), lma: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        self.anchor_paths: dict[object, actions.Path] = {}
        self.anchor_done: list[Action] = []
        more: dict[str, tuple[Address, ...]] = {"mag1": tuple(ADDRESSES.values())}
        peers = tuple(
            Peer(name=name, address=self._address_of(name), key=KEY, addresses=more.get(name, ()))
            for name in (f"mag{number}" for number in range(1, mags + 1))
        )
        values: dict[str, Any] = {
            "pools": (POOL,),
            "delegated_pools": (IPv6Network("2001:db8:d000::/40"),),
            "ipv4_pools": (IPv4Network("192.0.2.0/24"),),
            "heartbeat_interval": 1e6,
        }
        care = PathCare(idle_interval=10.0)  # hours of registrations are cheap when probes are few
        values["paths"] = care
        self.anchor = Lma(LmaSettings(address=LMA, tunnel_mtu=1460, peers=peers, **(values | (lma or {}))))
        self.anchor.handle(ClockStepped(wall_minus_monotonic=WALL), 0.0)
        super().__init__(mags=mags, uplinks=uplinks, **({"paths": care} | settings))

    def faults(self) -> list[str]:
        """What the two ends disagree on, once the world has settled."""
        found: list[str] = []
        there = {prefix: path for prefix, path in self.anchor_paths.items() if not isinstance(path, Held)}
        here: dict[object, set[Address]] = {}
        for name, gateway in self.gateways.items():
            for prefix, path in gateway.paths.items():
                if isinstance(path, TowardAnchor):
                    ends = {tunnel.local or self.address[name] for tunnel in path.tunnels}
                    found += [f"{prefix} is at two gateways"] if prefix in here else []
                    here[prefix] = ends
        for prefix in here.keys() | there.keys():
            path = there.get(prefix)
            ends = {tunnel.remote for tunnel in path.tunnels} if isinstance(path, TowardVisited) else set()
            if ends != here.get(prefix, set()):
                found.append(f"{prefix}: anchor sends to {ends}, gateways take it by {here.get(prefix)}")
        return found

    @staticmethod
    def _address_of(name: str) -> Address:
        return IPv6Address(f"2001:db8:a{name[3:]}::1")

    def _reach_anchor(self, name: str, source: Address, action: actions.Send) -> None:
        event = DatagramReceived(octets=action.octets, source=source, destination=action.destination)
        self._perform_anchor(self.anchor.handle(event, self.now))

    def _perform_anchor(self, todo: list[Action]) -> None:
        self.anchor_done += todo
        for action in todo:
            if isinstance(action, actions.Bind):
                self.anchor_paths[action.prefix] = action.path
            elif isinstance(action, actions.Unbind):
                self.anchor_paths.pop(action.prefix, None)
            elif isinstance(action, actions.Send) and action.destination not in self.cut:
                source = action.source or LMA
                self._later(
                    lambda action=action, source=source: self.deliver(  # type: ignore[misc]
                        action.octets, source, action.destination
                    )
                )

    def _next(self) -> float | None:
        times = [super()._next(), self.anchor.next_wake]
        return min((at for at in times if at is not None), default=None)

    def _step(self) -> None:
        due = self.anchor.next_wake
        if due is not None and due <= self.now and not (self._todo and self._todo[0][0] <= self.now):
            self._perform_anchor(self.anchor.wake(self.now))
            return
        super()._step()
