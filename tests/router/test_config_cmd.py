"""The configuration of a CMD and of the MARs that follow it: what only several values together can tell."""

from collections.abc import Callable
from pathlib import Path

import pytest

from router.config import load
from router.errors import ConfigError
from router.places import RoleName

KEY = "hex:000102030405060708090a0b0c0d0e0f"
FOLLOWER = f'''
[cmd]
peer = "cmd"

[[peer]]
name = "cmd"
address = "2001:db8::c"
key = "{KEY}"
'''
TWO_INTERFACES = """
[[node]]
id = "mn1@example.net"
link_layer = "02:00:00:00:00:11"

[[node]]
id = "mn1@example.net"
link_layer = "02:00:00:00:00:12"
"""
Problem = Callable[[str, RoleName], str]


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    """The one thing that is wrong with this text, for this role."""

    def problem(text: str, role: RoleName) -> str:
        file = tmp_path / "router.toml"
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(file, role=role)
        (line,) = str(caught.value).split("\n")
        return line.removeprefix(f"{file}:")

    return problem


def test_a_mar_with_a_cmd_is_good_without_a_store(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text(FOLLOWER)
    config = load(file, role=RoleName.MAR)
    assert (config.cmd.peer, config.store) == ("cmd", None)


@pytest.mark.parametrize(
    ("text", "role", "expected"),
    [
        (FOLLOWER + '[store]\nurl = "sqlite:///s"\n', RoleName.MAR, "store.url: there is [cmd] peer too"),
        (FOLLOWER.replace('"cmd"', '"other"', 1), RoleName.MAR, "cmd.peer: other is no [[peer]]: expected one of: cmd"),
        (FOLLOWER.replace("[cmd]", '[cmd]\nmode = "locator"'), RoleName.MAR, 'cmd.mode: "locator" has MARs'),
        (FOLLOWER + TWO_INTERFACES, RoleName.MAR, "node.link_layer: mn1@example.net has another one above"),
        (FOLLOWER, RoleName.CMD, "cmd.peer: expected none: this is the CMD itself"),
        (f'[[peer]]\nname = "a"\nspi = 700\nkey = "{KEY}"\n', RoleName.CMD, "peer.address: expected an IPv6 address"),
        (f'[[peer]]\nname = "a"\naddress = "192.0.2.1"\nkey = "{KEY}"\n', RoleName.CMD, "peer.address: expected"),
        ('[underlay]\naddress = "192.0.2.1"\n', RoleName.CMD, "underlay.address: expected an IPv6 address"),
    ],
)
def test_what_does_not_fit_together_is_told_in_a_line(
    problem: Problem, text: str, role: RoleName, expected: str
) -> None:
    assert expected in problem(text, role)
