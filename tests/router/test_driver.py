"""One role at work: what it asks for is done in order, at its time, and what a peer is told is durable."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from engine import EngineError
from router import driver as module
from router.driver import PERFORM, Driver, Line
from router.errors import RouterError
from signaling import actions
from signaling.actions import Action
from signaling.deadlines import SOON
from signaling.dma.session import Session, State
from signaling.events import ClockStepped, Event, LinkLost
from signaling.pmip.probe import Probe, options_of
from signaling.pmip.saved_binding import SavedBinding
from signaling.settings import Wants, WayState
from signaling.wire.binding_refresh import BindingRefreshRequest
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.mobility_header import encode
from signaling.wire.neighbor import NeighborSolicitation, RouterAdvertisement
from tests.eventually import until
from tests.on_loop import sync

PREFIX = IPv6Network("2001:db8:a1:1::/64")
PEER = IPv6Address("2001:db8::2")
NODE = "mn1@example.net"
EVENT = LinkLost(interface="eth1")
SESSION = Session(
    node=NODE,
    prefix=PREFIX,
    anchor=PEER,
    state=State.LOCAL,
    care_of=PEER,
    link_layer=b"",
    technology=4,
    timestamp=0,
    expires=0.0,
    valid_lifetime=7200,
)
REQUEST = BindingRefreshRequest()
SEND = actions.Send(octets=b"first", message=REQUEST, destination=PEER)
SEND_TOO = actions.Send(octets=b"second", message=REQUEST, destination=PEER)
BIND = actions.Bind(prefix=PREFIX, path=actions.Held(), node=NODE)
UNBIND = actions.Unbind(prefix=PREFIX, node=NODE)
SAVE = actions.SaveSession(session=SESSION)
SAVED = SavedBinding(
    number=7,
    node=NODE,
    gateway="mag1",
    link_layer=b"",
    technology=4,
    service="",
    link_local=b"",
    prefixes=(PREFIX,),
    ipv4_home=None,
    delegated=(),
    gre_keys=None,
    care_ofs=(),
    flows=b"",
)
EXPECT = actions.ExpectNode(node=NODE, interface="eth1", link_layer=b"", link_local=None)
SAVE_BINDING = actions.SaveBinding(binding=SAVED)
FORGET_BINDING = actions.ForgetBinding(number=7)


class FakeRole:
    """Answers every event, and every wake-up, with the actions it was given."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.todo: list[Action] = []
        self.woken: list[float] = []
        self.next_wake: float | None = None

    def handle(self, event: Event, now: float) -> list[Action]:
        self.heard.append(event)
        return [] if isinstance(event, ClockStepped) else self.todo

    def wake(self, now: float) -> list[Action]:
        self.woken.append(now)
        self.next_wake = None
        return self.todo


class Recorder:
    """Stands for network, sockets, links and sessions: writes down what is asked of it, in one list."""

    def __init__(self, done: list[tuple[object, ...]]) -> None:
        self.done = done
        self.futures: list[asyncio.Future[None]] = []
        self.answer: str | None = None

    def read(self) -> None:
        """Nothing waits in the sockets."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def called(*arguments: object, **named: object) -> Any:
            self.done.append((name, *arguments, *(key for key, value in named.items() if value)))
            if name in ("save", "forget"):
                self.futures.append(asyncio.get_running_loop().create_future())
                return self.futures[-1]
            return self.answer

        return called


class FakeBindings:
    """A store of bindings that writes when it is told to, or is always done already."""

    def __init__(self, done: list[tuple[object, ...]]) -> None:
        self.done = done
        self.waits = True
        self.futures: list[asyncio.Future[None]] = []

    def save(self, binding: SavedBinding) -> asyncio.Future[None] | None:
        self.done.append(("save-binding", binding))
        return self._future()

    def forget(self, number: int) -> asyncio.Future[None] | None:
        self.done.append(("forget-binding", number))
        return self._future()

    def _future(self) -> asyncio.Future[None] | None:
        if not self.waits:
            return None
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


class Bench:
    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.role = FakeRole()
        self.recorder = Recorder(self.done)
        double: Any = self.recorder
        self.bindings = FakeBindings(self.done)
        self.given: list[actions.GiveAddress] = []
        self.held = 0
        self.forgotten: list[str] = []
        self.driver = Driver(
            self.role,
            network=double,
            sockets=double,
            links={"eth1": double},
            sessions=lambda driver: double,
            bindings=self.bindings,
            addresses=self,
            on_held=self._count_held,
            on_bound=lambda: self.done.append(("go",)),
        )
        self.lines: list[Line] = []
        self.driver.journalist.listeners.add(self.lines.append)

    def _count_held(self) -> None:
        self.held += 1

    def names(self) -> list[object]:
        return [entry[0] for entry in self.done]

    def give(self, action: actions.GiveAddress) -> None:
        self.given.append(action)

    def forget(self, node: str) -> None:
        self.forgotten.append(node)

    def feed(self, *todo: Action) -> None:
        self.role.todo = list(todo)
        self.driver.feed(EVENT)


# Actions


def test_every_action_can_be_performed() -> None:
    assert set(PERFORM) == set(actions.Action.__args__)


@sync
async def test_actions_are_performed_in_the_order_of_the_role() -> None:
    bench = Bench()
    bench.feed(UNBIND, SEND, actions.FindSessions(node=NODE), EXPECT, UNBIND, SEND_TOO)
    assert bench.names() == ["unbind", "send", "find", "expect", "unbind", "send"]


@sync
async def test_a_message_waits_for_the_session_saved_before_it() -> None:
    bench = Bench()
    bench.feed(SAVE, BIND, SEND)
    assert bench.names() == ["save", "bind"]
    bench.recorder.futures[0].set_result(None)
    await until(lambda: "send" in bench.names())


@sync
async def test_a_message_waits_for_a_session_that_is_forgotten() -> None:
    bench = Bench()
    bench.feed(actions.ForgetSession(node=NODE, prefix=PREFIX), SEND)
    assert bench.names() == ["forget"]


@pytest.mark.parametrize("action", [SAVE_BINDING, FORGET_BINDING])
@sync
async def test_a_message_waits_for_the_binding_before_it(action: Action) -> None:
    bench = Bench()
    bench.feed(action, BIND, SEND)
    assert bench.names()[1:] == ["bind"]
    bench.bindings.futures[0].set_result(None)
    await until(lambda: "send" in bench.names())


@sync
async def test_a_binding_that_is_durable_already_keeps_no_message_waiting() -> None:
    bench = Bench()
    bench.bindings.waits = False
    bench.feed(SAVE_BINDING, SEND)
    assert bench.names() == ["save-binding", "send"]


@sync
async def test_a_message_waits_for_the_last_that_is_not_durable() -> None:
    bench = Bench()
    bench.feed(SAVE, SAVE_BINDING)
    bench.feed(SAVE_BINDING, SEND)
    bench.bindings.waits = False
    assert "send" not in bench.names()


@sync
async def test_a_message_leaves_from_the_address_the_role_says() -> None:
    bench = Bench()
    bench.feed(actions.Send(octets=b"x", message=REQUEST, destination=PEER, port=5, source=PREFIX[1]))
    assert bench.done == [("send", b"x", PEER, 5, PREFIX[1])]
    assert bench.lines[-1].fields["from"] == PREFIX[1]


@sync
async def test_a_message_that_was_made_as_octets_is_sent_and_told_like_any_other() -> None:
    bench = Bench()
    octets = encode(REQUEST, PEER, PEER)
    bench.feed(actions.SendOctets(octets, PEER, 5, PREFIX[1]))
    assert bench.done == [("send", octets, PEER, 5, PREFIX[1])]
    assert bench.lines[-1].fields == {"peer": PEER, "from": PREFIX[1]}


@sync
async def test_policies_and_ways_reach_the_network() -> None:
    bench = Bench()
    policy = actions.SetPolicy(name="video", rules=())
    way = actions.SetWay(tunnel=actions.TunnelEnd(remote=PEER), state=WayState.DOWN)
    bench.feed(policy, way)
    assert bench.done == [("set_policy", policy), ("set_way", way)]


@sync
async def test_an_address_is_given_to_whoever_leases_it() -> None:
    bench = Bench()
    given = actions.GiveAddress(node=NODE, interface="eth1", link_layer=b"", wants=Wants.IPV4, prefix=None)
    bench.feed(given)
    assert bench.given == [given]


@sync
async def test_a_message_before_the_save_does_not_wait() -> None:
    bench = Bench()
    bench.feed(SEND, SAVE)
    assert bench.names() == ["send", "save"]


@sync
async def test_messages_that_waited_leave_in_their_order() -> None:
    bench = Bench()
    bench.feed(SAVE, SEND, SEND_TOO)
    bench.recorder.futures[0].set_result(None)
    await until(lambda: len(bench.done) == 3)
    assert [entry[1] for entry in bench.done[1:]] == [b"first", b"second"]


@sync
async def test_a_message_of_the_next_turn_does_not_wait_for_a_save_of_this_one() -> None:
    bench = Bench()
    bench.feed(SAVE)
    bench.feed(SEND)
    assert bench.names() == ["save", "send"]


@sync
async def test_a_message_on_a_link_waits_for_nothing() -> None:
    bench = Bench()
    message = RouterAdvertisement(router_lifetime=1800)
    on_link = actions.SendOnLink(octets=b"", message=message, interface="eth1", link_layer=b"", node=NODE)
    bench.feed(SAVE, on_link)
    assert bench.names() == ["save", "send"]


@sync
async def test_an_action_that_fails_does_not_take_the_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def refuse(*_: object) -> None:
        raise RouterError("add route: no buffer space")

    def refuse_too(*_: object) -> None:
        raise EngineError("no such tunnel")

    bench.recorder.bind, bench.recorder.unbind = refuse, refuse_too  # type: ignore[attr-defined]
    bench.role.next_wake = time.monotonic()
    bench.feed(BIND, UNBIND, SEND)
    assert bench.names() == ["send"]
    failures = [line.fields for line in bench.lines if line.event == "failed"]
    assert failures == [
        {"action": "Bind", "why": "add route: no buffer space"},
        {"action": "Unbind", "why": "no such tunnel"},
    ]
    await until(lambda: bench.role.woken)


# Time


@sync
async def test_the_role_is_woken_at_its_time_and_not_before() -> None:
    bench = Bench()
    due = time.monotonic() + 0.0313
    bench.role.next_wake = due
    bench.feed()
    late: list[bool] = []  # however late the loop is, what is due first runs first
    asyncio.get_running_loop().call_later(due + 0.1 - time.monotonic(), lambda: late.append(not bench.role.woken))
    await until(lambda: bench.role.woken and late)
    assert due <= bench.role.woken[0]
    assert late == [False]


@sync
async def test_a_timer_that_is_early_waits_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMER_ROUNDING", -0.02)
    bench = Bench()
    due = time.monotonic() + 0.03
    bench.role.next_wake = due
    bench.feed()
    await until(lambda: bench.role.woken)
    assert bench.role.woken[0] >= due
    assert len(bench.role.woken) == 1


@sync
async def test_an_earlier_time_replaces_a_later_one() -> None:
    bench = Bench()
    bench.role.next_wake = time.monotonic() + 60
    bench.feed()
    bench.role.next_wake = time.monotonic()
    bench.feed()
    await until(lambda: bench.role.woken)


@sync
async def test_what_a_role_asks_for_when_woken_is_done() -> None:
    bench = Bench()
    bench.role.next_wake = time.monotonic() + 0.001
    bench.feed()
    bench.role.todo = [SEND]
    await until(lambda: bench.names() == ["send"])


@sync
async def test_a_role_that_breaks_is_woken_again() -> None:
    bench = Bench()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    calls: list[float] = []

    def wake(now: float) -> list[Action]:
        calls.append(now)
        bench.role.next_wake = now + 0.001 if len(calls) < 3 else None
        raise ZeroDivisionError

    bench.role.wake = wake  # type: ignore[method-assign]
    bench.role.next_wake = time.monotonic()
    bench.feed()
    await until(lambda: len(calls) == 3)


@sync
async def test_what_waits_in_the_sockets_is_heard_before_the_time_tells_that_it_did_not_come() -> None:
    bench = Bench()
    woken_before_reading: list[int] = []
    bench.recorder.read = lambda: woken_before_reading.append(len(bench.role.woken))  # type: ignore[method-assign]
    bench.role.next_wake = time.monotonic()
    bench.feed()
    await until(lambda: bench.role.woken)
    assert woken_before_reading == [0]


@sync
async def test_nothing_happens_after_the_stop_but_what_the_farewell_asks() -> None:
    bench = Bench()
    bench.role.next_wake = time.monotonic() + 0.002
    bench.feed()
    bench.driver.stop()
    bench.feed(SEND)
    await asyncio.sleep(0.01)
    assert bench.done == []
    assert bench.role.woken == []
    bench.driver.perform([SEND])
    assert bench.names() == ["send"]


@sync
async def test_the_role_is_told_the_wall_clock_before_its_first_event() -> None:
    bench = Bench()
    bench.feed()
    first, second = bench.role.heard
    assert isinstance(first, ClockStepped)
    assert abs(first.wall_minus_monotonic - (time.time() - time.monotonic())) < 1.0
    assert second is EVENT


@sync
async def test_a_clock_that_runs_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOCK_STEP", 0.5)
    bench = Bench()
    bench.feed()
    bench.feed()
    assert sum(isinstance(event, ClockStepped) for event in bench.role.heard) == 1


@pytest.mark.parametrize("step", [3600.0, -3600.0])
@sync
async def test_a_stepped_wall_clock_is_told_before_the_next_event(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.feed()
    wall = time.time
    monkeypatch.setattr(module.time, "time", lambda: wall() + step)
    bench.feed()
    steps = [event.wall_minus_monotonic for event in bench.role.heard if isinstance(event, ClockStepped)]
    assert steps[-1] - steps[0] == pytest.approx(step, abs=0.5)
    assert bench.role.heard[-1] is EVENT


# Lines


@sync
async def test_what_is_done_is_told_with_what_matters() -> None:
    bench = Bench()
    care_of = actions.Bind(prefix=PREFIX, path=actions.TowardVisited.at(PEER), node=NODE)
    bench.feed(care_of, SEND, actions.Note("attached", {"node": NODE}))
    assert [line.event for line in bench.lines] == ["tunnel-to-visited", "bindingrefreshrequest-sent", "attached"]
    assert bench.lines[0].fields == {"node": NODE, "prefix": PREFIX, "peer": PEER}


@sync
async def test_of_several_ways_all_are_told() -> None:
    bench = Bench()
    ends = (actions.TunnelEnd(remote=PEER), actions.TunnelEnd(remote=PREFIX[1], binding_id=2))
    path = actions.TowardAnchor(tunnels=ends, interface="eth1", policy="video")
    bench.feed(actions.Bind(prefix=PREFIX, path=path, node=NODE))
    told = {"node": NODE, "prefix": PREFIX, "peer": PEER, "ways": (1, 2), "policy": "video"}
    assert bench.lines[0].fields == told


@sync
async def test_a_message_that_could_not_leave_is_told_with_the_reason() -> None:
    bench = Bench()
    bench.recorder.answer = "Network is unreachable"
    bench.feed(SEND)
    assert bench.lines[-1].fields["failed"] == "Network is unreachable"


@sync
async def test_a_message_for_a_link_nobody_has_is_told() -> None:
    bench = Bench()
    probe = NeighborSolicitation(target=IPv6Address("fe80::1"))
    bench.feed(actions.SendOnLink(octets=b"", message=probe, interface="eth9", link_layer=b"", node=NODE))
    assert bench.lines[-1].fields == {"node": NODE, "interface": "eth9", "failed": "no such interface"}


@sync
async def test_a_probe_leaves_without_a_line() -> None:
    bench = Bench()
    probe = Probe(
        binding_id=1, number=1, interval=0.05, timestamp=0, view=WayState.UP, traffic=False, loss=0,
        echoes=False, echo=0, held=0.0,
    )  # fmt: skip
    message = Heartbeat(sequence_number=1, options=options_of(probe, []))
    bench.feed(actions.Send(octets=b"x", message=message, destination=PEER), SEND)
    assert [entry[0] for entry in bench.done].count("send") == 2
    assert [line.event for line in bench.lines] == ["bindingrefreshrequest-sent"]  # the other one's


@sync
async def test_the_last_lines_are_kept_for_who_comes_later() -> None:
    bench = Bench()
    for number in range(module.HISTORY + 5):
        bench.driver.journalist.tell("x", {"number": number})
    kept = [line.fields["number"] for line in bench.driver.journalist.history]
    assert kept == list(range(5, module.HISTORY + 5))


@sync
async def test_lines_are_told_after_all_that_packets_wait_for() -> None:
    bench = Bench()
    told: list[int] = []
    bench.driver.journalist.listeners.add(lambda line: told.append(len(bench.names())))
    bench.feed(BIND, SEND)
    assert told == [2, 2]


@sync
async def test_packets_go_when_their_prefix_was_bound_and_the_peer_told() -> None:
    bench = Bench()
    bench.feed(replace(BIND, path=actions.LocalLink(interface="eth1")), SEND)
    assert bench.names() == ["bind", "send", "go"]
    bench.feed(UNBIND, SEND)
    assert bench.names()[3:] == ["unbind", "send"]


COMING = [
    replace(BIND, prefix=IPv6Network(f"2001:db8:a{n}:1::/64"), path=actions.TowardAnchor.through(PEER, "eth1"))
    for n in (1, 2)
]


@sync
async def test_tunnels_are_known_before_anybody_is_asked_to_use_them() -> None:
    bench = Bench()
    bench.feed(SEND, *COMING)
    assert bench.names() == ["foresee", "foresee", "send", "bind", "bind", "go"]


@sync
async def test_no_packet_moves_before_all_prefixes_of_a_node_have_their_way() -> None:
    bench = Bench()
    bench.feed(*COMING)
    first, second = (entry[-1] for entry in bench.done if entry[0] == "bind")
    bench.done.clear()
    bench.driver._arriving = 2
    first()  # the network says that packets of the first one can reach the node
    assert bench.names() == []
    second()
    assert bench.names() == ["go"]


@sync
async def test_the_links_hear_of_a_node_that_came_when_its_packets_have_passed() -> None:
    bench = Bench()
    bench.feed(EXPECT)
    assert bench.names() == ["expect"]  # the network
    await until(lambda: bench.names() == ["expect", "expect"])


@sync
async def test_the_links_hear_of_a_node_that_came_before_they_hear_that_it_left() -> None:
    bench = Bench()
    left = replace(EXPECT, interface=None)
    bench.feed(EXPECT, left)
    assert [entry[1] for entry in bench.done if entry[0] == "expect"] == [EXPECT, left, EXPECT, left]
    await asyncio.sleep(2 * SOON)
    assert len(bench.names()) == 4


@sync
async def test_after_the_end_the_links_hear_of_nobody() -> None:
    bench = Bench()
    bench.feed(EXPECT)
    bench.driver.stop()
    await asyncio.sleep(2 * SOON)
    assert bench.names() == ["expect"]


@sync
async def test_that_a_node_is_between_routers_is_told_after_the_turn() -> None:
    bench = Bench()
    bench.feed(BIND)
    assert bench.held == 0
    await until(lambda: bench.held == 1)
