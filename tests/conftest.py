"""Tests may run in several processes (`pytest -n`): each gets a loopback of its own, so that no port is taken."""

from contextlib import suppress

import pytest
from hypothesis import settings

from router.demo.lab import CLONE_NEWNET, unshare
from router.links.netlink import Netlink

settings.register_profile("patient", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        return
    with suppress(PermissionError):  # outside a lab tests share what there is
        unshare(CLONE_NEWNET)
        with Netlink() as netlink:
            netlink.set_up(netlink.link("lo").index)
