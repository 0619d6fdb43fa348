"""An extension worded as one before it gets the answer it would get if it were read; nothing else does."""

import random
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest

from signaling.actions import Action, Send, SendOctets
from signaling.iana import BindingUpdateFlag, Status
from signaling.pmip import known_wordings
from signaling.settings import NodeProfile
from signaling.wire.authentication import verify
from signaling.wire.binding_ack import BindingAck
from signaling.wire.mobility_header import decode
from signaling.wire.options.access import LinkLocalAddress
from signaling.wire.options.time import Timestamp
from tests.signaling.pmip.lma_scene import FOREIGN, IF2, KEY, LMA, MAGS, NODE, Scene, answer, done
from tests.signaling.pmip.test_lma_random_walk import anything

MAG = MAGS["mag1"]


def extended(scene: Scene, **changes: Any) -> list[Action]:
    """The session of the node is extended by mag1."""
    return scene.say(**({"prefixes": scene.session.prefixes, "hi": 5} | changes))


def known(**settings: Any) -> Scene:
    """An LMA that has heard one extension."""
    scene = Scene(**settings)
    scene.attach()
    assert not done(extended(scene), SendOctets)
    return scene


def test_an_extension_in_known_words_is_answered_without_being_read() -> None:
    scene = known()
    number = scene.number + 1
    (send,) = extended(scene)
    assert isinstance(send, SendOctets)
    ack = decode(send.octets, LMA, MAG)
    assert isinstance(ack, BindingAck)
    assert (ack.status, ack.sequence_number, ack.lifetime) == (Status.BINDING_UPDATE_ACCEPTED, number, 300)
    assert ack.option(Timestamp) == Timestamp(value=scene.stamp())
    assert verify(send.octets, KEY, care_of=MAG)


def test_the_words_of_one_node_are_known_from_all_others() -> None:
    scene = known()
    prefix = scene.attach("mag2", node="mn2@example.net", ll=IF2)
    (send,) = scene.say("mag2", node="mn2@example.net", ll=IF2, prefixes=(prefix,), hi=5)
    assert isinstance(send, SendOctets)
    assert answer([send]).status == Status.BINDING_UPDATE_ACCEPTED


def test_names_of_other_lengths_are_other_words() -> None:
    scene = known()
    name = f"a-much-longer-name-{NODE}"
    prefix = scene.attach(node=name, ll=IF2)
    assert not done(scene.say(node=name, ll=IF2, prefixes=(prefix,), hi=5), SendOctets)
    assert done(scene.say(node=name, ll=IF2, prefixes=(prefix,), hi=5), SendOctets)


@pytest.mark.parametrize(
    "other", [{"node": "mn2@example.net"}, {"prefixes": (FOREIGN,)}, {"ll": IF2}, {"att": 8}, {"lifetime": 100}]
)
def test_what_fits_no_session_is_read(other: dict[str, Any]) -> None:
    assert not done(extended(known(), **other), SendOctets)


def test_what_wants_tunnels_in_udp_is_always_read() -> None:
    scene = known(accept_forced_udp=True)
    flags = BindingUpdateFlag.PROXY_REGISTRATION | BindingUpdateFlag.FORCING_UDP_ENCAPSULATION
    for _ in range(2):
        assert not done(extended(scene, flags=flags), SendOctets)


def test_what_a_gateway_can_make_grow_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_wordings, "MOST_WORDINGS", 5)
    scene = known()
    for lifetime in range(100, 160, 4):
        assert answer(extended(scene, lifetime=lifetime)).lifetime == lifetime
        assert len(scene.anchor._wordings) <= 5


def test_it_extends_the_session_and_is_counted() -> None:
    scene = known()
    extended(scene)
    assert scene.session.expires == scene.now + 300
    assert scene.session.care_of.timestamp == scene.stamp()
    assert (scene.lma.counters["lma.refreshed"], scene.lma.counters["received.BindingUpdate"]) == (2, 3)
    assert scene.lma.counters["sent.BindingAck"] == 3


def test_no_more_is_granted_than_the_lma_grants() -> None:
    scene = known(binding_lifetime=102)
    (send,) = extended(scene)
    assert decode(send.octets, LMA, MAG).lifetime == 100  # type: ignore[attr-defined]
    assert scene.session.expires == scene.now + 102


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"timestamp": 1}, Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED),
        ({"hi": None}, Status.MISSING_HANDOFF_INDICATOR_OPTION),
        ({"att": None}, Status.MISSING_ACCESS_TECH_TYPE_OPTION),
    ],
)
def test_what_is_wrong_with_it_is_found(changes: dict[str, Any], status: Status) -> None:
    assert answer(extended(known(), **changes)).status == status


def test_a_copy_is_refused() -> None:
    scene = known()
    scene.now += 0.01
    update = scene.update(prefixes=scene.session.prefixes, hi=5)
    assert answer(scene.tell(update, "mag1")).status == Status.BINDING_UPDATE_ACCEPTED
    assert answer(scene.tell(update, "mag1")).status == Status.TIMESTAMP_MISMATCH


def test_one_from_outside_the_window_is_refused() -> None:
    scene = known()
    assert answer(extended(scene, timestamp=scene.stamp(ago=-5.0))).status == Status.TIMESTAMP_MISMATCH


def test_a_forged_one_changes_nothing() -> None:
    scene = known()
    before = scene.snapshot()
    assert answer(extended(scene, key=b"of somebody else")).status == Status.MIPV6_AUTH_FAIL
    assert scene.snapshot() == before


def test_the_same_words_of_another_gateway_are_a_handoff_or_refused() -> None:
    scene = known()
    scene.say("mag2", prefixes=scene.session.prefixes, hi=5)
    assert scene.session.gateway == "mag2"


def ends(scene: Scene) -> None:
    extended(scene, lifetime=0)


def hands_off(scene: Scene) -> None:
    scene.say("mag2", prefixes=scene.session.prefixes, hi=3)


def is_revoked(scene: Scene) -> None:
    scene.lma.revoke(NODE, scene.now)


def has_a_profile(scene: Scene) -> None:
    scene.lma.set_profiles((NodeProfile(node=NODE, refused=True),), scene.now)


def changes_its_interface(scene: Scene) -> None:
    extended(scene, hi=2, att=8)


@pytest.mark.parametrize("change", [ends, hands_off, is_revoked, has_a_profile, changes_its_interface])
def test_after_any_change_it_is_read_again(change: Callable[[Scene], None]) -> None:
    scene = known()
    prefixes = scene.session.prefixes
    change(scene)
    assert not done(scene.say(prefixes=prefixes, hi=5), SendOctets)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_said_the_answers_are_those_of_an_lma_that_reads_everything(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, thorough = Scene(), Scene()
    monkeypatch.setattr(thorough.anchor, "extend", lambda event, now: None)
    repeated = 0
    rngs = random.Random(seed), random.Random(seed)
    for _ in range(150):
        for turn in range(3):  # what was just said is said again, and again
            turns = [
                anything(scene, rng) if turn == 0 else again(scene, rng)
                for scene, rng in zip((quick, thorough), rngs, strict=True)
            ]
            repeated += len(done(turns[0], SendOctets))
            octets = [[send.octets for send in done(it, Send)] for it in turns]
            assert octets[0] == octets[1]
            assert quick.snapshot() == thorough.snapshot()
    assert repeated > 20


def again(scene: Scene, rng: random.Random) -> list[Action]:
    """A session is extended by whoever has it, or by another."""
    sessions = list(scene.cache)
    session = rng.choice(sessions) if sessions else None
    if session is None or session.gateway not in MAGS:
        return []
    link_local = LinkLocalAddress(address=IPv6Address(f"fe80::{rng.choice((0, 1, 2))}"))
    return scene.say(
        session.gateway if rng.random() < 0.9 else "mag1",
        node=session.node,
        prefixes=session.prefixes or None,
        hi=5,
        att=session.technology,
        ll=session.link_layer or None,
        more=(link_local,) if rng.random() < 0.3 else (),
    )
