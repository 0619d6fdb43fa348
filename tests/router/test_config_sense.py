"""What is right value by value and still senseless: refused in a line, or, where it may be meant, told of."""

from collections.abc import Callable
from pathlib import Path

import pytest

from router.config import Config
from router.errors import ConfigError
from router.places import RoleName

KEY = "hex:000102030405060708090a0b0c0d0e0f"
NODE = "[[node]]\nid = 'a@b'\n"
FLOW = "[[flow]]\n"
POOLS = "[anchor]\nprefixes = ['2001:db8:1000::/36']\nipv4_prefixes = ['10.5.0.0/16']\n"
MAG = f"""\
[access]
interfaces = ["lan0"]
[gateway]
anchor = "lma"
[[peer]]
name = "lma"
address = "2001:db8::a"
key = "{KEY}"
[[uplink]]
interface = "wlan0"
label = 1
[[uplink]]
interface = "wwan0"
label = 2
"""
LMA = POOLS + f"[[peer]]\nname = 'bus1'\nspi = 700\nkey = '{KEY}'\n"

Reading = Callable[..., Config]


@pytest.fixture
def problem(read: Reading, tmp_path: Path) -> Callable[..., str]:
    """The only one of a text."""

    def problem(text: str, role: RoleName | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            read(text, role)
        (line,) = str(caught.value).split("\n")
        return line.removeprefix(f"{tmp_path}/router.toml:")

    return problem


# Nodes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NODE + "ipv4 = false\nipv4_address = '10.5.0.9'", "4: node.ipv4_address: ipv4 = false says that it has none"),
        (NODE + "ipv6 = false\nprefixes = ['2001:db8::/64']", "4: node.prefixes: ipv6 = false says"),
        (NODE + "delegation = false\ndelegated = ['2001:db8::/56']", "4: node.delegated: delegation = false says"),
        (NODE + "ipv6 = false\nipv4 = false", "4: node.ipv4: without IPv6 and IPv4 there is nothing to give"),
        (NODE + "gateways = []", "3: node.gateways: no gateway may act for it"),
        (NODE + "link_layer = '01:00:5e:00:00:01'", "3: node.link_layer: expected the link-layer address of one"),
        (NODE + "link_layer = '00:00:00:00:00:00'", "3: node.link_layer: expected the link-layer address of one"),
        ("[[node]]\nid = '*'\nprefixes = ['2001:db8::/64']", "3: node.prefixes: every node would have the same"),
        ("[[node]]\nid = '*'\nipv4_address = '10.5.0.9'", "3: node.ipv4_address: every node would have the same"),
        (
            f"{POOLS}{NODE}delegated = ['2001:db8:1000:100::/56']",
            "6: node.delegated: 2001:db8:1000:100::/56 overlaps 2001:db8:1000::/36 of [anchor] prefixes",
        ),
        (POOLS + NODE + "ipv4_address = '10.5.0.1'", "6: node.ipv4_address: in 10.5.0.0/16 this address is the router"),
        (POOLS + NODE + "ipv4_address = '10.5.0.0'", "6: node.ipv4_address: in 10.5.0.0/16 this address is the net"),
        (POOLS + NODE + "ipv4_address = '10.5.255.255'", "6: node.ipv4_address: in 10.5.0.0/16 this address is for b"),
    ],
)
def test_a_node_that_contradicts_itself_or_the_pools_is_refused(
    problem: Callable[..., str], text: str, expected: str
) -> None:
    assert problem(text).startswith(expected)


def test_the_tables_of_one_node_are_judged_together(problem: Callable[..., str]) -> None:
    two = NODE + "link_layer = '02:00:00:00:00:11'\nipv4 = false\n" + NODE + "ipv4_address = '10.5.0.9'"
    assert problem(two).startswith("7: node.ipv4_address: ipv4 = false")


@pytest.mark.parametrize(
    "text",
    [
        NODE + "refused = true\nprefixes = ['2001:db8:1000:1::/64']",  # for a while
        NODE + "prefixes = ['2001:db8:9000:1::/64']\nipv4_address = '192.0.2.7'",  # of its own, not lent
    ],
)
def test_what_a_node_may_be_told_is_accepted(read: Reading, text: str) -> None:
    assert read(LMA + text, RoleName.LMA).profiles[0].node == "a@b"


# Labels and flows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[labels]\nwlan = 1\nlte = 1", "3: labels.lte: 1 is wlan already"),
        ("[labels]\n7 = 2", "2: labels.7: a number is no name"),
        (FLOW + "labels = []", "2: flow.labels: names none"),
        (FLOW + "labels = [1, 2, 1]", "2: flow.labels: 1 is named twice"),
        ("[labels]\nwlan = 1\n" + FLOW + "labels = ['wlan', 1]", "4: flow.labels: wlan is named twice"),
        (FLOW + "labels = [1, 2, 3, 4, 5, 6, 7, 8, 9]", "2: flow.labels: expected at most 8"),
        (FLOW + "protocol = 'icmp'\nsource_port = 7", "3: flow.source_port: this protocol has no ports"),
        (FLOW + "protocol = 'tcp'\nspi = 7", "3: flow.spi: this protocol has none"),
        (FLOW + "destination_port = 7\nspi = 7", "3: flow.spi: no packet has an SPI and a port"),
        (FLOW + "spread = 'drop'\n" + FLOW + "protocol = 'udp'", "3: flow: is never reached: a rule above takes every"),
    ],
)
def test_a_rule_that_can_never_match_is_refused(problem: Callable[..., str], text: str, expected: str) -> None:
    assert problem(text).startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        FLOW + "name = 'calls'\nprotocol = 'udp'\n" + FLOW + "name = 'calls'\nprotocol = 'tcp'",  # a name for both
        FLOW + "protocol = '0-255'\nsource_port = 7",
        FLOW + "policy = 'a'\n" + FLOW + "policy = 'b'",
        FLOW + "family = 'ipv6'\n" + FLOW + "protocol = 'udp'",
    ],
)
def test_a_rule_that_can_match_is_accepted(read: Reading, text: str) -> None:
    assert sum(map(len, read(text).policies.values())) > 1


def test_the_engine_takes_as_many_labels_as_a_rule_may_have() -> None:
    from engine.rules import MOST_LABELS
    from router import flow_policies

    assert flow_policies.MOST_LABELS == MOST_LABELS


def test_a_rule_whose_labels_no_uplink_has_is_refused_at_a_gateway(read: Reading, problem: Callable[..., str]) -> None:
    assert problem(MAG + FLOW + "labels = [9]", RoleName.MAG).startswith("15: flow: policy default: no [[uplink]] has")
    assert read(MAG + FLOW + "labels = [9, 2]", RoleName.MAG).policies["default"][0].labels == (9, 2)
    assert read(LMA + FLOW + "labels = [9]", RoleName.LMA).policies["default"][0].labels == (9,)


# More rules than an update can say


def rules(count: int) -> str:
    return "".join(f"{FLOW}destination_port = {5000 + at}\nlabels = [1, 2]\n" for at in range(count))


@pytest.mark.parametrize("role", [None, RoleName.MAG])
def test_a_policy_that_no_update_can_carry_is_refused(problem: Callable[..., str], role: RoleName | None) -> None:
    found = problem(MAG + rules(100), role)
    assert found.startswith("15: flow: policy default: 200 rules do not fit into one binding update, which has 1664")
    assert "expected no more than the first" in found


def test_what_is_said_to_fit_does_fit(read: Reading, problem: Callable[..., str]) -> None:
    told = problem(MAG + rules(100), RoleName.MAG)
    fitting = int(told.partition("no more than the first ")[2].split(" ")[0])
    assert fitting > 20
    assert len(read(MAG + rules(fitting // 2), RoleName.MAG).policies["default"]) == fitting // 2 * 2
    problem(MAG + rules(fitting // 2 + 1), RoleName.MAG)


def test_who_sends_no_policies_may_have_any_number_of_rules(read: Reading) -> None:
    assert len(read(LMA + rules(100), RoleName.LMA).policies["default"]) == 200
    one_path = MAG[: MAG.index("[[uplink]]")]
    assert len(read(one_path + rules(100), RoleName.MAG).policies["default"]) == 200


# Pools and the addresses of routers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[underlay]\naddress = '2001:db8:1000::a'\n", "4: anchor.prefixes: 2001:db8:1000::/36 holds 2001:db8:1000::a"),
        ("[underlay]\nipv4_address = '10.5.0.9'\n", "5: anchor.ipv4_prefixes: 10.5.0.0/16 holds 10.5.0.9, [underlay]"),
        (
            f"[[peer]]\nname = 'm'\naddress = '2001:db8:1000::b'\nkey = '{KEY}'\n",
            "6: anchor.prefixes: 2001:db8:1000::/36 holds 2001:db8:1000::b, of peer m: expected pools apart",
        ),
    ],
)
def test_a_pool_that_holds_the_address_of_a_router_is_refused(
    problem: Callable[..., str], text: str, expected: str
) -> None:
    assert problem(text + POOLS).startswith(expected)


@pytest.mark.parametrize(
    ("key", "pool"),
    [("ipv4_prefixes", "127.0.0.0/8"), ("ipv4_prefixes", "0.0.0.0/8"), ("prefixes", "::/64")],
)
def test_a_pool_that_is_never_routed_is_refused(problem: Callable[..., str], key: str, pool: str) -> None:
    assert problem(f"[anchor]\n{key} = ['{pool}']").startswith(f"2: anchor.{key}: expected a prefix of unicast addr")


# Uplinks, sites, times


def test_uplinks_beyond_the_last_binding_identifier_are_refused(problem: Callable[..., str]) -> None:
    uplinks = "".join(f"[[uplink]]\ninterface = 'u{at}'\n" for at in range(300))
    assert problem(uplinks).startswith("509: uplink.bid: by its place it would be 255: expected at most 254 uplinks")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[access]\ninterfaces = ['lo']", "2: access.interfaces: lo: no node is there"),
        ("[[uplink]]\ninterface = 'lo'", "2: uplink.interface: lo leads nowhere"),
        (
            "[[uplink]]\ninterface = 'a'\naddress = '192.0.2.7'\n[[uplink]]\ninterface = 'b'\naddress = '192.0.2.7'",
            "6: uplink.address: 192.0.2.7 is of an uplink above",
        ),
        (
            "[access]\ninterfaces = ['a']\n[[site]]\nnode = 'a@b'\ndelegated = false\ndelegated_interface = 'a'",
            "6: site.delegated_interface: delegated = false says",
        ),
        ("[gateway]\nrefresh_before = 900", "2: gateway.refresh_before: 900 s before the end of 300 s: expected less"),
        ("[paths]\nidle_interval = 0.04", "2: paths.idle_interval: idle 0.04 s, with traffic 0.05 s"),
        ("[paths]\ninterval = 2", "2: paths.interval: idle 1 s, with traffic 2 s"),
    ],
)
def test_what_leads_nowhere_or_comes_too_late_is_refused(problem: Callable[..., str], text: str, expected: str) -> None:
    assert problem(text).startswith(expected)


def test_an_uplink_needs_an_address_of_the_anchor_in_its_family(read: Reading, problem: Callable[..., str]) -> None:
    text = MAG.replace("label = 2", "label = 2\naddress = '192.0.2.7'")
    assert problem(text, RoleName.MAG).startswith("15: uplink.address: the LMA has no IPv4 address")
    both = text.replace('address = "2001:db8::a"', 'address = "2001:db8::a"\naddresses = ["192.0.2.1"]')
    assert read(both, RoleName.MAG).uplinks[1].address is not None


# What a MAR would refuse later, or not obey


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("labels = [1]", "3: flow: expected no labels: they choose among uplinks, and a MAR has none"),
        ("spread = 'drop'", '3: flow: expected spread "per-flow", or no such key: a MAR has one way to each router'),
        ("spread = 'bicast'", '3: flow: expected spread "per-flow", or no such key'),
        ("source_port = 0", "3: flow: routing rules of the kernel know a source_port from 1 to 65534"),
        ("destination_port = 65535", "3: flow: routing rules of the kernel know a destination_port from 1 to 65534"),
        ("source = '192.0.2.1'", "3: flow: its selector is not of IPv6, and prefixes are"),
        ("family = 'ipv4'", "3: flow: its selector is not of IPv6, and prefixes are"),
        ("spi = 300", "3: flow: routing rules of the kernel know no spi"),
        ("flow_label = 7", "3: flow: routing rules of the kernel know no flow_label"),
        ("source = '2001:db8::1-2001:db8::6'", "3: flow: routing rules of the kernel know a source as one prefix"),
        ("traffic_class = 3", "3: flow: routing rules of the kernel know the upper six bits of"),
    ],
)
def test_a_rule_that_a_mar_cannot_follow_is_refused_where_it_stands(
    problem: Callable[..., str], text: str, expected: str
) -> None:
    assert problem(f"{FLOW}protocol = 'udp'\n{FLOW}{text}\n", RoleName.MAR).startswith(expected)


@pytest.mark.parametrize("text", ["protocol = 'udp'", "source_port = '5000-5010'", "source = '2001:db8::/32'", ""])
def test_a_rule_that_a_mar_can_follow_is_accepted(read: Reading, text: str) -> None:
    assert read(FLOW + text, RoleName.MAR).policies["default"]


def test_an_interface_that_comes_takes_prefixes_over_or_shares_them(problem: Callable[..., str]) -> None:
    first, second = (f"{NODE}link_layer = '02:00:00:00:00:0{at}'\n" for at in (1, 2))
    text = f"{first}takes_over = true\n{second}sharing = 'shared-prefix'\n"
    expected = "4: node.takes_over: an interface that comes takes prefixes over, or shares them: expected takes_over or"
    assert problem(text, RoleName.MAR).startswith(expected)


def test_the_interfaces_of_a_node_share_in_one_way(problem: Callable[..., str]) -> None:
    first, second = (f"{NODE}link_layer = '02:00:00:00:00:0{at}'\n" for at in (1, 2))
    text = f"{first}sharing = 'shared-address'\n{second}sharing = 'shared-prefix'\n"
    assert problem(text, RoleName.MAR) == "8: node.sharing: is told of this node above: expected it once"


@pytest.mark.parametrize(
    ("own", "role", "name"),
    [("[router]\nname = 'mine'\n", role, "mine") for role in RoleName] + [("\n\n", RoleName.MAR, "mar")],
)
def test_a_peer_with_the_name_of_the_router_itself_is_refused(
    problem: Callable[..., str], own: str, role: RoleName, name: str
) -> None:
    of_any_role = f"[anchor]\nprefixes = ['2001:db8:1000::/36']\n[gateway]\nanchor = '{name}'\n"
    text = f"{own}[[peer]]\nname = '{name}'\naddress = '2001:db8::b'\nkey = '{KEY}'\n[access]\ninterfaces = ['lan0']\n"
    assert problem(text + of_any_role, role) == f'4: peer.name: "{name}" is this router itself: expected another name'


# What may be meant, and probably is not

AT_A_MAR = f"{FLOW}{NODE}policy = 'default'\nlink_layer = '02:00:00:00:00:11'\n"


@pytest.mark.parametrize(
    ("role", "text", "expected"),
    [
        (RoleName.LMA, POOLS, ": peer: warning: there is no [[peer]]: no gateway can register"),
        (RoleName.LMA, LMA + "[[node]]\nid = '*'\n[router]\n", None),
        (
            RoleName.LMA,
            LMA.replace("[anchor]", "[anchor]\nknown_nodes_only = true"),
            ":2: anchor.known_nodes_only: warning: there is no [[node]] with a name",
        ),
        (RoleName.LMA, LMA + FLOW, ':8: flow: warning: no [[node]] has policy = "default": nothing follows its rules'),
        (RoleName.MAR, "[anchor]\nidle_after = 0.001", ":2: anchor.idle_after: warning: 0.001 s is less than a conn"),
        (RoleName.MAR, "[anchor]\nidle_after = 0", None),
        (RoleName.MAR, AT_A_MAR, ':4: node.policy: warning: without sharing = "shared-prefix" no flow comes'),
        (RoleName.MAR, AT_A_MAR + "sharing = 'shared-address'\n", None),
        (RoleName.MAR, AT_A_MAR.replace("policy", "#"), None),
        (RoleName.MAG, MAG + FLOW, None),
        (RoleName.MAG, MAG + FLOW + "policy = 'x'", ':15: flow: warning: no [[node]] has policy = "x"'),
        (RoleName.MAG, MAG.replace('"lan0"', ""), ":2: access.interfaces: warning: there is none, and no [[site]]"),
    ],
)
def test_what_is_doubtful_is_told_and_accepted(
    read: Reading, tmp_path: Path, role: RoleName, text: str, expected: str | None
) -> None:
    doubts = read(text, role).doubts
    assert len(doubts) == (expected is not None)
    assert all(doubt.startswith(f"{tmp_path}/router.toml{expected}") for doubt in doubts)
