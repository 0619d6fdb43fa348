"""Where tunnels begin, when nobody said it."""

from ipaddress import IPv6Address, IPv6Network
from types import SimpleNamespace
from typing import Any

import pytest

from router.config import Config
from router.errors import ConfigError
from router.machine import find_underlay

HERE = IPv6Address("2001:db8:ff::a")


def netlink() -> Any:
    link = SimpleNamespace(index=2, name="eth0", mtu=1500)
    return SimpleNamespace(
        default_route=lambda: SimpleNamespace(prefsrc=HERE, oif=2),
        addresses=lambda **_: [SimpleNamespace(address=HERE, index=2)],
        link=lambda _: link,
    )


def test_the_underlay_is_where_the_default_route_begins() -> None:
    found = find_underlay(Config(prefixes=(IPv6Network("2001:db8:1000::/48"),)), netlink())
    assert (found.address, found.why) == (HERE, "of the default route")


def test_an_underlay_that_was_found_in_a_pool_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        find_underlay(Config(prefixes=(IPv6Network("2001:db8:ff::/48"),)), netlink())
    assert str(caught.value) == (
        "[anchor]: 2001:db8:ff::/48 holds 2001:db8:ff::a, where tunnels begin (of the default route): "
        "expected pools apart from the addresses of routers, or another address with --underlay"
    )
