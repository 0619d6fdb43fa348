"""Flow rules: a packet is selected when every field is in its range, the first rule decides, counters tell which."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

import engine
from engine.model import spread as model
from engine.model.flows import Fragments, identify, matches
from engine.rules import BadRule, Discard, FlowRule, Spread, Steer, TrafficSelector
from engine.stats import Drop
from tests.engine.flow_packets import (
    HOSTS4,
    HOSTS6,
    PORTS,
    authentication,
    fragment,
    ip4,
    ip6,
    options,
    packet,
    ports,
)

if engine.compiled:
    from engine._fast import spread as fast

A, B, C, D = HOSTS6
UDP_PACKET = ip6(A, B, 17, ports(1000, 53), word=0xB8 << 20 | 0x12345)


class Judge:
    """Which rule a packet meets, in the model or compiled: index in the policy, or None."""

    def __init__(self, compiled: bool) -> None:
        self.compiled = compiled
        self.trial: Any = fast.Trial() if compiled else model.Trial()

    def policy(self, rules: list[FlowRule], index: int = 0) -> int:
        made: int = self.trial.policy([rule.packed for rule in rules] if self.compiled else rules, index)
        return made

    def meets(self, packets: list[bytes], policy: int) -> list[int | None]:
        rows = self.trial.choose(packets, 0, 1, policy)
        if not self.compiled:
            return [row[2] for row in rows]
        numbers = {counter: k for k, counter in enumerate(self.trial.counters(policy))}
        return [numbers.get(row[2]) for row in rows]


@pytest.fixture(params=["model", "compiled"] if engine.compiled else ["model"])
def judge(request: pytest.FixtureRequest) -> Judge:
    return Judge(request.param == "compiled")


def selects(judge: Judge, octets: bytes, **fields: Any) -> bool:
    fields.setdefault("family", 6)
    policy = judge.policy([FlowRule(TrafficSelector(**fields), Steer())])
    return judge.meets([octets], policy) == [0]


@pytest.mark.parametrize(
    ("fields", "selected"),
    [
        ({}, True),
        ({"family": 4}, False),
        ({"source": (A, A)}, True),
        ({"source": (IPv6Address("::"), A)}, True),
        ({"source": (IPv6Address(int(A) + 1), D)}, False),
        ({"source": (IPv6Address("::"), IPv6Address(int(A) - 1))}, False),
        ({"destination": (A, B)}, True),
        ({"destination": (C, D)}, False),
        ({"source_port": (1000, 1000)}, True),
        ({"source_port": (1001, 65535)}, False),
        ({"destination_port": (0, 53)}, True),
        ({"destination_port": (0, 52)}, False),
        ({"flow_label": (0x12345, 0x12345)}, True),
        ({"flow_label": (0x12346, 0xFFFFF)}, False),
        ({"protocol": (17, 17)}, True),
        ({"protocol": (0, 16)}, False),
        ({"traffic_class": (0xB8, 0xB8)}, True),
        ({"traffic_class": (0xBC, 0xFF)}, False),
        ({"spi": (0, 0xFFFFFFFF)}, False),
        ({"protocol": (17, 17), "source_port": (1000, 1000), "destination_port": (54, 54)}, False),
    ],
)
def test_every_field_has_to_be_in_its_range(judge: Judge, fields: dict[str, Any], selected: bool) -> None:
    assert selects(judge, UDP_PACKET, **fields) is selected


def test_only_the_upper_six_bits_of_the_traffic_class_are_compared(judge: Judge) -> None:
    marked = ip6(A, B, 17, ports(1, 2), word=0xBB << 20)
    assert selects(judge, marked, traffic_class=(0xB8, 0xB8))
    assert selects(judge, marked, traffic_class=(0xBA, 0xBA))
    assert not selects(judge, marked, traffic_class=(0xBC, 0xBF))


def test_the_ds_field_of_ipv4_is_compared_alike(judge: Judge) -> None:
    octets = ip4(*HOSTS4[:2], 17, ports(1, 2), field=0xBB)
    assert selects(judge, octets, family=4, traffic_class=(0xB8, 0xB8))
    assert not selects(judge, octets, family=4, traffic_class=(0, 0xB4))


def test_ipv4_addresses_are_ranges_too(judge: Judge) -> None:
    octets = ip4(IPv4Address("192.0.2.9"), HOSTS4[0], 17, ports(1, 2))
    assert selects(judge, octets, family=4, source=(IPv4Address("192.0.2.0"), IPv4Address("192.0.2.9")))
    assert not selects(judge, octets, family=4, source=(IPv4Address("192.0.2.10"), IPv4Address("255.255.255.255")))


def test_a_protocol_is_the_upper_layer_or_anything_in_the_chain(judge: Judge) -> None:
    behind = ip6(A, B, 0, options(51) + authentication(17, 77) + ports(1, 2))
    assert selects(judge, behind, protocol=(17, 17))
    assert selects(judge, behind, protocol=(51, 51))
    assert selects(judge, behind, protocol=(0, 0))
    assert not selects(judge, behind, protocol=(1, 16))
    assert not selects(judge, behind, protocol=(52, 255))


def test_the_spi_is_that_of_esp_or_ah(judge: Judge) -> None:
    esp = ip6(A, B, 50, (77).to_bytes(4, "big") + bytes(20))
    ah = ip6(A, B, 51, authentication(17, 77) + ports(1, 2))
    for octets in (esp, ah):
        assert selects(judge, octets, spi=(70, 77))
        assert not selects(judge, octets, spi=(78, 0xFFFFFFFF))
    assert not selects(judge, esp, source_port=(0, 65535))
    assert selects(judge, ah, source_port=(1, 1))


def test_ports_of_a_later_fragment_are_those_of_its_first(judge: Judge) -> None:
    policy = judge.policy([FlowRule(TrafficSelector(family=6, destination_port=(2, 2)), Steer())])
    first = ip6(A, B, 44, fragment(17, 0, 1, 5) + ports(1, 2))
    later = ip6(A, B, 44, fragment(17, 1480, 0, 5) + ports(1, 2))
    assert judge.meets([later, first, later], policy) == [None, 0, 0]


def test_a_port_nobody_can_read_is_in_no_range(judge: Judge) -> None:
    every = (0, 65535)
    assert not selects(judge, ip6(A, B, 58, bytes([128, 0, 0, 0])), source_port=every)
    assert not selects(judge, ip6(A, B, 17, b"\0\0\0"), source_port=every)
    assert selects(judge, ip6(A, B, 17, b"\0\0\0\0"), source_port=every, destination_port=(0, 0))


def test_the_first_rule_that_matches_decides(judge: Judge) -> None:
    policy = judge.policy(
        [
            FlowRule(TrafficSelector(family=6, protocol=(6, 6)), Steer()),
            FlowRule(TrafficSelector(family=6, destination_port=(53, 53)), Discard()),
            FlowRule(None, Steer()),
        ]
    )
    tcp = ip6(A, B, 6, ports(1000, 53))
    four = ip4(*HOSTS4[:2], 17, ports(1, 53))
    assert judge.meets([UDP_PACKET, tcp, four], policy) == [1, 0, 2]
    assert [row[0] for row in judge.trial.choose([UDP_PACKET, tcp], 0, 1, policy)] == [Drop.POLICY, 0]


def test_a_changed_policy_counts_from_the_next_packet(judge: Judge) -> None:
    """Also where decisions are remembered: every policy here is long enough for that."""
    others = [FlowRule(TrafficSelector(family=6, destination_port=(n, n)), Steer()) for n in range(100, 110)]
    mine = FlowRule(TrafficSelector(family=6, destination_port=(53, 53)), Steer())
    policy = judge.policy([*others, mine])
    assert judge.meets([UDP_PACKET] * 2, policy) == [10, 10]
    judge.policy([mine, *others], policy)
    assert judge.meets([UDP_PACKET] * 2, policy) == [0, 0]
    judge.policy(others, policy)
    assert judge.meets([UDP_PACKET] * 2, policy) == [None, None]
    judge.policy([], policy)
    assert judge.meets([UDP_PACKET] * 2, policy) == [None, None]


def test_a_mirrored_rule_selects_the_other_direction(judge: Judge) -> None:
    rule = FlowRule(TrafficSelector(family=6, source=(A, A), destination_port=(53, 53)), Steer())
    back = ip6(B, A, 17, ports(53, 1000))
    policy = judge.policy([rule.mirrored()])
    assert judge.meets([back, UDP_PACKET], policy) == [0, None]
    assert rule.mirrored().mirrored() == rule


@pytest.mark.parametrize(
    "fields",
    [
        {"family": 5},
        {"family": 4, "flow_label": (1, 1)},
        {"family": 6, "source": (HOSTS4[0], HOSTS4[0])},
        {"family": 4, "source": (A, A)},
        {"family": 6, "source": (B, A)},
        {"family": 6, "source_port": (2, 1)},
        {"family": 6, "source_port": (0, 65536)},
        {"family": 6, "protocol": (-1, 5)},
        {"family": 6, "protocol": (1,)},
        {"family": 6, "flow_label": (0, 0x100000)},
        {"family": 6, "traffic_class": (0, 256)},
        {"family": 6, "spi": (0, 1 << 32)},
    ],
)
def test_a_selector_without_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRule):
        TrafficSelector(**fields)


@pytest.mark.parametrize(
    "fields", [{"labels": (1,), "bids": (1,)}, {"labels": (256,)}, {"bids": (65536,)}, {"labels": tuple(range(9))}]
)
def test_an_action_without_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRule):
        Steer(**fields)


# --- compiled against model ----------------------------------------------------------------------------


def numbers(dice: random.Random, values: list[int]) -> tuple[int, int]:
    low, high = sorted((dice.choice(values), dice.choice(values)))
    return low, high


def rule(dice: random.Random) -> FlowRule:
    """Few fields, and values that occur, so that rules match now and then."""
    if dice.random() < 0.05:
        return FlowRule(None, Steer())
    family = dice.choice([4, 6])
    hosts = sorted(HOSTS6 if family == 6 else HOSTS4)
    makers = {
        "source": lambda: tuple(sorted(dice.choices(hosts, k=2))),
        "destination": lambda: tuple(sorted(dice.choices(hosts, k=2))),
        "spi": lambda: numbers(dice, [0, 1, 2, 3, 0xFFFFFFFF]),
        "flow_label": lambda: numbers(dice, [0, 1, 2, 0xFFFFF]),
        "source_port": lambda: numbers(dice, PORTS),
        "destination_port": lambda: numbers(dice, PORTS),
        "traffic_class": lambda: numbers(dice, [0, 3, 4, 0xB8, 0xBB, 0xBC, 0xFF]),
        "protocol": lambda: numbers(dice, [0, 1, 6, 17, 43, 44, 50, 51, 58, 60, 63, 64, 127, 128, 132, 136, 255]),
    }
    if family == 4:
        del makers["flow_label"]
    chosen = dice.sample(sorted(makers), dice.choice([1, 2, 2, 3, 3]))
    selector = TrafficSelector(family=family, **{name: makers[name]() for name in chosen})  # type: ignore[arg-type]
    action = Discard() if dice.random() < 0.1 else Steer(spread=dice.choice(list(Spread)))
    return FlowRule(selector, action)


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
@pytest.mark.parametrize("count", [1, 4, 5, 30])
def test_both_meet_the_same_rules(dice: random.Random, count: int) -> None:
    met = set()
    for _ in range(12):
        rules = [rule(dice) for _ in range(count)]
        both = Judge(True), Judge(False)
        policies = [each.policy(rules) for each in both]
        batch = [packet(dice) for _ in range(150)]
        batch += dice.choices(batch, k=150)
        ours, theirs = (each.meets(batch, policy) for each, policy in zip(both, policies, strict=True))
        for octets, mine, wanted in zip(batch, ours, theirs, strict=True):
            assert mine == wanted, (octets.hex(), rules)
        met |= set(ours)
    assert met - {None}, "some must match, or this compares nothing"


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
def test_what_is_remembered_never_changes_an_answer(dice: random.Random) -> None:
    """More flows than lines, the same flows again, and policies that change in between."""
    judge = Judge(True)
    flows = [ip6(A, B, 17, ports(dice.randrange(65536), n % 50)) for n in range(12000)]
    policy = 0
    for _ in range(3):
        rules = [FlowRule(TrafficSelector(family=6, destination_port=(n, n + 3)), Steer()) for n in range(45)]
        dice.shuffle(rules)
        policy = judge.policy(rules, policy)
        batch = dice.choices(flows, k=20000) + dice.choices(flows[:100], k=5000)
        wanted = {n: next((k for k, r in enumerate(rules) if within(r, n)), None) for n in range(50)}
        assert judge.meets(batch, policy) == [wanted[octets[43]] for octets in batch]
    hits, misses = judge.trial.hits()
    assert hits > 5000
    assert misses > 8192


def within(rule: FlowRule, port: int) -> bool:
    assert rule.selector
    ends = rule.selector.destination_port
    return ends is not None and ends[0] <= port <= ends[1]


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
def test_counters_are_handed_out_once_and_given_back() -> None:
    judge = Judge(True)
    rules = [FlowRule(None, Steer())] * 10
    policies = [judge.policy(rules) for _ in range(3)]
    taken = [counter for policy in policies for counter in judge.trial.counters(policy)]
    assert len(set(taken)) == 30
    assert 0 not in taken
    for _ in range(7000):  # 70,000 counters: more than there are
        assert judge.trial.drop_policy(judge.policy(rules))
    again = judge.trial.counters(judge.policy(rules))
    assert 0 not in again
    assert not set(again) & set(taken)


def test_the_model_matches_what_it_identifies() -> None:
    identity = identify(UDP_PACKET, Fragments())
    assert matches(TrafficSelector(family=6, source=(A, A)), identity)
    assert not matches(TrafficSelector(family=6, source=(B, B)), identity)


@pytest.mark.parametrize("action", [Steer, None, "drop", Discard])
def test_what_is_no_action_is_no_silent_drop(action: Any) -> None:
    with pytest.raises(BadRule, match="neither Steer"):
        FlowRule(None, action)
