"""Lending, holding back and taking back prefixes."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network

from signaling.prefix_pool import Ipv4Pool, Pool, PrefixPool

TWO = IPv6Network("2001:db8:100::/63")
FIRST, SECOND = TWO.subnets(new_prefix=64)
ELSEWHERE = IPv6Network("2001:db8:200::/64")


def test_a_prefix_is_lent_once() -> None:
    pool = PrefixPool([TWO])
    assert [pool.lend(), pool.lend(), pool.lend()] == [FIRST, SECOND, None]


def test_an_empty_pool_lends_nothing() -> None:
    assert PrefixPool([]).lend() is None


def test_a_second_pool_is_used_when_the_first_is_empty() -> None:
    pool = PrefixPool([FIRST, ELSEWHERE])
    assert [pool.lend(), pool.lend()] == [FIRST, ELSEWHERE]


def test_a_returned_prefix_is_lent_again_only_after_those_never_used() -> None:
    pool = PrefixPool([TWO])
    pool.lend()
    pool.give_back(FIRST)
    assert [pool.lend(), pool.lend()] == [SECOND, FIRST]


def test_the_longest_unused_prefix_comes_first() -> None:
    pool = PrefixPool([TWO])
    pool.lend()
    pool.lend()
    pool.give_back(SECOND)
    pool.give_back(FIRST)
    assert [pool.lend(), pool.lend()] == [SECOND, FIRST]


def test_a_claimed_prefix_is_not_lent() -> None:
    pool = PrefixPool([TWO])
    assert pool.claim(FIRST)
    assert [pool.lend(), pool.lend()] == [SECOND, None]


def test_a_prefix_that_is_lent_cannot_be_claimed() -> None:
    pool = PrefixPool([TWO])
    pool.lend()
    assert not pool.claim(FIRST)


def test_a_prefix_of_another_pool_cannot_be_claimed() -> None:
    assert not PrefixPool([TWO]).claim(ELSEWHERE)


def test_a_claimed_prefix_that_came_back_before_its_turn_is_lent_once() -> None:
    pool = PrefixPool([TWO])
    pool.claim(SECOND)
    pool.give_back(SECOND)
    assert [pool.lend(), pool.lend(), pool.lend()] == [FIRST, SECOND, None]


def test_only_a_64_of_the_pools_belongs_to_them() -> None:
    pool = PrefixPool([TWO])
    assert [prefix in pool for prefix in (FIRST, ELSEWHERE, TWO)] == [True, False, False]


def test_the_length_counts_what_is_lent() -> None:
    pool = PrefixPool([TWO])
    pool.lend()
    pool.claim(SECOND)
    pool.give_back(FIRST)
    assert len(pool) == 1


def test_a_reserved_prefix_is_neither_lent_nor_claimed_nor_counted() -> None:
    pool = PrefixPool([TWO], reserved=[FIRST])
    assert not pool.claim(FIRST)
    assert [pool.lend(), pool.lend()] == [SECOND, None]
    assert len(pool) == 1


def test_a_reserved_prefix_that_comes_back_stays_reserved() -> None:
    pool = PrefixPool([TWO], reserved=[FIRST])
    pool.give_back(FIRST)
    assert [pool.lend(), pool.lend()] == [SECOND, None]


def test_what_was_never_of_the_pool_does_not_come_back_to_it() -> None:
    pool = PrefixPool([FIRST])
    pool.lend()
    pool.give_back(ELSEWHERE)
    assert pool.lend() is None


def test_delegated_prefixes_have_the_length_that_is_configured() -> None:
    pool = Pool([IPv6Network("2001:db8:d00::/48")], 56)
    assert pool.lend() == IPv6Network("2001:db8:d00::/56")
    assert pool.lend() == IPv6Network("2001:db8:d00:100::/56")


def test_ipv4_addresses_begin_after_the_router() -> None:
    pool = Ipv4Pool([IPv4Network("203.0.113.0/30")])
    assert [pool.lend(), pool.lend()] == [IPv4Network("203.0.113.2/32"), None]


def test_an_ipv4_address_has_the_router_and_the_length_of_its_pool() -> None:
    pool = Ipv4Pool([IPv4Network("198.51.100.0/24"), IPv4Network("203.0.113.0/29")])
    address = IPv4Address("203.0.113.5")
    assert pool.subnet(address) == IPv4Network("203.0.113.0/29")
    assert pool.router(address) == IPv4Address("203.0.113.1")


def test_an_ipv4_address_of_no_pool_has_no_router() -> None:
    pool = Ipv4Pool([])
    assert pool.subnet(IPv4Address("203.0.113.5")).prefixlen == 32
    assert pool.router(IPv4Address("203.0.113.5")) is None
