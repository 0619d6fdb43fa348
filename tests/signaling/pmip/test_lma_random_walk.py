"""Whatever MAGs say in whatever order, the books of an LMA agree: cache, pools, gateways, data path, store."""

import random
from collections import Counter
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from signaling.actions import Action, Bind, ForgetBinding, Held, SaveBinding, TowardVisited, Unbind
from signaling.iana import MultipathBindingFlag
from signaling.pmip.registration_request import key_of
from signaling.pmip.saved_binding import SavedBinding
from signaling.settings import NodeProfile, Prefix, Sharing
from signaling.update_request import ALL_ZERO
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix
from tests.signaling.pmip.lma_scene import IF1, IF2, IF3, LTE, MAGS, WLAN, Scene, multipath

NODES = ("mn1@example.net", "mn2@example.net", "shared@example.net", "alone")
STEPS = 200


class Books:
    """What the data path and the store would hold."""

    def __init__(self) -> None:
        self.bound: dict[Prefix, Any] = {}
        self.saved: dict[int, SavedBinding] = {}

    def keep(self, turn: list[Action]) -> None:
        for action in turn:
            if isinstance(action, Bind):
                self.bound[action.prefix] = action.path
            elif isinstance(action, Unbind):
                del self.bound[action.prefix]
            elif isinstance(action, SaveBinding):
                self.saved[action.binding.number] = action.binding
            elif isinstance(action, ForgetBinding):
                del self.saved[action.number]


def anything(scene: Scene, rng: random.Random) -> list[Action]:
    """One thing that may happen."""
    if rng.random() < 0.2:
        return scene.wait(rng.choice((0.5, 3.0, 12.0, 120.0, 310.0)))
    if rng.random() < 0.03:
        scene.now += 0.01
        return scene.lma.revoke(rng.choice((*NODES, "mag1", "@example.net", None)), scene.now)
    node = rng.choice(NODES)
    sessions = scene.sessions(node)
    prefixes: tuple[IPv6Network, ...] | None = (ALL_ZERO,)
    more: list[Any] = []
    if sessions and rng.random() < 0.7:
        session = rng.choice(sessions)
        prefixes = session.prefixes or None
        if session.ipv4_home is not None and rng.random() < 0.7:
            more.append(Ipv4HomeAddressRequest(address=session.ipv4_home, prefix_length=24))
    elif rng.random() < 0.3:
        more.append(Ipv4HomeAddressRequest())
    if rng.random() < 0.2:
        more.append(DelegatedMobileNetworkPrefix(prefix=ALL_ZERO))
    gateway: Any = rng.choice(list(MAGS))
    if rng.random() < 0.4:
        gateway = rng.choice((WLAN, LTE))
        more += multipath(rng.choice((1, 2, 3)), rng.choice((0, *MultipathBindingFlag)))
    return scene.say(
        gateway,
        node=node,
        prefixes=prefixes,
        hi=rng.choice((1, 2, 3, 4, 5, 6)),
        att=rng.choice((4, 4, 8)),
        ll=rng.choice((IF1, IF2, IF3, None)),
        lifetime=rng.choice((0, 100, 300)),
        more=tuple(more),
    )


def check(scene: Scene, books: Books) -> None:
    sessions = list(scene.cache)
    assert len(scene.cache) == len(sessions) == len({session.number for session in sessions})
    assert set(books.bound) == {prefix for session in sessions for prefix in session.bound}
    assert set(books.saved) == {session.number for session in sessions}
    held: Counter[tuple[str, int]] = Counter()
    for session in sessions:
        assert session.care_ofs
        assert all(session in scene.cache.holding(key_of(prefix)) for prefix in session.prefixes)
        assert session in scene.cache.of(session.node)
        if not session.leaving:
            held.update((session.gateway, care_of.way_id) for care_of in session.care_ofs)
        saved, now = books.saved[session.number], session.saved()
        assert (saved.gateway, saved.prefixes, saved.ipv4_home, saved.delegated, saved.link_layer) == (
            now.gateway, now.prefixes, now.ipv4_home, now.delegated, now.link_layer
        )
        assert [it.care_of for it in saved.care_ofs] == [it.care_of for it in now.care_ofs]
        for prefix in session.bound:
            sharers = scene.cache.sharing(session, prefix)
            ways = [path.address for it in sharers if not it.leaving for path in it.care_ofs]
            path = books.bound[prefix]
            assert (path == Held()) == (not ways)
            if isinstance(path, TowardVisited):
                assert [tunnel.remote for tunnel in path.tunnels] == ways
    assert {key: reach.sessions for key, reach in scene.anchor.gateways._reach.items()} == dict(held)
    allotments = scene.anchor.sessions.allotments
    assert len(allotments.prefixes) == len({prefix for session in sessions for prefix in session.prefixes})
    assert len(allotments.ipv4) == len({it.ipv4_home for it in sessions if it.ipv4_home is not None})
    assert len(allotments.delegated) == len({prefix for session in sessions for prefix in session.delegated})


@pytest.mark.parametrize("seed", range(6))
def test_the_books_agree_after_every_step(seed: int) -> None:
    rng = random.Random(seed)
    scene = Scene(
        profiles=(NodeProfile(node="shared@example.net", sharing=Sharing.SHARED_ADDRESS),),
        ipv4_pools=(IPv4Network("203.0.113.0/24"),),
        delegated_pools=(IPv6Network("2001:db8:d00::/40"),),
    )
    books = Books()
    for _ in range(STEPS):
        books.keep(anything(scene, rng))
        check(scene, books)
