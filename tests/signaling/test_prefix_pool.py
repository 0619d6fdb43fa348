"""Lending, holding back and taking back prefixes."""

from ipaddress import IPv6Network

from signaling.prefix_pool import PrefixPool

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
