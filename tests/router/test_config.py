"""TOML and flags -> Config, or every problem at once as `file:line: key: expected ...`."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Encapsulation, HoldBuffer, Offloads
from router.config import LISTS, SCHEMA, Anchoring, Cmd, Config, Gateway, Heartbeat, load
from router.errors import ConfigError, ExitCode
from router.toml_text import key_lines
from signaling.settings import Authentication, CmdMode, NodeProfile, PathCare, Peer, PeerLost, Transport

PROJECT = Path(__file__).resolve().parents[2]
KEY = "hex:000102030405060708090a0b0c0d0e0f"
EVERYTHING = f"""\
# a router with everything said
[router]
name = "mar1"
state_dir = "/var/lib/openmar/mar1"
tun = "mob0"
table = 100
realtime = 10

[underlay]
address = "2001:db8::1"
ipv4_address = "192.0.2.1"
encapsulation = "gre"
signaling = "udp"

[engine]
workers = 2
clamp_mss = true
refuse_offloads = ["uso", "udp_gro"]

[access]
interfaces = [
  "eth1",   # the first floor
  "eth2",
]
realm = "example.net"
fixed_link_layer = false
on_link = false
probe_interval = 5

[anchor]
prefixes = ["2001:db8:a1::/48", "2001:db8:b1:8000::/49"]
valid_lifetime = 3600
preferred_lifetime = 900
guard = 2.5
hold_octets = 4096
hold_seconds = 0.5
hold_pace = 0
idle_after = 90
open_idle_after = 900
peer_lost = "drop"
ipv4_prefixes = ["10.5.0.0/16"]
delegated_prefixes = ["2001:db8:d000::/36"]
delegated_length = 60
delete_delay = 5
assign_delay = 0.5
wait_for_deregistration = false
revoke_to_find_out = false
known_nodes_only = true
multipath = false
gre_keys = true
accept_forced_udp = true

[gateway]
anchor = "mar2"
services = {{ "mn1@example.net" = "internet" }}
local_routing = true
timestamps = false
gre_keys = true
ipv4 = true
force_udp = true
refresh_before = 20
bulk_refresh = false

[paths]
interval = 0.1
idle_interval = 2
suspect_after = 3
down_after = 4
up_after = 5

[heartbeat]
interval = 30
missing = 2

[binding]
lifetime = 60

[security]
authentication = "required"
timestamp_window = 0.5

[store]
url = "sqlite:///run/openmar/sessions.db"

[control]
socket = "/run/openmar/mar1.sock"

[[peer]]
name = "mar2"
address = "2001:db8::2"
key = "{KEY}"

[[peer]]
name = "mar3"
address = "2001:db8::3"
key = "{KEY}"
spi = 1000

[[node]]
id = "mn1@example.net"
link_layer = "02:00:00:00:00:11"

[cmd]
peer = "mar3"
mode = "relay"
aggregation = 0.2
most_anchors = 4
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "router.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture
def problems(write: Write) -> Callable[[str], list[str]]:
    """What is wrong with this text, without the name of the file before each."""

    def problems(text: str) -> list[str]:
        file = write(text)
        with pytest.raises(ConfigError) as caught:
            load(file)
        lines = str(caught.value).split("\n")
        assert all(line.startswith(f"{file}:") for line in lines), lines
        return [line.removeprefix(f"{file}:") for line in lines]

    return problems


# What is good


def test_every_key_reaches_the_configuration(write: Write) -> None:
    key = bytes(range(16))
    assert load(write(EVERYTHING)) == Config(
        name="mar1",
        state_dir=Path("/var/lib/openmar/mar1"),
        tun="mob0",
        table=100,
        address=IPv6Address("2001:db8::1"),
        encapsulation=Encapsulation.GRE,
        transport=Transport.UDP,
        interfaces=("eth1", "eth2"),
        realm="example.net",
        fixed_link_layer=False,
        on_link=False,
        probe_interval=5,
        prefixes=(IPv6Network("2001:db8:a1::/48"), IPv6Network("2001:db8:b1:8000::/49")),
        valid_lifetime=3600,
        preferred_lifetime=900,
        guard=2.5,
        hold=HoldBuffer(octets=4096, seconds=0.5, pace=0),
        idle_after=90,
        open_idle_after=900,
        peer_lost=PeerLost.DROP,
        ipv4_address=IPv4Address("192.0.2.1"),
        anchoring=Anchoring(
            ipv4_prefixes=(IPv4Network("10.5.0.0/16"),),
            delegated_prefixes=(IPv6Network("2001:db8:d000::/36"),),
            delegated_length=60,
            delete_delay=5,
            assign_delay=0.5,
            wait_for_deregistration=False,
            revoke_to_find_out=False,
            known_nodes_only=True,
            multipath=False,
            gre_keys=True,
            accept_forced_udp=True,
        ),
        gateway=Gateway(
            anchor="mar2",
            services={"mn1@example.net": "internet"},
            local_routing=True,
            timestamps=False,
            gre_keys=True,
            ipv4=True,
            force_udp=True,
            refresh_before=20,
            bulk_refresh=False,
        ),
        paths=PathCare(interval=0.1, idle_interval=2, suspect_after=3, down_after=4, up_after=5),
        heartbeat=Heartbeat(interval=30, missing=2),
        cmd=Cmd(peer="mar3", mode=CmdMode.RELAY, aggregation=0.2, most_anchors=4),
        profiles=(NodeProfile(node="mn1@example.net", link_layers=(bytes.fromhex("020000000011"),)),),
        binding_lifetime=60,
        authentication=Authentication.REQUIRED,
        timestamp_window=0.5,
        store="sqlite:///run/openmar/sessions.db",
        socket=Path("/run/openmar/mar1.sock"),
        peers=(
            Peer(name="mar2", address=IPv6Address("2001:db8::2"), key=key),
            Peer(name="mar3", address=IPv6Address("2001:db8::3"), key=key, spi=1000),
        ),
        nodes={bytes.fromhex("020000000011"): "mn1@example.net"},
        realtime=10,
        workers=2,
        clamp_mss=True,
        offloads=Offloads(uso=False, udp_gro=False),
    )


def test_every_key_of_the_language_is_tried_here() -> None:
    tried = key_lines(EVERYTHING)
    for table, keys in SCHEMA.items():
        assert {key for key in keys if (table, key) not in tried} == set()


def documented() -> list[tuple[str, str]]:
    """TOML of the documentation: whole files, and blocks of pages."""
    files = [(file.name, file.read_text()) for file in sorted(PROJECT.glob("docs/**/*.toml"))]
    for page in [*sorted(PROJECT.glob("docs/**/*.md")), *PROJECT.glob("README.md")]:
        blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        files += [(f"{page.name} {number}", block) for number, block in enumerate(blocks, 1)]
    return [(name, text) for name, text in files if "[project" not in text]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in documented()])
def test_what_the_documentation_shows_can_be_loaded(text: str, write: Write, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    load(write(re.sub(r'key_file = "[^"]*"', f'key_file = "{tmp_path}/key"', text)))


def test_nothing_at_all_is_a_good_configuration(write: Write) -> None:
    assert load(None) == load(write("")) == Config()


def test_the_store_and_the_socket_follow_from_the_name_and_the_state_directory() -> None:
    config = load(None, {"router": {"name": "mar9", "state_dir": "/state"}})
    assert config.store_url == "sqlite:///state/sessions.db"
    assert config.socket_path.name == "mar9.sock"


def test_a_key_is_read_from_a_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("00" * 16 + "\n")
    text = f'[[peer]]\nname = "a"\naddress = "2001:db8::2"\nkey_file = "{tmp_path}/key"'
    assert load(write(text)).peers[0].key == bytes(16)


def test_a_key_is_not_shown(write: Write) -> None:
    assert "0, 1, 2" not in (shown := repr(load(write(EVERYTHING))))
    assert "x01" not in shown


def test_peers_need_no_keys_when_authentication_is_off(write: Write) -> None:
    text = '[[peer]]\nname = "a"\naddress = "2001:db8::2"\n[security]\nauthentication = "none"'
    assert load(write(text)).peers[0].key == b""


# What is bad, value by value


BAD = [
    ("router", 'name = ""', "a name"),
    ("router", 'name = "../mar"', "a name"),
    ("router", "name = 5", "a name"),
    ("router", 'state_dir = ""', "a path"),
    ("router", r'state_dir = "a\u0000b"', "a path"),
    ("router", 'tun = "much-too-long-a-name"', "an interface name"),
    ("router", 'tun = "a/b"', "an interface name"),
    ("router", 'tun = ".."', "an interface name"),
    ("router", 'tun = "tun%d"', "an interface name"),
    ("router", r'tun = "a\u0000"', "an interface name"),
    ("router", 'tun = "äöüäöüäöü"', "an interface name"),
    ("router", "table = 0", "a whole number from 1 to 4294967294"),
    ("router", "table = 4294967295", "a whole number from 1 to 4294967294"),
    ("router", "table = true", "a whole number"),
    ("router", "table = 1.0", "a whole number"),
    ("underlay", 'address = "169.254.0.1"', "a unicast IPv4 address"),
    ("underlay", 'ipv4_address = "2001:db8::1"', "an IPv4 address"),
    ("underlay", 'ipv4_address = "224.0.0.1"', "a unicast IPv4 address"),
    ("underlay", 'address = "2001:db8::1/64"', "an IPv6 address"),
    ("underlay", "address = 1", "an IPv6 address"),
    ("underlay", 'address = "fe80::1"', "more than link scope"),
    ("underlay", 'address = "2001:db8::1%eth0"', "more than link scope"),
    ("underlay", 'address = "ff02::1"', "a unicast"),
    ("underlay", 'address = "::"', "a unicast"),
    ("underlay", 'address = "::ffff:192.0.2.1"', "a unicast"),
    ("underlay", 'encapsulation = "esp"', '"udp", "ip" or "gre"'),
    ("underlay", "encapsulation = []", '"udp", "ip" or "gre"'),
    ("underlay", 'signaling = "MH"', '"mh" or "udp"'),
    ("router", "realtime = 100", "a whole number from 0 to 99"),
    ("engine", "workers = -1", "a whole number from 0 to 32"),
    ("engine", "clamp_mss = 1", "true or false"),
    ("engine", 'refuse_offloads = ["tso", "lro"]', "a list of tso, uso, checksum, udp_segment, udp_gro"),
    ("engine", 'refuse_offloads = "tso"', "a list"),
    ("access", 'interfaces = "eth1"', "a list"),
    ("access", "interfaces = [1]", "an interface name"),
    ("access", 'realm = "a@b"', "a realm"),
    ("access", 'realm = ""', "a realm"),
    ("access", "fixed_link_layer = 1", "true or false"),
    ("access", 'on_link = "yes"', "true or false"),
    ("access", "probe_interval = -1", "a number from 0 to 3600 s"),
    ("access", "probe_interval = nan", "a number from 0 to 3600 s"),
    ("access", "probe_interval = inf", "a number from 0 to 3600 s"),
    ("anchor", 'prefixes = ["2001:db8::/65"]', "a prefix from /16 to /64"),
    ("anchor", 'prefixes = ["::/0"]', "a prefix from /16 to /64"),
    ("anchor", 'prefixes = ["2001:db8::1/48"]', "without host bits"),
    ("anchor", 'prefixes = ["10.0.0.0/8"]', "an IPv6 prefix"),
    ("anchor", 'prefixes = ["fe80::/64"]', "more than link scope"),
    ("anchor", 'prefixes = ["ff00::/16"]', "unicast"),
    ("anchor", "valid_lifetime = 59", "a whole number from 60 to 2592000 s"),
    ("anchor", "preferred_lifetime = 2592001", "a whole number from 30 to 2592000 s"),
    ("anchor", "guard = 0.5", "a number from 1 to 3600 s"),
    ("anchor", "hold_octets = -1", "a whole number from 0 to 1073741824 octets"),
    ("anchor", "hold_seconds = 0", "a number from 0.01 to 60 s"),
    ("anchor", "hold_pace = 0.5", "a whole number from 0 to 1099511627776 octets a second"),
    ("anchor", "idle_after = -1", "a number from 0 to 86400 s"),
    ("anchor", "open_idle_after = 604801", "a number from 0 to 604800 s"),
    ("anchor", 'peer_lost = "wait"', '"hold" or "drop"'),
    ("anchor", 'ipv4_prefixes = ["10.0.0.0/31"]', "a prefix from /8 to /30"),
    ("anchor", 'ipv4_prefixes = ["10.0.0.1/16"]', "without host bits"),
    ("anchor", 'ipv4_prefixes = ["2001:db8::/48"]', "an IPv4 prefix"),
    ("anchor", 'delegated_prefixes = ["2001:db8::/65"]', "a prefix from /16 to /64"),
    ("anchor", 'delegated_prefixes = "2001:db8::/48"', "a list"),
    ("anchor", "delegated_length = 65", "a whole number from 32 to 64"),
    ("anchor", "delete_delay = 0", "a number from 0.1 to 3600 s"),
    ("anchor", "assign_delay = 61", "a number from 0.1 to 60 s"),
    ("anchor", "wait_for_deregistration = 1", "true or false"),
    ("anchor", "revoke_to_find_out = 1", "true or false"),
    ("anchor", "known_nodes_only = 1", "true or false"),
    ("anchor", "multipath = 1", "true or false"),
    ("anchor", "gre_keys = 1", "true or false"),
    ("anchor", "accept_forced_udp = 1", "true or false"),
    ("gateway", 'anchor = ""', "a name"),
    ("gateway", 'services = "internet"', "a table of nodes and services"),
    ("gateway", 'services = { "mn1" = "internet" }', "an identifier"),
    ("gateway", 'services = { "mn1@example.net" = "" }', "the name of a service"),
    ("gateway", "local_routing = 1", "true or false"),
    ("gateway", "timestamps = 1", "true or false"),
    ("gateway", "gre_keys = 1", "true or false"),
    ("gateway", "ipv4 = 1", "true or false"),
    ("gateway", "force_udp = 1", "true or false"),
    ("gateway", "refresh_before = 0", "a number from 1 to 3600 s"),
    ("gateway", "bulk_refresh = 1", "true or false"),
    ("paths", "interval = 0", "a number from 0.01 to 60 s"),
    ("paths", "idle_interval = 0", "a number from 0.01 to 3600 s"),
    ("paths", "suspect_after = 0", "a whole number from 1 to 100"),
    ("paths", "down_after = 0", "a whole number from 1 to 100"),
    ("paths", "up_after = 1.5", "a whole number from 1 to 100"),
    ("heartbeat", "interval = 29", "a number from 30 to 3600 s"),
    ("heartbeat", "missing = 0", "a whole number from 1 to 100"),
    ("cmd", 'peer = "a b"', "a name"),
    ("cmd", 'mode = "both"', '"proxy", "relay" or "locator"'),
    ("cmd", "aggregation = 0", "a number from 0.01 to 10 s"),
    ("cmd", "most_anchors = 17", "a whole number from 1 to 16"),
    ("binding", "lifetime = 7", "a whole number from 8 to 262140 s"),
    ("security", 'authentication = "maybe"', '"required" or "none"'),
    ("security", "timestamp_window = 0", "a number from 0.01 to 60 s"),
    ("store", 'url = "etcd://localhost"', "there is no kind 'etcd'"),
    ("store", 'url = "redis://"', "redis://HOST:PORT/DB"),
    ("store", 'url = "redis://host:70000"', "a port from 1 to 65535"),
    ("store", 'url = "redis://host/sessions"', "the number of a database"),
    ("store", 'url = "redis+cluster://host/1"', "a cluster has no other one"),
    ("store", 'url = "redis://host?timeout=1"', "not timeout=1"),
    ("store", 'url = "redis://host?wait=many"', "wait=0..9"),
    ("store", 'url = "redis://host?ca=/ca.pem"', "no 'ca' without TLS"),
    ("store", 'url = "rediss://host?cert=/c.pem"', "'cert' and 'key' together"),
    ("store", "url = 1", '"sqlite://PATH"'),
    ("store", 'url = "sqlite://"', '"sqlite://PATH"'),
    ("store", 'url = "sqlite://:memory:"', "what is in memory no other router sees"),
    ("store", r'url = "sqlite:///a\u0000"', '"sqlite://PATH"'),
    ("control", f'socket = "/{"x" * 107}"', "at most 107 octets"),
    ("control", "socket = false", "a path"),
]


@pytest.mark.parametrize(("table", "line", "expected"), BAD)
def test_a_bad_value_is_named_with_what_was_expected(
    problems: Callable[[str], list[str]], table: str, line: str, expected: str
) -> None:
    key = line.split(" ")[0]
    (problem,) = problems(f"# one\n[{table}]\n\n{line}\n")
    assert problem.startswith(f"4: {table}.{key}: expected ")
    assert expected in problem


def test_every_key_of_the_language_has_a_bad_value_here() -> None:
    assert {(table, line.split(" ")[0]) for table, line, _ in BAD} == {(t, key) for t in SCHEMA for key in SCHEMA[t]}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('name = "a b"', "peer.name: expected a name"),
        ('address = "fe80::2"', "peer.address: expected a unicast"),
        ('key = "000102030405060708090a0b0c0d0e0f"', "peer.key: expected at least 32 hexadecimal digits"),
        ('key = "hex:0001020304"', "peer.key: expected at least 32 hexadecimal digits"),
        ('key = "hex:gg"', "peer.key: expected at least 32 hexadecimal digits"),
        ('key_file = "/nowhere/key"', "peer.key_file: expected a readable key file: No such file or directory"),
        ('key_file = "/"', "peer.key_file: expected a readable key file: Is a directory"),
        ("spi = 255", "peer.spi: expected a whole number from 256 to 4294967295"),
    ],
)
def test_a_bad_value_of_a_peer_is_placed_in_its_own_table(
    problems: Callable[[str], list[str]], line: str, expected: str
) -> None:
    key = line.split(" ")[0]
    good = {"name": "name = 'b'", "address": "address = '2001:db8::3'", "key": f"key = '{KEY}'"}
    good.pop("key" if key == "key_file" else key, None)
    first = f'[[peer]]\nname = "a"\naddress = "2001:db8::2"\nkey = "{KEY}"\n'
    (problem,) = problems(first + "[[peer]]\n" + "\n".join([*good.values(), line]))
    assert problem.startswith(f"{6 + len(good)}: {expected}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('id = "mn1"', "node.id: expected an identifier"),
        ('id = "mn1@a b"', "node.id: expected an identifier"),
        (f'id = "{"x" * 250}@a.b"', "node.id: expected an identifier"),
        ('link_layer = "020000000011"', "node.link_layer: expected a link-layer address"),
        ('link_layer = "02:00:00:00:00"', "node.link_layer: expected a link-layer address"),
    ],
)
def test_a_bad_value_of_a_node_is_named(problems: Callable[[str], list[str]], line: str, expected: str) -> None:
    good = {"id": 'id = "mn1@example.net"', "link_layer": 'link_layer = "02:00:00:00:00:11"'}
    good.pop(line.split(" ")[0])
    (problem,) = problems("[[node]]\n" + "\n".join([line, *good.values()]))
    assert problem.startswith(f"2: {expected}")


def test_a_key_file_that_is_no_text_is_refused(problems: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff" * 16)
    (problem,) = problems(f'[[peer]]\nname = "a"\naddress = "2001:db8::2"\nkey_file = "{tmp_path}/key"')
    assert problem == "4: peer.key_file: expected a readable key file: not text"


def test_a_key_is_not_repeated_in_the_problem(problems: Callable[[str], list[str]]) -> None:
    (problem,) = problems('[[peer]]\nname = "a"\naddress = "2001:db8::2"\nkey = "hex:c0ffeec0ffee"')
    assert "c0ffee" not in problem


# What is bad together


def test_a_peer_without_a_key_is_placed_at_its_table(problems: Callable[[str], list[str]]) -> None:
    (problem,) = problems('[router]\nname = "a"\n\n[[peer]]\nname = "b"\naddress = "2001:db8::2"\n')
    assert problem == '4: peer.key: missing: expected key or key_file, or [security] authentication = "none"'


def test_a_key_and_a_key_file_are_one_too_many(problems: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    table = f'[[peer]]\nname = "a"\naddress = "2001:db8::2"\nkey = "{KEY}"\nkey_file = "{tmp_path}/key"'
    assert problems(table) == ["5: peer.key_file: given twice: expected one of key and key_file"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[anchor]\nprefixes = ["2001:db8::/32", "2001:db8:1::/48"]', "2: anchor.prefixes: 2001:db8:1::/48 overlaps"),
        ("[anchor]\nvalid_lifetime = 60\npreferred_lifetime = 61", "3: anchor.preferred_lifetime: preferred 61 s"),
        ("[anchor]\nvalid_lifetime = 60", "2: anchor.valid_lifetime: preferred 1800 s, valid 60 s"),
        ('[access]\ninterfaces = ["eth1", "eth1"]', "2: access.interfaces: eth1 is named twice"),
        (EVERYTHING.replace('"mar3"', '"mar2"'), '94: peer.name: "mar2" is taken'),
        (EVERYTHING.replace("db8::3", "db8::2"), "95: peer.address: 2001:db8::2 belongs to mar2 above"),
        (EVERYTHING.replace("db8::3", "db8::1"), "95: peer.address: 2001:db8::1 is [underlay] address of this router"),
        (EVERYTHING + '[[node]]\nid = "a@b"\nlink_layer = "02:00:00:00:00:11"', "110: node.link_layer: has an identif"),
        ('[[peer]]\nname = "a"\nkey = "' + KEY + '"', "1: peer.address: missing: expected in every [[peer]]"),
        ('[[node]]\nlink_layer = "02:00:00:00:00:11"', "1: node.id: missing: expected in every [[node]]"),
    ],
)
def test_values_that_do_not_fit_together_are_told_where_they_stand(
    problems: Callable[[str], list[str]], text: str, expected: str
) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)


def test_a_value_that_is_wrong_by_itself_is_not_told_twice(problems: Callable[[str], list[str]]) -> None:
    assert len(problems("[anchor]\nvalid_lifetime = 'long'\npreferred_lifetime = 9000")) == 1


# Names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[anchor]\nprefixs = []", "2: anchor.prefixs: unknown key: did you mean prefixes?"),
        ("[acess]\nrealm = 'a'", "1: acess: unknown table: did you mean access?"),
        ("[[peers]]\nname = 'a'", "1: peers: unknown table: did you mean peer?"),
        ("[router]\nzzz = 1", "2: router.zzz: unknown key: expected one of name, state_dir, tun, table"),
        ("router = 5", "1: router: expected a table: [router]"),
        ("[[router]]\nname = 'a'", "1: router: expected a table: [router]"),
        ("[peer]\nname = 'a'", "1: peer: expected a list of tables: [[peer]]"),
        ("peer = [1]", "1: peer: expected a list of tables: [[peer]]"),
        ("[router.name]\nx = 1", "1: router.name: expected a name"),
    ],
)
def test_a_name_nobody_knows_is_told_with_the_nearest_one(
    problems: Callable[[str], list[str]], text: str, expected: str
) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)


# Lines


def test_every_problem_is_told_at_once_in_the_order_of_the_file(problems: Callable[[str], list[str]]) -> None:
    text = """\
[router]            # [underlay] is not here
name = "a b"

[access]
interfaces = [      # [anchor]
  "eth1 = [x]",
  '''
[anchor]
guard = 0
''',
]

[anchor]
note = "# no comment, [store], url = 'x'"
guard = 0

[[peer]]
name = "mar2"
address = "2001:db8::2"
[[peer]] # second
nme = "mar3"
"""
    found = [re.match(r"(\d+): ([\w.]+):", problem) for problem in problems(text)]
    assert [(int(place[1]), place[2]) for place in found if place] == [
        (2, "router.name"),
        (5, "access.interfaces"),
        (14, "anchor.note"),
        (15, "anchor.guard"),
        (17, "peer.key"),
        (20, "peer.name"),
        (20, "peer.address"),
        (20, "peer.key"),
        (21, "peer.nme"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\nrouter.name = ''", 3),
        ("\nrouter = { table = 5, name = '' }", 2),
        ("\n['router']\n\"name\" = ''", 3),
        ("[ router ]\nname=''", 2),
        ('[router]\ntun = """\nname = 1\n"""\nname = ""', 5),
        ("[router]\n# a\u2028b\x85c\nname = ''", 3),
        ("[anchor]\nprefixes = [\n[\n'a'],\n]\n[router]\nname = ''", 7),
        ("node = [\n{ id = 'a@b', link_layer = '02:00:00:00:00:11' },\n]\n[router]\nname = ''", 5),
    ],
)
def test_a_key_is_found_however_it_is_written(problems: Callable[[str], list[str]], text: str, line: int) -> None:
    found = [problem for problem in problems(text) if "router.name" in problem]
    assert [problem.split(":")[0] for problem in found] == [str(line)]


def test_a_list_of_inline_tables_is_placed_where_it_begins(problems: Callable[[str], list[str]]) -> None:
    (problem,) = problems('\npeer = [\n  { name = "a", address = "2001:db8::2" },\n]')
    assert problem.startswith("2: peer.key: missing")


# Files that are none


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[router]\nname = \n", "2: syntax: invalid value"),
        ("[router\n", "1: syntax: expected ']' at the end of a table declaration"),
        ("[router]\nname = 'a'\n\nname = 'b'\n", "4: syntax: cannot overwrite a value"),
        ('[router]\nname = """a\n\n', "2: syntax: unterminated string"),
        ("a = " + "1" * 5000, "1: syntax: a number of thousands of digits"),
        ("[anchor]\n[anchor]\n", '2: syntax: cannot declare "anchor" twice'),
        ("[anchor]\n[a.b]\n[a.b]\n", '3: syntax: cannot declare "a.b" twice'),
    ],
)
def test_a_syntax_error_has_its_line(problems: Callable[[str], list[str]], text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)


def test_a_tower_of_brackets_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(write("a = " + "[" * 100_000))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: No such file or directory: expected a readable TOML file"):
        load(tmp_path / "nothing.toml")


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_text("\ufeff[router]\nname = 'edge'\n")
    assert load(tmp_path / "marked.toml").name == "edge"


def test_a_file_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.toml_text.MOST_TEXT", 1000)
    with pytest.raises(ConfigError, match="/dev/zero: more than 1000 characters"):
        load(Path("/dev/zero"))


def test_a_key_file_is_no_device_and_no_pipe(problems: Callable[[str], list[str]], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in ("/dev/zero", tmp_path / "pipe"):
        (problem,) = problems(f"[[peer]]\nname = 'a'\naddress = '2001:db8::2'\nkey_file = '{file}'")
        assert problem == "4: peer.key_file: expected a readable key file: not a regular file"


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes("[router]\nname = 'ä'".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml: not UTF-8 text"):
        load(tmp_path / "latin.toml")


# Flags


def test_flags_replace_values_of_the_file(write: Write) -> None:
    config = load(write(EVERYTHING), {"router": {"name": "other"}, "anchor": {"prefixes": ["2001:db8:c1::/48"]}})
    assert config.name == "other"
    assert config.prefixes == (IPv6Network("2001:db8:c1::/48"),)
    assert config.guard == 2.5


def test_peers_given_by_flags_come_after_those_of_the_file(write: Write) -> None:
    config = load(write(EVERYTHING), {"peer": [{"name": "mar4", "address": "2001:db8::4", "key": KEY}]})
    assert [peer.name for peer in config.peers] == ["mar2", "mar3", "mar4"]


def test_a_flag_may_put_right_what_is_wrong_in_the_file(write: Write) -> None:
    assert load(write("[router]\nname = ''"), {"router": {"name": "a"}}).name == "a"


def test_problems_of_flags_and_file_are_told_together(write: Write) -> None:
    file = write("[anchor]\nguard = 0")
    with pytest.raises(ConfigError) as caught:
        load(file, {"underlay": {"address": "x"}, "peer": [{"name": "a", "address": "2001:db8::2"}]})
    told = str(caught.value).split("\n")
    assert told[0].startswith("command line: underlay.address: expected an IPv6 address")
    assert told[1].startswith("command line: peer.key: missing")
    assert told[2].startswith(f"{file}:2: anchor.guard: expected")


def test_a_flag_over_a_broken_table_leaves_that_to_be_told(write: Write) -> None:
    with pytest.raises(ConfigError, match=r":1: router: expected a table"):
        load(write("router = 5"), {"router": {"name": "a"}})


def test_without_a_file_problems_are_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"^command line: anchor.prefixes: expected an IPv6 prefix"):
        load(None, {"anchor": {"prefixes": ["zzz"]}})


# Anything


WORDS = st.sampled_from(
    [
        *SCHEMA,
        *LISTS,
        *(key for keys in (*SCHEMA.values(), *LISTS.values()) for key in keys),
        *("[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", " ", '"', "'", '"""', "'''", "#", "\\", "\u2028"),
        *('"2001:db8::1"', '"2001:db8::/48"', f'"{KEY}"', '"udp"', "1979-05-27T07:32:00Z", "nan", "1", "-1", "true"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(WORDS, max_size=30).map("".join), st.lists(WORDS, max_size=12).map(" ".join)))
def test_any_text_is_a_configuration_or_a_configuration_error(text: str) -> None:
    with tempfile.NamedTemporaryFile("wb") as file:
        file.write(text.encode(errors="surrogatepass"))
        file.flush()
        with suppress(ConfigError):
            assert isinstance(load(Path(file.name)), Config)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | WORDS
TABLES = st.dictionaries(WORDS, VALUES | st.lists(VALUES, max_size=2), max_size=4)


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_any_value_in_any_table_is_read_or_refused(content: dict[str, object]) -> None:
    for table in (*SCHEMA, *LISTS):
        for value in (content, [content]):
            with suppress(ConfigError):
                assert isinstance(load(None, {table: value}), Config)


# --check-config


WATCHED = """
import sys
def watch(event, arguments):
    if event.startswith("socket."):
        print("opened a socket:", event, arguments, file=sys.stderr)
        __import__("os")._exit(99)
sys.addaudithook(watch)
from router.cli import main
sys.exit(main(sys.argv[1:]))
"""


def check_config(file: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", WATCHED, "--check-config", str(file)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=20)


def test_check_config_opens_no_socket_and_says_good(write: Write) -> None:
    done = check_config(write(EVERYTHING))
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")
    assert done.stdout.endswith("router.toml: good\n")


def test_check_config_ends_with_2_and_every_problem(write: Write) -> None:
    file = write("[router]\nname = ''\ntable = 0\n")
    done = check_config(file)
    assert done.returncode == ExitCode.USAGE
    assert [line.split(": expected")[0] for line in done.stderr.splitlines()] == [
        f"{file}:2: router.name",
        f"{file}:3: router.table",
    ]
