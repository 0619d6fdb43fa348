"""An LMA that starts again: whatever it had acknowledged is there as it was, before anybody is answered."""

from ipaddress import IPv4Network, IPv6Network
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.actions import Action, Bind, BindAll, Note
from signaling.events import BindingsRestored
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import Status
from signaling.pmip.saved_binding import SavedBinding
from signaling.settings import NodeProfile, Prefix, Sharing
from signaling.wire.options.tunnel import GreKey
from tests.signaling.pmip.lma_scene import IF1, IF2, MAGS, Scene, answer, done, home, kinds, paths, remotes
from tests.signaling.pmip.test_lma_random_walk import Books, anything

WALK = 60  # steps
SOME = 50  # sessions


def scene_of_all_kinds() -> Scene:
    return Scene(
        profiles=(NodeProfile(node="shared@example.net", sharing=Sharing.SHARED_ADDRESS),),
        ipv4_pools=(IPv4Network("203.0.113.0/24"),),
        delegated_pools=(IPv6Network("2001:db8:d00::/40"),),
    )


def restarted(saved: list[SavedBinding], scene: Scene) -> tuple[Scene, list[Action]]:
    own = scene.settings
    after = Scene(
        profiles=own.profiles, policies=own.policies, ipv4_pools=own.ipv4_pools, delegated_pools=own.delegated_pools
    )
    after.now = scene.now
    return after, after.lma.handle(BindingsRestored(bindings=iter(saved)), after.now)


def remembered(scene: Scene) -> dict[int, SavedBinding]:
    return {session.number: session.saved() for session in scene.cache}


def ways_in_use(scene: Scene) -> dict[Any, Any]:
    return {key: (it.sessions, it.address, it.port) for key, it in scene.anchor.gateways._reach.items()}


def lent(scene: Scene) -> list[set[int]]:
    allotments = scene.anchor.sessions.allotments
    return [pool._taken for pool in (allotments.prefixes, allotments.ipv4, allotments.delegated)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_was_acknowledged_is_there_again(seed: int) -> None:
    rng = Random(seed)
    scene, books = scene_of_all_kinds(), Books()
    for _ in range(WALK):
        books.keep(anything(scene, rng))
    before = remembered(scene)
    after, turn = restarted(list(before.values()), scene)
    assert remembered(after) == before
    assert lent(after) == lent(scene)
    assert {key: count for key, (count, *_) in ways_in_use(after).items()} == {
        key: count for key, (count, *_) in ways_in_use(scene).items()
    }
    assert {it.number: it.leaving for it in after.cache} == {it.number: it.leaving for it in scene.cache}
    assert _ends(paths(turn)) == _ends(books.bound)


def _ends(bound: dict[Prefix, Any]) -> dict[Prefix, Any]:
    """Where packets go, but for the names of policies: those may be told anew."""
    return {prefix: getattr(path, "tunnels", ()) for prefix, path in bound.items()}


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(8)))
def test_restored_sessions_go_on_in_whatever_order_they_are_heard_of(order: list[int]) -> None:
    scene = scene_of_all_kinds()
    lent_to = [scene.attach(list(MAGS)[number % 3], node=f"mn{number}") for number in range(8)]
    stamps = {session.node: session.care_of.timestamp for session in scene.cache}
    after, _ = restarted(list(remembered(scene).values()), scene)
    for number in order:
        node, gateway = f"mn{number}", list(MAGS)[number % 3]
        asked = {"node": node, "prefixes": (lent_to[number],), "hi": 5}
        assert after.status(gateway, timestamp=stamps[node], **asked) == Status.TIMESTAMP_MISMATCH
        (action,) = after.say(gateway, **asked)  # an extension: nothing is bound or saved anew
        assert answer([action]).status == Status.BINDING_UPDATE_ACCEPTED
    now = {session.node: session.care_of.timestamp for session in after.cache}
    assert all(now[node] > stamp for node, stamp in stamps.items())


def test_all_that_take_the_same_tunnel_are_bound_together_and_told_of_in_a_line() -> None:
    scene = scene_of_all_kinds()
    at = {name: [scene.attach(name, node=f"{name}-{number}") for number in range(5)] for name in MAGS}
    _, turn = restarted(list(remembered(scene).values()), scene)
    assert done(turn, Bind) == []
    assert {name: list(every.nodes) for name, every in zip(at, done(turn, BindAll), strict=True)} == at
    assert [remotes(every.path) for every in done(turn, BindAll)] == [[MAGS[name]] for name in at]
    assert [(note.event, note.fields) for note in done(turn, Note)] == [("sessions-restored", {"sessions": 15})]


def test_interfaces_that_share_a_prefix_share_it_again_whichever_is_restored_first() -> None:
    scene = scene_of_all_kinds()
    shared = {"node": "shared@example.net"}
    prefix = scene.attach("mag1", ll=IF1, **shared)
    assert home(scene.ack("mag2", ll=IF2, prefixes=(prefix,), hi=1, **shared)) == (prefix,)
    saved = list(remembered(scene).values())
    for order in (saved, saved[::-1]):
        _, turn = restarted(order, scene)
        assert sorted(remotes(paths(turn)[prefix])) == [MAGS["mag1"], MAGS["mag2"]]


def test_policies_are_told_before_the_paths_that_name_them() -> None:
    rules = (FlowRule(name="drop", selector=None, spread=Spread.DROP),)
    scene = Scene(profiles=(NodeProfile(node="mn2", policy="none"),), policies={"none": rules})
    for number in range(4):
        scene.attach("mag1", node=f"mn{number}")
    _, turn = restarted(list(remembered(scene).values()), scene)
    assert kinds(turn)[:4] == ["SetPolicy", "BindAll", "BindAll", "Note"]
    assert {every.path.policy: set(every.nodes.values()) for every in done(turn, BindAll)} == {
        "": {"mn0", "mn1", "mn3"},
        "none": {"mn2"},
    }


@pytest.mark.parametrize("keys", [False, True], ids=["without keys", "with GRE keys"])
def test_paths_and_policies_are_those_of_a_session_bound_alone(keys: bool) -> None:
    rules = (FlowRule(name="drop", selector=None, spread=Spread.DROP),)
    laid_down: dict[str, Any] = {
        "profiles": (NodeProfile(node="mn1", policy="none"),),
        "policies": {"none": rules},
        "gre_keys": keys,
    }
    more = (GreKey(key=77),) if keys else ()
    scene, after = Scene(**laid_down), Scene(**laid_down)
    for number in range(3):
        scene.attach("mag1", node=f"mn{number}", more=more)
    scene.van(node="mn3", more=more)
    alone = {bind.prefix: bind.path for it in scene.cache for bind in scene.anchor.sessions.data_path.bind(it)}
    turn = after.lma.handle(BindingsRestored(bindings=remembered(scene).values()), scene.now)
    assert paths(turn) == alone
    assert len(alone) == 4


def test_nothing_is_said_where_there_was_nothing() -> None:
    _, turn = restarted([], Scene())
    assert done(turn, BindAll) == done(turn, Note) == []


def test_every_restored_session_is_due_when_its_lifetime_has_passed() -> None:
    scene = Scene()
    for number in range(SOME):
        scene.attach(node=f"mn{number}")
    after, _ = restarted(list(remembered(scene).values()), scene)
    after.wait(after.settings.binding_lifetime - 1)
    assert len(after.cache) == SOME
    after.wait(2.0)
    assert len(after.cache) == 0
