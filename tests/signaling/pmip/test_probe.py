"""Probes and reports on the wire: what goes in comes out, and whatever comes in breaks nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.events import DatagramReceived
from signaling.pmip.probe import (
    PROBE,
    REPORT,
    VENDOR,
    PathReport,
    Probe,
    between,
    carries_probe,
    options_of,
    probe_of,
    reports_of,
)
from signaling.settings import WayState
from signaling.wire import mobility_header
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.vendor import VendorSpecific
from tests.signaling.pmip.two_routers import LMA, MAG, TwoRouters

SAMPLE = Probe(
    binding_id=3,
    number=65535,
    interval=0.05,
    timestamp=0xFFFFFFFF,
    view=WayState.SUSPECT,
    traffic=True,
    loss=12,
    echoes=True,
    echo=7,
    held=0.001234,
)
OCTETS = bytes.fromhex("03c1ffff0032000cffffffff00000007000004d2")


def report(binding_id: int) -> PathReport:
    return PathReport(binding_id=binding_id, view=WayState.DOWN, loss=1000, round_trip=0.0421, jitter=0.0012)


def beat(*options: VendorSpecific) -> Heartbeat:
    octets = mobility_header.encode(Heartbeat(sequence_number=1, options=options), LMA, MAG[0])
    message = mobility_header.decode(octets, LMA, MAG[0])
    assert isinstance(message, Heartbeat)
    return message


def test_a_probe_is_these_octets() -> None:
    (option,) = options_of(SAMPLE, [])
    assert (option.vendor, option.subtype, option.data) == (32473, 1, OCTETS)


def test_a_probe_comes_out_as_it_went_in() -> None:
    out = probe_of(beat(*options_of(SAMPLE, [])))
    assert (out.interval, out.held) == (pytest.approx(0.05), pytest.approx(0.001234))
    assert replace(out, interval=SAMPLE.interval, held=SAMPLE.held) == SAMPLE


@pytest.mark.parametrize("count", [0, 1, 31, 32, 200])
def test_reports_on_any_number_of_paths_come_out_as_they_went_in(count: int) -> None:
    reports = [report(number) for number in range(1, count + 1)]
    out = reports_of(beat(*options_of(SAMPLE, reports)))
    assert [item.binding_id for item in out] == list(range(1, count + 1))
    assert all(item.view is WayState.DOWN and item.round_trip == pytest.approx(0.0421) for item in out)


def test_what_is_longer_than_the_wire_can_say_is_the_longest() -> None:
    out = probe_of(beat(*options_of(replace(SAMPLE, interval=100.0, held=1e6), [])))
    assert (out.interval, out.held) == (pytest.approx(65.535), pytest.approx(4294.967295))


@pytest.mark.parametrize(
    "options",
    [
        (VendorSpecific(vendor=VENDOR, subtype=PROBE, data=OCTETS[:-1]),),
        (VendorSpecific(vendor=VENDOR, subtype=PROBE, data=b"\x03\x03" + OCTETS[2:]),),
        (VendorSpecific(vendor=VENDOR, subtype=PROBE, data=OCTETS),) * 2,
    ],
    ids=["short", "no-such-view", "twice"],
)
def test_a_broken_probe_is_one_but_is_refused(options: tuple[VendorSpecific, ...]) -> None:
    assert carries_probe(beat(*options))
    with pytest.raises(ValueError, match=r"length|view|values"):
        probe_of(beat(*options))


def test_the_option_of_another_vendor_is_no_probe() -> None:
    assert not carries_probe(beat(VendorSpecific(vendor=9, subtype=PROBE, data=OCTETS)))


def test_timestamps_are_compared_across_their_wrap() -> None:
    assert between(0xFFFFFFFF, 9) == pytest.approx(10e-6)
    assert between(9, 0xFFFFFFFF) == pytest.approx(-10e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([PROBE, REPORT]), st.binary(max_size=40)), max_size=4),
    st.booleans(),
    st.binary(min_size=18, max_size=18),
)
def test_whatever_a_peer_says_in_a_probe_the_monitor_goes_on(
    options: list[tuple[int, bytes]], intact: bool, tail: bytes
) -> None:
    world = TwoRouters(key=b"")
    world.register()
    carried = [VendorSpecific(vendor=VENDOR, subtype=subtype, data=data) for subtype, data in options]
    if intact:
        carried.append(VendorSpecific(vendor=VENDOR, subtype=PROBE, data=b"\x01\x40" + tail))
    event = DatagramReceived(octets=b"", source=MAG[0], destination=LMA)
    peer = world.lma.door.peer(MAG[0])
    world.perform(world.lma, world.lma.monitor.receive(beat(*carried), event, peer, world.lma.boot))
    world.run(0.5)
    assert len(world.lma.monitor.rows()) == 2
