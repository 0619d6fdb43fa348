"""The token bucket."""

from signaling.rate_limit import RateLimit


def test_a_burst_passes_and_no_more() -> None:
    limit = RateLimit(rate=1.0, burst=3)
    assert [limit.allows(0.0) for _ in range(5)] == [True, True, True, False, False]


def test_tokens_come_back_at_the_rate() -> None:
    limit = RateLimit(rate=2.0, burst=1)
    assert [limit.allows(at) for at in (0.0, 0.4, 0.6, 1.0, 1.2)] == [True, False, True, False, True]


def test_a_long_silence_earns_no_more_than_a_burst() -> None:
    limit = RateLimit(rate=10.0, burst=2)
    limit.allows(0.0)
    assert [limit.allows(1000.0) for _ in range(3)] == [True, True, False]


def test_what_was_refused_costs_nothing() -> None:
    limit = RateLimit(rate=1.0, burst=1)
    limit.allows(0.0)
    for tenth in range(1, 10):
        limit.allows(tenth / 10)
    assert limit.allows(1.01)
