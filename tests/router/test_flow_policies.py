"""[[flow]] tables -> flow rules of the anchor's direction, and rules as text."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from router.config import load, load_policy
from router.errors import ConfigError
from router.flow_policies import Labels, selector_text
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.wire.traffic_selector import Range, TrafficSelector

IPV6, IPV4 = TrafficSelectorFormat.IPV6_BINARY, TrafficSelectorFormat.IPV4_BINARY


def rules(text: str) -> tuple[FlowRule, ...]:
    return load_policy(f"[[flow]]\n{text}", "p.toml", "default", {"wlan": 1, "lte": 2})


def selectors(text: str) -> list[TrafficSelector | None]:
    return [rule.selector for rule in rules(text)]


def test_a_rule_that_selects_nothing_is_one_rule_for_every_packet() -> None:
    assert rules('labels = ["lte", "wlan", 9]') == (FlowRule(selector=None, labels=(2, 1, 9)),)


def test_a_rule_that_says_nothing_of_the_family_is_a_rule_for_each() -> None:
    udp = Range(17)
    assert selectors('protocol = "udp"') == [
        TrafficSelector(format=IPV6, protocol=udp),
        TrafficSelector(format=IPV4, protocol=udp),
    ]


@pytest.mark.parametrize(
    ("line", "selector"),
    [
        ('family = "ipv6"', TrafficSelector(format=IPV6)),
        ('family = "ipv4"', TrafficSelector(format=IPV4)),
        ('source = "2001:db8::1"', TrafficSelector(format=IPV6, source=Range(IPv6Address("2001:db8::1")))),
        (
            'destination = "10.5.0.0/24"',
            TrafficSelector(format=IPV4, destination=Range(IPv4Address("10.5.0.0"), IPv4Address("10.5.0.255"))),
        ),
        (
            'source = "192.0.2.1-192.0.2.9"',
            TrafficSelector(format=IPV4, source=Range(IPv4Address("192.0.2.1"), IPv4Address("192.0.2.9"))),
        ),
        ("flow_label = 7", TrafficSelector(format=IPV6, flow_label=Range(7))),
        (
            'family = "ipv4"\ndestination_port = "5004-5010"',
            TrafficSelector(format=IPV4, destination_port=Range(5004, 5010)),
        ),
        ('family = "ipv4"\nspi = 256', TrafficSelector(format=IPV4, spi=Range(256))),
        ('family = "ipv6"\nprotocol = 132', TrafficSelector(format=IPV6, protocol=Range(132))),
        ('family = "ipv6"\ntraffic_class = "184-191"', TrafficSelector(format=IPV6, traffic_class=Range(184, 191))),
    ],
)
def test_a_field_decides_the_family_where_it_can(line: str, selector: TrafficSelector) -> None:
    assert selectors(line) == [selector]


def test_the_order_of_the_file_is_the_order_in_which_rules_are_tried(tmp_path: Path) -> None:
    text = '[[flow]]\nname = "b"\nfamily = "ipv6"\n[[flow]]\npolicy = "x"\n[[flow]]\nname = "a"\nspread = "drop"'
    (file := tmp_path / "p.toml").write_text(text)
    found = load(file).policies
    assert {name: [rule.name for rule in rules] for name, rules in found.items()} == {"default": ["b", "a"], "x": [""]}
    assert found["default"][1].spread is Spread.DROP


def test_a_file_may_name_labels_of_its_own() -> None:
    text = '[labels]\nsat = 9\n[[flow]]\nlabels = ["sat", "wlan"]'
    assert load_policy(text, "p.toml", "night", {"wlan": 1})[0].labels == (9, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'labels = ["5g"]',
            'p.toml:2: flow.labels: "5g" is no label: expected a number, or a name of [labels]: wlan, lte',
        ),
        ('labels = ["lte"]\nspread = "drop"', 'p.toml:2: flow.labels: expected none with spread = "drop"'),
        ('family = "ipv4"\nsource = "2001:db8::1"', "p.toml:3: flow.source: an ipv6 address: expected one of the same"),
        ('source = "192.0.2.1"\ndestination = "2001:db8::1"', "p.toml:3: flow.destination: an ipv6 address"),
        ('source = "192.0.2.1"\nflow_label = 1', "p.toml:3: flow.flow_label: IPv4 packets have none"),
        ('family = "ip"', 'p.toml:2: flow.family: expected "ipv6" or "ipv4"'),
        ('source = "example.net"', "p.toml:2: flow.source: expected an address, a prefix, or a range"),
        ('source = "192.0.2.9-192.0.2.1"', "p.toml:2: flow.source: expected an address, a prefix, or a range"),
        ('source = "192.0.2.1/24"', "without host bits"),
        ('source = "fe80::1%eth0"', "p.toml:2: flow.source: expected an address"),
        ("source_port = 65536", "p.toml:2: flow.source_port: expected numbers from 0 to 65535"),
        ('destination_port = "9-1"', "p.toml:2: flow.destination_port: expected numbers from 0 to 65535, the smaller"),
        ("destination_port = true", "p.toml:2: flow.destination_port: expected a number from 0 to 65535, or a range"),
        ('protocol = "quic"', "p.toml:2: flow.protocol: expected a protocol: a number from 0 to 255, or one of"),
        ("traffic_class = 256", "p.toml:2: flow.traffic_class: expected numbers from 0 to 255"),
        ("spi = 4294967296", "p.toml:2: flow.spi: expected numbers from 0 to 4294967295"),
        ('spread = "all"', 'p.toml:2: flow.spread: expected "per-flow", "per-packet", "bicast" or "drop"'),
        ("labels = [256]", "p.toml:2: flow.labels: expected a label"),
        ('policy = "a b"', "p.toml:2: flow.policy: expected a name"),
        ('name = ""', "p.toml:2: flow.name: expected a name"),
        ("port = 1", "p.toml:2: flow.port: unknown key: did you mean"),
        ("[router]\nname = 'a'", "p.toml:2: router: expected nothing but [[flow]] and [labels] in a policy"),
    ],
)
def test_a_rule_that_makes_no_sense_is_told_with_its_line(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "all"),
        ('family = "ipv4"', "ipv4"),
        (
            'source = "2001:db8::/127"\ndestination_port = "5004-5010"\nprotocol = "udp"',
            "ipv6 source=2001:db8::/127 destination_port=5004-5010 protocol=udp",
        ),
        ('source = "192.0.2.1"\nprotocol = 253', "ipv4 source=192.0.2.1 protocol=253"),
    ],
)
def test_a_selector_is_shown_in_the_words_of_the_file(text: str, shown: str) -> None:
    assert selector_text(selectors(text)[0]) == shown


def test_a_label_is_shown_by_its_name() -> None:
    labels = Labels({"wlan": 1})
    assert (labels.name(1), labels.name(2)) == ("wlan", "2")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy('[[flow]]\nspread = "x"\nfamily = "ipv4"\n[[flow]]\nlabels = ["y"]', "p.toml", "default", {})
    assert [line.split(" ")[0] for line in str(caught.value).split("\n")] == ["p.toml:2:", "p.toml:5:"]
