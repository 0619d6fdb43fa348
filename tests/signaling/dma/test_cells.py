"""Both state machines in a domain: every state is reached, and everything that can happen happens in it.

What the tables say is what a router does; where they say nothing, nothing changes.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import inf
from typing import Any

import pytest

from router.sessions import LEFT_FOR_GOOD
from signaling.dma import session, update_list
from signaling.dma.session import Happening, State, stored
from signaling.dma.sharers import SHARED
from signaling.dma.update_list import Progress, Step
from signaling.events import LinkDetached, SessionsFound
from signaling.iana import HandoffIndicator, Status
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.options.access import HandoffIndicatorOption
from tests.world import World

IDLE_AFTER = 30.0  # s


def name(cell: tuple[Any, Any]) -> str:
    return f"{cell[0].value}-{cell[1].value}".replace(" ", "-")


def value(state: State | Progress) -> str:
    return state.value


def handoff(indicator: HandoffIndicator) -> HandoffIndicatorOption:
    return HandoffIndicatorOption(indicator=indicator)


# --- a prefix at its anchor ------------------------------------------------------------------------------------


class Anchored:
    """mn1, its prefix of mar1, and mar2, which has it where anybody else has; mar3 takes flows where somebody does."""

    def __init__(self, state: State) -> None:
        self.world = World(mars=3, idle_after=IDLE_AFTER)
        self.world.attach("mn1", "mar1")
        self.world.run(5.0)
        self.prefix = self.world.prefix("mn1", "mar1")
        REACH[state](self)
        assert self.state is state

    @property
    def state(self) -> State:
        entries = self.world["mar1"].mar.anchor.cache.of("mn1")  # one prefix, if any, and not always the same
        return entries[0].state if entries else State.FREE

    def leave(self) -> None:
        self.world.detach("mn1")

    def move(self) -> None:
        self.world.move("mn1", "mar2")
        self.world.run(5.0)

    def lose_peer(self) -> None:
        self.world.perform("mar1", self.world["mar1"].mar.anchor.visited_routers.lost(self.world.address["mar2"]))

    def regain_peer(self) -> None:
        self.world.perform("mar1", self.world["mar1"].mar.anchor.visited_routers.back(self.world.address["mar2"]))

    def expire(self) -> None:
        """Time passes for the anchor alone."""
        entry = self.world["mar1"].mar.anchor.cache.get(self.prefix)
        if entry is not None and entry.expires < inf:
            self.world.now = entry.expires
            self.world.perform("mar1", self.world["mar1"].mar.anchor.wake(entry.expires))

    def free(self) -> None:
        self.leave()
        for _ in (State.GUARD, State.HOLD):
            self.expire()

    def update(self, source: str, lifetime: int, indicator: HandoffIndicator) -> None:
        update = self.world.update("mn1", self.prefix, lifetime=lifetime, handoff=handoff(indicator))
        self.world.say(update, source, "mar1")

    def share(self, lifetime: int = 300) -> None:
        self.world.run(0.1)  # an update has a timestamp of its own
        self.update("mar3", lifetime, HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES)

    def inherit(self) -> None:
        """mar3 takes flows of what mar2 has, and mar2 has it no more."""
        if self.state is State.REMOTE:
            self.share()
            self.update("mar2", 0, HandoffIndicator.HANDOFF_STATE_UNKNOWN)

    def leave_link(self) -> None:
        host = self.world.host("mn1")
        anchor = self.world["mar1"].mar.anchor
        self.world.perform("mar1", anchor.leave("mn1", host.link_layer, self.world.now))

    def forget(self) -> None:
        self.move()
        self.world.run(IDLE_AFTER + 1.0)

    def lost(self) -> None:
        self.move()
        self.lose_peer()

    def hold(self) -> None:
        self.leave()
        self.expire()


REACH: dict[State, Callable[[Anchored], None]] = {
    State.FREE: Anchored.free,
    State.LOCAL: lambda it: None,
    State.GUARD: Anchored.leave,
    State.REMOTE: Anchored.move,
    State.SPLIT: Anchored.share,
    State.LOST: Anchored.lost,
    State.HOLD: Anchored.hold,
    State.RELEASED: Anchored.forget,
}
HAPPEN: dict[Happening, Callable[[Anchored], None]] = {
    Happening.ATTACHED: lambda it: it.world.attach("mn1", "mar1"),
    Happening.LEFT: Anchored.leave_link,
    Happening.REGISTERED: lambda it: it.update("mar3", 300, HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES),
    Happening.DEREGISTERED: lambda it: it.update("mar2", 0, HandoffIndicator.HANDOFF_STATE_UNKNOWN),
    Happening.RELEASED: lambda it: it.update("mar2", 0, HandoffIndicator.HANDOFF_STATE_NOT_CHANGED),
    Happening.PEER_LOST: Anchored.lose_peer,
    Happening.PEER_BACK: Anchored.regain_peer,
    Happening.EXPIRED: Anchored.expire,
    Happening.FLOWS_ASKED: Anchored.share,
    Happening.FLOWS_ENDED: lambda it: it.share(lifetime=0),
    Happening.INHERITED: Anchored.inherit,
    Happening.RESTORED: lambda it: it.world.restart("mar1"),
}


@pytest.mark.parametrize("cell", list(product(State, Happening)), ids=name)
def test_an_anchor_does_what_its_table_says(cell: tuple[State, Happening]) -> None:
    before, happening = cell
    scene = Anchored(before)
    HAPPEN[happening](scene)
    # that a router does not answer is forgotten with a restart: it is found out anew
    start = stored(before) if happening is Happening.RESTORED else before
    if happening is Happening.FLOWS_ASKED and before not in SHARED:
        happening = Happening.REGISTERED  # nobody has the prefix: who asks for flows gets all of it
    assert scene.state is session.NEXT.get((start, happening), start)


@pytest.mark.parametrize("state", [it for it in State if it is not State.FREE], ids=value)
def test_an_update_that_is_older_than_what_was_accepted_changes_nothing_in_any_state(state: State) -> None:
    scene = Anchored(state)
    entry = scene.world["mar1"].mar.anchor.cache.get(scene.prefix)
    assert entry is not None
    update = scene.world.update("mn1", scene.prefix)
    stamp = next(option for option in update.options if hasattr(option, "value"))
    older = replace(stamp, value=entry.timestamp - 1)  # type: ignore[call-arg]
    options = tuple(older if option is stamp else option for option in update.options)
    scene.world.say(replace(update, options=options), "mar3", "mar1")
    ack = scene.world["mar1"].sent(BindingAck)[-1]
    assert (ack.status, scene.state) == (Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED, state)


@pytest.mark.parametrize("indicator", [4, 5])
@pytest.mark.parametrize("state", [State.REMOTE, State.LOST], ids=value)
def test_a_deregistration_by_another_router_is_ignored(state: State, indicator: int) -> None:
    scene = Anchored(state)
    scene.update("mar3", 0, HandoffIndicator(indicator))
    assert scene.state is state


# --- a prefix at a visited router ------------------------------------------------------------------------------


class Visiting:
    """mn1 is at mar2, its prefix is anchored at mar1."""

    def __init__(self, progress: Progress) -> None:
        self.world = World(mars=2, idle_after=IDLE_AFTER)
        self.world.attach("mn1", "mar1")
        self.world.run(5.0)
        self.prefix = self.world.prefix("mn1", "mar1")
        self.registrar = self.world["mar2"].mar.registrar
        VISIT[progress](self)
        assert self.progress is progress

    @property
    def progress(self) -> Progress:
        item = self.registrar.get(self.prefix)
        return Progress.NONE if item is None else item.progress

    def come(self, *, lost: type[Message] | None = None) -> None:
        if lost is not None:
            self.world.lose(1000, lost)
        self.world.detach("mn1")
        self.world.run(LEFT_FOR_GOOD)  # no news come later
        self.world.move("mn1", "mar2")
        self.world.run(0.1)

    def go(self) -> None:
        self.world.feed("mar2", LinkDetached(node="mn1", reason="left"))

    def leave_often(self) -> None:
        """As often as updates may be sent, and once more."""
        self.come(lost=BindingUpdate)
        self.go()
        self.world.attach("mn1", "mar2")
        self.world.run(0.1)
        self.go()

    def refused(self) -> None:
        self.world["mar1"].mar.anchor.cache.remove(self.world["mar1"].mar.anchor.cache.of("mn1")[0])
        self.come()

    def lose(self) -> None:
        self.world.perform("mar2", self.registrar.anchor_lost(self.world.address["mar1"], self.world.now))

    def visited(self) -> None:
        self.come()
        self.world.lose(1000)  # from here on mar1 is what the test says

    def lost(self) -> None:
        self.come()
        self.lose()

    def left(self) -> None:
        self.visited()
        self.go()

    def unused(self) -> None:
        self.visited()
        self.world.perform("mar2", self.registrar.release(self.prefix, self.world.now))

    def answer(self, status: Status) -> None:
        """To the last update, if it waits for an answer."""
        item = self.registrar.get(self.prefix)
        sent = self.world["mar2"].sent(BindingUpdate)
        if item is None or item.answered or not sent:
            return
        ack = BindingAck(
            status=status,
            flags=1 << 5,  # type: ignore[arg-type]
            sequence_number=item.sequence_number,
            lifetime=sent[-1].lifetime,
            options=sent[-1].options,
        )
        self.world.say(replace(ack, options=ack.options[:-1]), "mar1", "mar2")

    def due(self) -> None:
        item = self.registrar.get(self.prefix)
        at = None if item is None else self.registrar.deadlines.of(self.prefix)
        if at is not None:
            self.world.now = max(self.world.now, at)
            self.world.perform("mar2", self.registrar.wake(self.world.now))

    def find(self) -> None:
        sessions = self.world.store.of("mn1")
        found = tuple(item for item in sessions if item.prefix == self.prefix)
        self.world.feed("mar2", SessionsFound(node="mn1", sessions=found))

    def revoke(self) -> None:
        item = self.registrar.get(self.prefix)
        if item is not None:
            self.world.perform("mar2", self.registrar.revoked(self.prefix))


VISIT: dict[Progress, Callable[[Visiting], None]] = {
    Progress.NONE: lambda it: None,
    Progress.PENDING: lambda it: it.come(lost=BindingUpdate),
    Progress.VISITED: Visiting.visited,
    Progress.REFUSED: Visiting.refused,
    Progress.LOST: Visiting.lost,
    Progress.LEAVING: Visiting.leave_often,
    Progress.DEREGISTERING: Visiting.left,
    Progress.RELEASING: Visiting.unused,
}


@pytest.mark.parametrize("progress", Progress, ids=value)
def test_every_state_of_a_registration_is_reached_and_a_revocation_ends_it(progress: Progress) -> None:
    scene = Visiting(progress)
    scene.revoke()
    # one that is about to end gives back what waits for its node, and ends then
    assert scene.progress is (progress if progress is Progress.DEREGISTERING else Progress.NONE)
    scene.world.run(2.0)
    assert scene.progress is Progress.NONE


@pytest.mark.parametrize("progress", [it for it in Progress if it is not Progress.NONE], ids=value)
def test_a_router_does_what_its_table_says_when_a_deadline_has_passed(progress: Progress) -> None:
    scene = Visiting(progress)
    scene.due()
    assert scene.progress is update_list.NEXT.get((progress, Step.DUE), progress)


@pytest.mark.parametrize("progress", [it for it in Progress if it is not Progress.NONE], ids=value)
def test_a_router_does_what_its_table_says_when_the_node_leaves(progress: Progress) -> None:
    scene = Visiting(progress)
    scene.go()
    after = update_list.NEXT.get((progress, Step.LEFT), progress)
    # the anchor is told in the same turn
    assert scene.progress is (Progress.DEREGISTERING if after is Progress.LEAVING and progress is not after else after)


@pytest.mark.parametrize("progress", [Progress.PENDING, Progress.DEREGISTERING, Progress.RELEASING], ids=value)
@pytest.mark.parametrize("status", [Status.BINDING_UPDATE_ACCEPTED, Status.NOT_LMA_FOR_THIS_MOBILE_NODE])
def test_a_router_does_what_its_table_says_when_its_anchor_answers(progress: Progress, status: Status) -> None:
    scene = Visiting(progress)
    scene.answer(status)
    step = Step.ACCEPTED if status is Status.BINDING_UPDATE_ACCEPTED else Step.REFUSED
    assert scene.progress is update_list.NEXT[progress, step]


@pytest.mark.parametrize(
    "progress", [Progress.PENDING, Progress.VISITED, Progress.REFUSED, Progress.LOST], ids=value
)
def test_a_router_does_what_its_table_says_when_the_store_names_the_prefix_again(progress: Progress) -> None:
    scene = Visiting(progress)
    scene.world.show("mn1")
    scene.find()
    after = update_list.NEXT[progress, Step.FOUND]
    # as long as its anchor does not answer it is not asked
    assert scene.progress is (Progress.LOST if progress is Progress.LOST else after)


@pytest.mark.parametrize("progress", Progress, ids=value)
def test_a_router_does_what_its_table_says_when_the_anchor_is_lost(progress: Progress) -> None:
    scene = Visiting(progress)
    scene.lose()
    assert scene.progress is update_list.NEXT.get((progress, Step.ANCHOR_LOST), progress)
