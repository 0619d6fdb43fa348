"""What an LMA and a MAG are told: profiles, uplinks, sites, labels, and what each role cannot do without."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from router.config import LISTS, Config, load
from router.errors import ConfigError
from router.places import RoleName
from router.role_settings import lma_settings, mag_settings, mar_settings
from router.toml_text import key_lines
from signaling.iana import AccessTechnologyType
from signaling.settings import NodeProfile, PathCare, Peer, Sharing, Site, Uplink

KEY = "hex:000102030405060708090a0b0c0d0e0f"
HERE = IPv6Address("2001:db8::1")
EVERYTHING = f"""\
[access]
interfaces = ["lan0", "lan1"]

[anchor]
prefixes = ["2001:db8:1000::/36"]

[gateway]
anchor = "lma"

[labels]
wlan = 1
lte = 2

[[peer]]
name = "lma"
address = "2001:db8::a"
addresses = ["192.0.2.10"]
key = "{KEY}"

[[peer]]
name = "bus1"
key = "{KEY}"
spi = 700

[[node]]
id = "mn1@example.net"
link_layer = "02:00:00:00:00:11"
gateways = ["bus1"]
refused = false
prefixes = ["2001:db8:1000:1::/64"]
ipv6 = true
ipv4 = true
ipv4_address = "10.5.0.9"
services = ["internet"]
delegation = true
delegated = ["2001:db8:d000::/56"]
sharing = "shared-prefix"
multipath = false
takes_over = true
policy = "voice"

[[node]]
id = "mn1@example.net"
link_layer = "02:00:00:00:00:12"

[[node]]
id = "*"
ipv4 = false
delegation = false

[[uplink]]
interface = "wlan0"
address = "2001:db8:3::7"
att = "ieee-802-11"
label = "wlan"
bid = 7
weight = 5

[[uplink]]
interface = "wwan0"
label = 2

[[site]]
node = "bus1@example.net"
interface = "lan0"
delegated_interface = "lan1"

[[site]]
node = "van@example.net"
delegated = false

[[flow]]
policy = "voice"
name = "calls"
family = "ipv6"
source = "2001:db8:cccc::/48"
destination = "2001:db8:1000::1"
source_port = 5060
destination_port = "5004-5010"
protocol = "udp"
traffic_class = 184
flow_label = "0-1048575"
labels = ["lte", 1]
spread = "bicast"

[[flow]]
policy = "voice"
spi = 256

[underlay]
encapsulation = "gre"
"""

Problems = Callable[..., list[str]]


@pytest.fixture
def problems(read: Callable[..., Config], tmp_path: Path) -> Problems:
    def problems(text: str, role: RoleName | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, role)
        return [line.removeprefix(f"{tmp_path}/router.toml:") for line in str(caught.value).split("\n")]

    return problems


# What is good


def test_every_key_of_a_list_is_tried_here() -> None:
    tried = {(place[0], place[2]) for place in key_lines(EVERYTHING) if len(place) == 3}
    missing = {(table, key) for table, keys in LISTS.items() for key in keys} - tried
    assert missing == {("peer", "key_file")}


def test_a_profile_is_what_all_tables_of_a_node_say(read: Callable[..., Config]) -> None:
    config = read(EVERYTHING)
    assert config.profiles == (
        NodeProfile(
            node="mn1@example.net",
            link_layers=tuple(bytes((2, 0, 0, 0, 0, number)) for number in (0x11, 0x12)),
            gateways=("bus1",),
            prefixes=(IPv6Network("2001:db8:1000:1::/64"),),
            ipv4_address=IPv4Address("10.5.0.9"),
            services=("internet",),
            delegated=(IPv6Network("2001:db8:d000::/56"),),
            sharing=Sharing.SHARED_PREFIX,
            multipath=False,
            takes_over=True,
            policy="voice",
        ),
        NodeProfile(node="", ipv4=False, delegation=False),
    )
    assert {octets[-1]: node for octets, node in config.nodes.items()} == {
        0x11: "mn1@example.net",
        0x12: "mn1@example.net",
    }


def test_uplinks_know_their_label_by_number_and_have_a_bid_by_their_place(read: Callable[..., Config]) -> None:
    assert read(EVERYTHING).uplinks == (
        Uplink(
            interface="wlan0",
            binding_id=7,
            label=1,
            weight=5,
            technology=AccessTechnologyType.IEEE_802_11,
            address=IPv6Address("2001:db8:3::7"),
        ),
        Uplink(interface="wwan0", binding_id=2, label=2),
    )


def test_a_site_is_read(read: Callable[..., Config]) -> None:
    assert read(EVERYTHING).sites == (
        Site(node="bus1@example.net", interface="lan0", delegated_interface="lan1"),
        Site(node="van@example.net", delegated=False),
    )


def test_a_peer_has_several_addresses_or_none_at_all(read: Callable[..., Config]) -> None:
    key = bytes(range(16))
    assert read(EVERYTHING).peers == (
        Peer(name="lma", address=IPv6Address("2001:db8::a"), addresses=(IPv4Address("192.0.2.10"),), key=key),
        Peer(name="bus1", address=None, key=key, spi=700),
    )


def test_a_router_is_called_after_its_role_unless_it_has_a_name(read: Callable[..., Config]) -> None:
    assert read(EVERYTHING, RoleName.MAG).name == "mag"
    assert read(EVERYTHING, RoleName.LMA).name == "lma"
    assert read('[router]\nname = "edge"', RoleName.MAR).name == "edge"


@pytest.mark.parametrize("role", RoleName)
def test_keys_of_other_roles_are_no_error(read: Callable[..., Config], role: RoleName) -> None:
    text = EVERYTHING
    if role is RoleName.MAR:  # its peers do not roam, and it knows nodes by their link-layer address
        text = text.replace('key = "' + KEY + '"\nspi = 700', 'address = "2001:db8::b"\nkey = "' + KEY + '"')
        text = text.replace('id = "*"\nipv4 = false', 'id = "mn2@a.b"\nlink_layer = "02:00:00:00:00:13"')
        # and moves flows as its kernel can tell them apart, one way to each router
        text = re.sub(r"(takes_over|labels|spread|flow_label|spi) = .*\n", "", text)
    if role is RoleName.CMD:  # nor do the routers that follow it
        text = text.replace('key = "' + KEY + '"\nspi = 700', 'address = "2001:db8::b"\nkey = "' + KEY + '"')
    assert read(text, role).role is role


def test_a_configuration_can_be_read_again_under_the_same_flags(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text("[anchor]\nprefixes = ['2001:db8:1000::/48']")
    config = load(file, {"router": {"name": "edge"}}, role=RoleName.LMA)
    file.write_text("[anchor]\nprefixes = ['2001:db8:2000::/48']")
    again = config.read_again()
    assert (again.name, again.role, again.prefixes) == ("edge", RoleName.LMA, (IPv6Network("2001:db8:2000::/48"),))


# What a role is told


def test_an_lma_is_told_its_part(read: Callable[..., Config]) -> None:
    config = read(EVERYTHING + "[paths]\ninterval = 0.2\n[heartbeat]\nmissing = 5", RoleName.LMA)
    told = lma_settings(config, HERE, 1400, 7)
    assert (told.address, told.tunnel_mtu, told.restart_counter, told.name) == (HERE, 1400, 7, "lma")
    assert (told.pools, told.profiles, told.policies) == (config.prefixes, config.profiles, config.policies)
    assert (told.paths, told.missing_heartbeats) == (PathCare(interval=0.2), 5)


def test_every_field_of_an_lma_but_two_can_be_configured(read: Callable[..., Config]) -> None:
    text = """
[underlay]
encapsulation = "gre"
[anchor]
prefixes = ["2001:db8:1000::/48"]
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
"""
    told = lma_settings(read(text, RoleName.LMA), HERE, 1400, 0)
    assert (told.delegated_length, told.delete_delay, told.assign_delay) == (60, 5, 0.5)
    flags = (told.wait_for_deregistration, told.revoke_to_find_out, told.multipath)
    assert (flags, told.known_nodes_only, told.gre_keys, told.accept_forced_udp) == ((False,) * 3, True, True, True)
    assert (len(told.ipv4_pools), len(told.delegated_pools)) == (1, 1)


def test_a_mag_is_told_its_part(read: Callable[..., Config]) -> None:
    text = EVERYTHING.replace(
        'anchor = "lma"',
        'anchor = "lma"\nservices = { "mn1@example.net" = "internet" }\nlocal_routing = true\ntimestamps = false\n'
        "gre_keys = true\nforce_udp = true\nrefresh_before = 20\nbulk_refresh = false",
    )
    config = read(text, RoleName.MAG)
    told = mag_settings(config, HERE, 1400, 3)
    assert (told.anchor, told.uplinks, told.sites) == ("lma", config.uplinks, config.sites)
    assert (told.services, told.restart_counter) == ({"mn1@example.net": "internet"}, 3)
    assert (told.local_routing, told.use_timestamps, told.gre_keys) == (True, False, True)
    assert (told.force_udp, told.refresh_before, told.bulk_refresh) == (True, 20, False)


def test_a_mar_is_told_its_part(read: Callable[..., Config]) -> None:
    told = mar_settings(read('[anchor]\nguard = 3.5\nprefixes = ["2001:db8:1::/48"]', RoleName.MAR), HERE, 1400)
    assert (told.guard, told.pools) == (3.5, (IPv6Network("2001:db8:1::/48"),))


# What is bad


@pytest.mark.parametrize(
    ("role", "text", "expected"),
    [
        (RoleName.LMA, "", "anchor.prefixes: missing: an LMA needs pools"),
        (RoleName.LMA, "[anchor]\nprefixes = []", "2: anchor.prefixes: missing: an LMA needs pools"),
        (
            RoleName.MAG,
            "",
            "gateway.anchor: missing: a MAG needs the name of the [[peer]] that is its LMA: there is no",
        ),
        (RoleName.MAG, EVERYTHING.replace('anchor = "lma"', 'anchor = "lmb"'), "8: gateway.anchor: lmb is no [[peer]]"),
        (
            RoleName.MAG,
            EVERYTHING.replace('anchor = "lma"', 'anchor = "bus1"'),
            "20: peer.address: missing: expected the",
        ),
        (RoleName.MAR, '[underlay]\naddress = "192.0.2.1"', "2: underlay.address: expected an IPv6 address: a MAR"),
        (RoleName.MAR, '[[node]]\nid = "a@b"', "1: node.link_layer: missing: expected in every [[node]] of a MAR"),
        (
            RoleName.MAR,
            f'[[peer]]\nname = "a"\nspi = 300\nkey = "{KEY}"',
            "1: peer.address: missing: expected one: the",
        ),
        (
            RoleName.MAR,
            f'[[peer]]\nname = "a"\naddress = "192.0.2.1"\nkey = "{KEY}"',
            "3: peer.address: expected an IPv6",
        ),
    ],
)
def test_what_a_role_cannot_do_without_is_named(problems: Problems, role: RoleName, text: str, expected: str) -> None:
    (problem,) = problems(text, role)
    assert expected in problem


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ("node", 'id = "mn1"', 'node.id: expected an identifier such as "mn1@example.net", or "*" for every other'),
        ("node", 'gateways = "a"', "node.gateways: expected a list"),
        ("node", 'gateways = ["mag9"]', "node.gateways: mag9 is no [[peer]]"),
        ("node", "refused = 1", "node.refused: expected true or false"),
        ("node", 'prefixes = ["2001:db8::/48"]', "node.prefixes: expected a prefix of one node: /64"),
        ("node", "ipv6 = 1", "node.ipv6: expected true or false"),
        ("node", "ipv4 = 1", "node.ipv4: expected true or false"),
        ("node", 'ipv4_address = "10.0.0.0/8"', "node.ipv4_address: expected an IPv4 address"),
        ("node", "services = [1]", "node.services: expected the name of a service"),
        ("node", "delegation = 1", "node.delegation: expected true or false"),
        ("node", 'delegated = ["2001:db8::/80"]', "node.delegated: expected a prefix from /16 to /64"),
        ("node", 'sharing = "all"', 'node.sharing: expected "unique-prefix", "shared-prefix" or "shared-address"'),
        ("node", "multipath = 1", "node.multipath: expected true or false"),
        ("node", 'policy = "none"', 'node.policy: no [[flow]] has policy = "none": expected the name of one'),
        ("uplink", "interface = 1", "uplink.interface: expected an interface name"),
        ("uplink", 'interface = "lan0"', "uplink.interface: lan0 is an access link"),
        ("uplink", 'address = "fe80::1"', "uplink.address: expected a unicast IPv6 address"),
        ("uplink", 'att = "wifi"', "uplink.att: expected one of virtual, ppp, ieee-802-3, ieee-802-11"),
        ("uplink", "label = 256", "uplink.label: expected a label: a number from 0 to 255, or a name"),
        (
            "uplink",
            'label = "5g"',
            'uplink.label: "5g" is no label: expected a number, or a name of [labels]: wlan, lte',
        ),
        ("uplink", "bid = 255", "uplink.bid: expected a whole number from 1 to 254"),
        ("uplink", "bid = 1", "uplink.bid: 1 is of an uplink above"),
        ("uplink", "weight = 0", "uplink.weight: expected a whole number from 1 to 65535"),
        ("site", 'node = "bus"', "site.node: expected an identifier"),
        ("site", 'interface = "lan9"', "site.interface: lan9 is no access link"),
        ("site", 'delegated_interface = "lan9"', "site.delegated_interface: lan9 is no access link"),
        ("site", "delegated = 1", "site.delegated: expected true or false"),
    ],
)
def test_a_bad_value_of_a_list_is_placed_and_explained(
    problems: Problems, table: str, line: str, expected: str
) -> None:
    needed = {"node": 'id = "a@b"', "uplink": 'interface = "wan9"', "site": 'node = "a@b"'}[table]
    key = line.split(" ")[0]
    before = '[access]\ninterfaces = ["lan0"]\n[labels]\nwlan = 1\nlte = 2\n[[uplink]]\ninterface = "wan0"\n'
    own = [line] if needed.startswith(f"{key} ") else [line, needed]
    (problem,) = problems(before + f"[[{table}]]\n" + "\n".join(own))
    assert problem.startswith(f"9: {expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[labels]\nwlan = 256", "2: labels.wlan: expected a whole number from 0 to 255"),
        ("[labels]\n'a b' = 1", "2: labels.a b: expected a name"),
        ("labels = 1", "1: labels: expected a table: [labels]"),
        ("[[uplink]]\nbid = 3", "1: uplink.interface: missing: expected in every [[uplink]]"),
        ("[[uplink]]\ninterface = 'a'\n[[uplink]]\ninterface = 'a'", "4: uplink.interface: a is of an uplink above"),
        ("[[uplink]]\ninterface = 'a'\nbid = 2\n[[uplink]]\ninterface = 'b'", "4: uplink.bid: 2 is of an uplink above"),
        ("[[site]]\ninterface = 'a'\n[access]\ninterfaces = ['a']", "1: site.node: missing"),
        ("[[site]]\nnode = 'a@b'\n[[site]]\nnode = 'a@b'", "4: site.node: a@b is of a site above"),
        ("[[node]]\nid = '*'\nlink_layer = '02:00:00:00:00:11'", "3: node.link_layer: expected none"),
        ("[[node]]\nid = 'a@b'\nipv4 = true\n[[node]]\nid = 'a@b'\nipv4 = true", "6: node.ipv4: is told of this node"),
        ("[[node]]\nid = 'a@b'\n[[node]]\nid = 'a@b'", "4: node.id: is told above"),
        ("[anchor]\nipv4_prefixes = ['10.0.0.0/8', '10.1.0.0/16']", "2: anchor.ipv4_prefixes: 10.1.0.0/16 overlaps"),
        (
            "[anchor]\nprefixes = ['2001:db8::/32']\ndelegated_prefixes = ['2001:db8:d::/48']",
            "3: anchor.delegated_prefixes: 2001:db8:d::/48 overlaps 2001:db8::/32",
        ),
        (
            "[anchor]\ndelegated_prefixes = ['2001:db8::/60']",
            "2: anchor.delegated_prefixes: 2001:db8::/60 holds no prefix",
        ),
        ("[paths]\nsuspect_after = 5", "2: paths.suspect_after: suspect after 5, down after 3"),
        (
            f"[[peer]]\nname = 'a'\nkey = '{KEY}'",
            "1: peer.address: missing: expected in every [[peer]] but those known",
        ),
        (
            f"[[peer]]\nname = 'a'\nspi = 300\nkey = '{KEY}'\n[[peer]]\nname = 'b'\nspi = 300\nkey = '{KEY}'",
            "7: peer.spi: 300 is of a peer above that has no address either",
        ),
        (
            f"[underlay]\nipv4_address = '192.0.2.1'\n[[peer]]\nname = 'a'\naddresses = ['192.0.2.1']\nkey = '{KEY}'",
            "5: peer.addresses: 192.0.2.1 is [underlay] ipv4_address of this router",
        ),
    ],
)
def test_values_of_lists_that_do_not_fit_together_are_told(problems: Problems, text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)


@pytest.mark.parametrize(("role", "table"), [(RoleName.LMA, "anchor"), (RoleName.MAG, "gateway")])
def test_gre_keys_need_gre(read: Callable[..., Config], role: RoleName, table: str) -> None:
    plain = EVERYTHING.replace('encapsulation = "gre"', 'encapsulation = "udp"')
    with pytest.raises(ConfigError, match=f"{table}.gre_keys: keys are for GRE alone"):
        read(plain.replace(f"[{table}]", f"[{table}]\ngre_keys = true"), role)
