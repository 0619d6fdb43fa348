"""The MTU that nodes are told: as links and tunnels have it now, and never more than at the start."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from router.links.rtnetlink import Link, LinkChanged
from router.links.rtnetlink_constants import OperState
from router.tunnel_mtu import TunnelMtu
from signaling.events import TunnelMtuChanged
from signaling.settings import Uplink

OUTER = 48  # octets
UPLINKS = (Uplink(interface="wan0", binding_id=1), Uplink(interface="wan1", binding_id=2))


def link(name: str, mtu: int) -> Link:
    return Link(
        index=1,
        name=name,
        mtu=mtu,
        link_layer=bytes(6),
        up=True,
        carrier=True,
        operstate=OperState.UP,
        kind="",
        lower=0,
        master=0,
    )


@dataclass
class Bench:
    """A machine with two links to the others, whose clock is turned by hand."""

    uplinks: tuple[Uplink, ...] = ()
    learned: int | None = None
    told: list[int] = field(default_factory=list)
    timers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        machine: Any = SimpleNamespace(
            config=SimpleNamespace(uplinks=self.uplinks),
            underlay=SimpleNamespace(interface="wan0"),
            tunnel_mtu=1500 - OUTER,
            tunnel_mtu_on=lambda mtu: mtu - OUTER,
            netlink=SimpleNamespace(links=lambda: [link("wan0", 1500), link("wan1", 1500), link("lan0", 1300)]),
            network=SimpleNamespace(least_mtu=lambda: self.learned),
        )
        self.watch = TunnelMtu(machine, self.hear)
        loop: Any = self
        self.watch.serve(loop)

    def hear(self, event: TunnelMtuChanged) -> None:
        self.told.append(event.mtu)

    def call_later(self, delay: float, call: Any, *arguments: Any) -> Any:
        timer = SimpleNamespace(call=lambda: call(*arguments), cancel=lambda: self.timers.remove(timer))
        self.timers.append(timer)
        return timer

    def turn(self) -> None:
        self.timers.pop(0).call()

    def change(self, name: str, mtu: int, *, gone: bool = False) -> None:
        self.watch.kernel_changed(LinkChanged(link=link(name, mtu), gone=gone))


def test_nothing_is_told_while_nothing_changes() -> None:
    bench = Bench()
    bench.turn()
    bench.change("wan0", 1500)
    assert bench.told == []


def test_a_narrower_underlay_is_told_and_a_wider_one_up_to_that_of_the_start() -> None:
    bench = Bench()
    bench.change("wan0", 1400)
    bench.change("wan0", 9000)
    assert bench.told == [1400 - OUTER, 1500 - OUTER]


def test_other_links_are_of_no_concern() -> None:
    bench = Bench()
    bench.change("lan0", 1290)
    bench.change("wan1", 1400)
    assert bench.told == []


def test_of_several_uplinks_the_narrowest_decides_while_it_is_there() -> None:
    bench = Bench(uplinks=UPLINKS)
    bench.change("wan1", 1400)
    bench.change("wan0", 1450)
    bench.change("wan1", 1400, gone=True)
    assert bench.told == [1400 - OUTER, 1450 - OUTER]


def test_what_a_tunnel_has_learned_is_told_until_it_is_forgotten() -> None:
    bench = Bench()
    bench.learned = 1352
    bench.turn()
    bench.learned = None
    bench.turn()
    assert bench.told == [1352, 1500 - OUTER]


def test_nodes_are_never_told_less_than_ipv6_allows() -> None:
    bench = Bench()
    bench.learned = 1232
    bench.turn()
    assert bench.told == [1280]


def test_when_closed_it_looks_no_more() -> None:
    bench = Bench()
    bench.watch.close()
    assert bench.timers == []
