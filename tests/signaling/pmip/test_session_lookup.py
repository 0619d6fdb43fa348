"""Which session an update is about: RFC 5213 5.4.1 A, B and C row by row, HI 6 of RFC 7864, and several paths."""

from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from signaling.iana import BindingUpdateFlag, Status
from signaling.pmip.mobility_session import CareOf, MobilitySession
from signaling.pmip.registration_request import RegistrationRequest
from signaling.pmip.session_cache import SessionCache
from signaling.pmip.session_lookup import Finding, Outcome, find
from signaling.update_request import ALL_ZERO
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from tests.signaling.pmip.lma_scene import multipath

ONE, TWO, THREE = (IPv6Network((0x20010DB8010000000000000000000000 + (number << 64), 64)) for number in range(3))
HERE, THERE = IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:2::1")
IF1, IF2 = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"
WIFI, LTE = 4, 8


class Cache(SessionCache):
    """A cache that is filled in a line."""

    def has(
        self,
        *prefixes: IPv6Network,
        node: str = "mn1",
        ll: bytes = IF1,
        att: int = WIFI,
        at: IPv6Address = HERE,
        gateway: str = "mag1",
        binding_id: int = 0,
    ) -> MobilitySession:
        session = MobilitySession(len(self) + 1, node, gateway)
        session.prefixes, session.link_layer, session.technology = prefixes, ll, att
        session.care_ofs = (CareOf(binding_id, at),)
        self.add(session)
        return session


def ask(
    cache: SessionCache,
    *prefixes: IPv6Network,
    node: str = "mn1",
    ll: bytes | None = IF1,
    att: int = WIFI,
    hi: int = 5,
    at: IPv6Address = THERE,
    gateway: str = "mag2",
    more: tuple[Option, ...] = (),
    **options: Any,
) -> Finding:
    update = BindingUpdate(
        sequence_number=1,
        flags=BindingUpdateFlag.PROXY_REGISTRATION,
        lifetime=300,
        options=(
            MobileNodeIdentifier(identifier=node.encode()),
            *(HomeNetworkPrefix(prefix=prefix) for prefix in prefixes),
            HandoffIndicatorOption(indicator=hi),
            AccessTechnologyTypeOption(technology=att),
            *((MobileNodeLinkLayerIdentifier(identifier=ll),) if ll is not None else ()),
            *more,
        ),
    )
    return find(RegistrationRequest(update, at, gateway), cache, **options)


@pytest.fixture
def cache() -> Cache:
    return Cache()


# --- A: a prefix is named -----------------------------------------------------------------------------------------


def test_a2_a_prefix_that_no_session_has_begins_one(cache: Cache) -> None:
    cache.has(ONE)
    assert ask(cache, TWO).outcome is Outcome.NEW


def test_a3_the_prefix_of_another_node_is_refused_with_155(cache: Cache) -> None:
    cache.has(ONE, node="mn2")
    assert ask(cache, ONE).status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


@pytest.mark.parametrize("named", [(ONE,), (ONE, TWO, THREE), (ONE, THREE)])
def test_a4_another_set_of_prefixes_is_refused_with_159(cache: Cache, named: tuple[IPv6Network, ...]) -> None:
    cache.has(ONE, TWO)
    assert ask(cache, *named).status == Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH


def test_a4_prefixes_of_two_sessions_are_refused_with_159(cache: Cache) -> None:
    cache.has(ONE)
    cache.has(TWO, ll=IF2)
    assert ask(cache, ONE, TWO).status == Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH


def test_the_order_of_prefixes_does_not_matter(cache: Cache) -> None:
    session = cache.has(ONE, TWO)
    assert ask(cache, TWO, ONE) == (Outcome.UPDATE, session, None)


def test_a5a_the_same_interface_updates(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ONE, hi=1) == (Outcome.UPDATE, session, None)


def test_a5b_a_handoff_between_interfaces_updates_whatever_the_interface(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ONE, hi=2, ll=IF2, att=LTE) == (Outcome.UPDATE, session, None)


def test_a5c_unknown_interfaces_of_one_technology_update_with_hi_3(cache: Cache) -> None:
    session = cache.has(ONE, ll=b"")
    assert ask(cache, ONE, hi=3, ll=None) == (Outcome.UPDATE, session, None)


def test_a5c_an_interface_of_zeros_is_an_unknown_one(cache: Cache) -> None:
    session = cache.has(ONE, ll=b"")
    assert ask(cache, ONE, hi=3, ll=bytes(6)) == (Outcome.UPDATE, session, None)


def test_a5d_the_same_proxy_coa_and_technology_update(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ONE, ll=IF2, at=HERE) == (Outcome.UPDATE, session, None)


def test_a6_none_of_these_collides_with_the_session_that_has_the_prefix(cache: Cache) -> None:
    cache.has(ONE)
    assert ask(cache, ONE, ll=IF2).status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a6_the_same_interface_of_another_technology_is_another_interface(cache: Cache) -> None:
    cache.has(ONE)
    assert ask(cache, ONE, att=LTE).outcome is Outcome.REFUSE


def test_hi_6_updates_the_session_of_its_interface(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ONE, hi=6) == (Outcome.UPDATE, session, None)


def test_hi_6_of_another_interface_shares_the_prefixes(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ONE, hi=6, ll=IF2) == (Outcome.SHARE, session, None)


def test_of_sessions_that_share_a_prefix_the_one_of_the_interface_is_meant(cache: Cache) -> None:
    cache.has(ONE)
    second = cache.has(ONE, ll=IF2, at=THERE)
    assert ask(cache, ONE, ll=IF2).session is second


def test_a_handoff_from_one_of_several_sharing_interfaces_shares_too(cache: Cache) -> None:
    cache.has(ONE)
    cache.has(ONE, ll=IF2)
    assert ask(cache, ONE, hi=2, ll=b"\x02\0\0\0\0\3").outcome is Outcome.SHARE


def test_a_further_interface_shares_where_the_profile_says_so(cache: Cache) -> None:
    cache.has(ONE)
    assert ask(cache, ONE, hi=1, ll=IF2, shares=True).outcome is Outcome.SHARE


def test_a_multipath_binding_updates_by_node_and_prefixes_alone(cache: Cache) -> None:
    session = cache.has(ONE, binding_id=1)
    assert ask(cache, ONE, hi=1, ll=IF2, att=LTE, more=multipath(2)).session is session


def test_a_multipath_binding_without_mag_identifier_is_none(cache: Cache) -> None:
    cache.has(ONE, binding_id=1)
    assert ask(cache, ONE, hi=1, ll=IF2, more=multipath(2, mag_id=None)).outcome is Outcome.REFUSE


# --- B: no prefix, an interface -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hi", [1, 2, 3, 4, 5])
def test_b2_the_same_node_technology_and_interface_update(cache: Cache, hi: int) -> None:
    session = cache.has(ONE)
    cache.has(TWO, ll=IF2)
    assert ask(cache, ALL_ZERO, hi=hi) == (Outcome.UPDATE, session, None)


def test_b3_a_handoff_between_interfaces_updates_the_only_session(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ALL_ZERO, hi=2, ll=IF2, att=LTE) == (Outcome.UPDATE, session, None)


def test_b3_with_two_sessions_it_begins_one(cache: Cache) -> None:
    cache.has(ONE)
    cache.has(TWO, ll=IF2)
    assert ask(cache, ALL_ZERO, hi=2, ll=b"\x02\0\0\0\0\3").outcome is Outcome.NEW


def test_b4_an_unknown_handoff_waits_for_the_only_session(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ALL_ZERO, hi=4, ll=IF2) == (Outcome.WAIT, session, None)


@pytest.mark.parametrize("hi", [1, 3, 5])
def test_b5_any_other_handoff_of_an_unknown_interface_begins_a_session(cache: Cache, hi: int) -> None:
    cache.has(ONE)
    assert ask(cache, ALL_ZERO, hi=hi, ll=IF2).outcome is Outcome.NEW


def test_b5_a_node_without_sessions_begins_one(cache: Cache) -> None:
    assert ask(cache, ALL_ZERO, hi=4).outcome is Outcome.NEW


# --- C: neither ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hi", [2, 3])
def test_c2_a_handoff_updates_the_only_session(cache: Cache, hi: int) -> None:
    session = cache.has(ONE)
    assert ask(cache, ALL_ZERO, hi=hi, ll=None) == (Outcome.UPDATE, session, None)


def test_c3_an_unknown_handoff_waits_for_the_only_session(cache: Cache) -> None:
    session = cache.has(ONE)
    assert ask(cache, ALL_ZERO, hi=4, ll=None) == (Outcome.WAIT, session, None)


@pytest.mark.parametrize("hi", [1, 5])
def test_c4_anything_else_begins_a_session(cache: Cache, hi: int) -> None:
    cache.has(ONE)
    assert ask(cache, ALL_ZERO, hi=hi, ll=None).outcome is Outcome.NEW


@pytest.mark.parametrize("hi", [2, 3, 4])
def test_c4_with_two_sessions_every_handoff_begins_one(cache: Cache, hi: int) -> None:
    cache.has(ONE)
    cache.has(TWO, ll=IF2)
    assert ask(cache, ALL_ZERO, hi=hi, ll=None).outcome is Outcome.NEW


def test_a_named_prefix_goes_before_the_interface_and_the_interface_before_the_node(cache: Cache) -> None:
    first, second = cache.has(ONE, ll=IF1), cache.has(TWO, ll=IF2)
    assert ask(cache, ONE, ll=IF2, hi=2) == Finding(Outcome.UPDATE, first)  # A, although B would find the second
    assert ask(cache, ALL_ZERO, ll=IF2, hi=2) == Finding(Outcome.UPDATE, second)  # B, although C would find none
    cache.remove(second)
    assert ask(cache, ALL_ZERO, ll=IF2, hi=3).outcome is Outcome.NEW  # B, although C would find the first
    assert ask(cache, ALL_ZERO, ll=None, hi=3) == Finding(Outcome.UPDATE, first)


def test_another_node_is_never_found(cache: Cache) -> None:
    cache.has(ONE, node="mn2")
    assert ask(cache, ALL_ZERO, hi=2).outcome is Outcome.NEW


def test_a_path_that_does_not_know_the_prefix_yet_finds_the_session_of_its_mag(cache: Cache) -> None:
    session = cache.has(ONE, ll=b"", binding_id=1, gateway="van")
    found = ask(cache, ALL_ZERO, hi=1, ll=None, gateway="van", more=multipath(2))
    assert found == (Outcome.UPDATE, session, None)
