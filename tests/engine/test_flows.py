"""What belongs to one conversation has one hash, whatever the headers; and no octet behind a packet is looked at."""

from __future__ import annotations

import random
from typing import Any

import pytest

import engine
from engine.model import spread as model
from tests.engine.flow_packets import HOSTS4, HOSTS6, authentication, fragment, ip4, ip6, options, packet, ports

if engine.compiled:
    from engine._fast import spread as fast

A, B, C, D = HOSTS6
TCP, UDP, ESP, AH, ICMP6 = 6, 17, 50, 51, 58


@pytest.fixture(params=["model", "compiled"] if engine.compiled else ["model"])
def trial(request: pytest.FixtureRequest) -> Any:
    return fast.Trial() if request.param == "compiled" else model.Trial()


def flow(trial: Any, octets: bytes, clock: int = 0) -> int:
    return trial.identify([octets], clock)[0][3]


def test_both_directions_are_one_flow(trial: Any) -> None:
    there = ip6(A, B, UDP, ports(1000, 53))
    assert flow(trial, there) == flow(trial, ip6(B, A, UDP, ports(53, 1000)))
    assert flow(trial, there) != flow(trial, ip6(B, A, UDP, ports(1000, 53)))
    one, other = HOSTS4[:2]
    there = ip4(one, other, TCP, ports(1000, 80))
    assert flow(trial, there) == flow(trial, ip4(other, one, TCP, ports(80, 1000)))


def test_every_address_port_and_protocol_matters(trial: Any) -> None:
    flows = {
        flow(trial, ip6(source, destination, protocol, ports(one, other)))
        for source, destination in ((A, B), (A, C), (D, B))
        for protocol in (TCP, UDP)
        for one, other in ((1, 2), (1, 3), (3, 2))
    }
    assert len(flows) == 18


def test_traffic_class_and_flow_label_do_not_matter(trial: Any) -> None:
    assert flow(trial, ip6(A, B, UDP, ports(1, 2))) == flow(trial, ip6(A, B, UDP, ports(1, 2), word=0xB812345))


def test_extension_headers_do_not_matter(trial: Any) -> None:
    plain = ip6(A, B, UDP, ports(1, 2))
    behind = ip6(A, B, 0, options(43) + options(60, 2) + options(AH) + authentication(UDP, 7) + ports(1, 2))
    assert trial.identify([behind]) == [(UDP, 40 + 8 + 24 + 8 + 24, 1 << 16 | 2, flow(trial, plain))]


def test_later_fragments_go_with_the_first(trial: Any) -> None:
    first = ip6(A, B, 44, fragment(UDP, 0, 1, 99) + ports(1, 2))
    later = ip6(A, B, 44, fragment(UDP, 1480, 0, 99) + b"not ports")
    assert trial.identify([first, later]) == [
        (UDP, 48, 1 << 16 | 2, flow(trial, ip6(A, B, UDP, ports(1, 2)))),
        (UDP, 0, 1 << 16 | 2, flow(trial, ip6(A, B, UDP, ports(1, 2)))),
    ]


def test_later_ipv4_fragments_go_with_the_first(trial: Any) -> None:
    one, other = HOSTS4[:2]
    first = ip4(one, other, UDP, ports(1, 2), identification=7, fragment=0x2000)
    later = ip4(one, other, UDP, b"not ports", identification=7, fragment=185)
    plain = ip4(one, other, UDP, ports(1, 2))
    assert flow(trial, first) == flow(trial, later) == flow(trial, plain)


def test_a_later_fragment_of_an_unknown_packet_has_no_ports(trial: Any) -> None:
    known = ip6(A, B, 44, fragment(UDP, 0, 1, 99) + ports(1, 2))
    others = [
        ip6(A, B, 44, fragment(UDP, 1480, 0, 98) + ports(1, 2)),
        ip6(A, C, 44, fragment(UDP, 1480, 0, 99) + ports(1, 2)),
        ip6(B, A, 44, fragment(UDP, 1480, 0, 99) + ports(1, 2)),
        ip6(A, B, 44, fragment(TCP, 1480, 0, 99) + ports(1, 2)),
    ]
    assert [row[1:3] for row in trial.identify([known, *others])[1:]] == [(0, 0)] * 4


def test_a_first_fragment_is_forgotten_in_the_end(trial: Any) -> None:
    later = ip6(A, B, 44, fragment(UDP, 1480, 0, 99))
    first = flow(trial, ip6(A, B, 44, fragment(UDP, 0, 1, 99) + ports(1, 2)), clock=1000)
    assert flow(trial, later, clock=1300) == first
    assert flow(trial, later, clock=1301) != first


def test_of_too_many_fragmented_packets_the_oldest_are_forgotten(trial: Any) -> None:
    for n in range(5000):
        trial.identify([ip6(A, B, 44, fragment(UDP, 0, 1, n) + ports(n, 2))], n // 1000)
    known = trial.identify([ip6(A, B, 44, fragment(UDP, 1480, 0, n)) for n in range(5000)], 5)
    remembered = [n for n, row in enumerate(known) if row[2] == n << 16 | 2]
    assert len(remembered) <= 1024
    assert set(range(4950, 5000)) <= set(remembered)
    assert min(remembered) > 1000


def test_an_atomic_fragment_is_a_whole_packet(trial: Any) -> None:
    plain = ip6(A, B, UDP, ports(1, 2))
    assert flow(trial, ip6(A, B, 44, fragment(UDP, 0, 0, 5) + ports(1, 2))) == flow(trial, plain)


def test_an_icmp_error_goes_with_the_flow_it_is_about(trial: Any) -> None:
    sent = ip6(A, B, UDP, ports(1, 2))
    error = ip6(C, A, ICMP6, bytes([2, 0, 0, 0, 0, 0, 5, 0]) + sent)
    assert trial.identify([error]) == [(ICMP6, 40, 0, flow(trial, sent))]
    one, other, router = HOSTS4[:3]
    sent = ip4(one, other, TCP, ports(1, 2))
    error = ip4(router, one, 1, bytes([3, 4, 0, 0, 0, 0, 5, 0]) + sent[:28])
    assert trial.identify([error]) == [(1, 20, 0, flow(trial, sent))]


def test_an_echo_that_looks_like_an_error_is_none(trial: Any) -> None:
    sent = ip6(A, B, UDP, ports(1, 2))
    echo = ip6(C, A, ICMP6, bytes([128, 0, 0, 0, 0, 0, 5, 0]) + sent)
    assert flow(trial, echo) == flow(trial, ip6(A, C, ICMP6, bytes([129, 0, 0, 0])))


def test_fragments_of_an_icmp_error_go_with_the_flow_too(trial: Any) -> None:
    sent = ip6(A, B, UDP, ports(1, 2))
    first = ip6(C, A, 44, fragment(ICMP6, 0, 1, 3) + bytes([1, 0, 0, 0, 0, 0, 0, 0]) + sent)
    later = ip6(C, A, 44, fragment(ICMP6, 1232, 0, 3) + b"the rest")
    assert flow(trial, first) == flow(trial, later) == flow(trial, sent)


def test_esp_shows_its_spi_and_is_one_flow_in_both_directions(trial: Any) -> None:
    there, back = ip6(A, B, ESP, bytes([0, 0, 0, 5]) + bytes(20)), ip6(B, A, ESP, bytes([0, 0, 0, 6]) + bytes(20))
    rows = trial.identify([there, back])
    assert [row[2] for row in rows] == [5, 6]
    assert rows[0][3] == rows[1][3]


def test_a_chain_without_end_is_given_up(trial: Any) -> None:
    headers = b"".join(options(0) for _ in range(16))
    assert trial.identify([ip6(A, B, 0, headers + options(UDP) + ports(1, 2))])[0][:3] == (0, 0, 0)
    assert trial.identify([ip6(A, B, 0, headers[:-8] + options(UDP) + ports(1, 2))])[0][:2] == (UDP, 40 + 128)


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
def test_both_identify_alike(dice: random.Random) -> None:
    compiled, slow = fast.Trial(), model.Trial()
    clock = 0
    seen = set()
    for _ in range(60):
        clock += dice.choice([0, 1, 10, 301])
        batch = [packet(dice) for _ in range(200)]
        rows = compiled.identify(batch, clock)
        for octets, row, wanted in zip(batch, rows, slow.identify(batch, clock), strict=True):
            assert row == wanted, octets.hex()
        seen |= {(row[0], row[1] > 0, row[2] > 0) for row in rows}
    assert len(seen) > 20, "all kinds must occur, or this compares little"


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
def test_both_identify_garbage_alike(dice: random.Random) -> None:
    compiled, slow = fast.Trial(), model.Trial()
    batch = [dice.randbytes(dice.choice([0, 1, 19, 20, 24, 39, 40, 41, 44, 60, 100, 300])) for _ in range(3000)]
    batch += [bytes([dice.choice([0x45, 0x46, 0x4F, 0x60])]) + octets[1:] for octets in batch if octets]
    assert compiled.identify(batch) == slow.identify(batch)
