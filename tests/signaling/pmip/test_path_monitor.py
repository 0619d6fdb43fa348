"""Paths under watch: how fast a silent one is left, at both ends; that a lossy one is not; that none stays down."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from signaling.actions import SetWay
from signaling.events import DatagramReceived
from signaling.pmip.path_monitor import Report
from signaling.pmip.probe import carries_probe, probe_of, reports_of
from signaling.settings import WayState
from signaling.wire.options.time import Timestamp
from tests.signaling.pmip.two_routers import LMA, MAG, End, TwoRouters

UP, SUSPECT, DOWN = WayState.UP, WayState.SUSPECT, WayState.DOWN
INTERVAL = 0.05
LEAVES, ANNOUNCED = 0.75 * INTERVAL, 0.85 * INTERVAL
MARGIN = 0.005
BOUND = 2 * ANNOUNCED + MARGIN  # s from the last probe that came until its path is left: two missing


def busy(**world: Any) -> TwoRouters:
    """Two paths with traffic on the first, settled."""
    it = TwoRouters(**world)
    it.register()
    it.traffic = {1}
    it.run(2.0)
    assert it.state(1) == it.state(2) == (UP, UP)
    return it


def left_after(world: TwoRouters, end: End, bid: int, since: float) -> float:
    """s until an end left the path."""
    return next(at for at, path, state in end.changes if path == bid and at >= since and state is not UP) - since


# --- rhythm ---


def probes_in(world: TwoRouters, end: End, bid: int, seconds: float) -> int:
    before = len(end.sent)
    world.run(seconds)
    probes = [probe_of(beat) for _, beat in end.sent[before:] if carries_probe(beat)]
    return sum(probe.binding_id == bid for probe in probes)


def test_both_ends_probe_a_path_with_traffic_when_three_quarters_of_the_interval_are_over() -> None:
    world = busy()
    assert probes_in(world, world.lma, 1, 3.0) == 80
    assert probes_in(world, world.mag, 1, 3.0) == 80


def test_what_is_announced_leaves_a_tenth_of_the_interval_to_routers_that_are_late() -> None:
    world = busy()
    sent = [(at, probe_of(beat)) for at, beat in world.lma.sent if at > 1.5]
    times = [(at, probe.interval) for at, probe in sent if probe.binding_id == 1]
    assert all(interval == pytest.approx(ANNOUNCED, abs=0.001) for _, interval in times)
    assert all(after - at == pytest.approx(LEAVES) for (at, _), (after, _) in pairwise(times))


def test_a_path_without_traffic_is_probed_within_a_second() -> None:
    world = busy()
    assert probes_in(world, world.lma, 2, 15.0) == 20


def test_idle_paths_share_their_wakes() -> None:
    world = TwoRouters()
    world.register(1)
    world.run(0.29)
    world.register(2)
    world.run(10.0)
    before = {end.name: end.wakes for end in (world.lma, world.mag)}
    world.run(60.0)
    for end in (world.lma, world.mag):
        # a look each 0.375 s; every second one sends the probes of both paths; and two probes come in that time
        assert (end.wakes - before[end.name]) / 60.0 <= 1 / 0.375 + 2 / 0.75 + 0.1


def test_the_first_probe_leaves_at_once() -> None:
    world = TwoRouters()
    world.register()
    assert [at for at, _ in world.mag.sent] == [0.0, 0.0]


def test_traffic_is_noticed_before_the_next_idle_probe() -> None:
    world = busy()
    world.traffic = {1, 2}
    assert probes_in(world, world.lma, 2, 0.375 + 1.0) >= 1.0 / LEAVES


def test_when_the_traffic_ends_the_last_quick_probe_announces_the_slow_ones() -> None:
    world = busy()
    world.traffic = set()
    world.run(20.0)
    assert world.changes(1) == []
    assert probes_in(world, world.lma, 1, 15.0) == 20


def test_the_peer_follows_although_it_sees_no_traffic_itself() -> None:
    world = busy()
    world.mag.monitor._traffic = lambda tunnel: 0
    world.run(5.0)
    assert probes_in(world, world.mag, 1, 3.0) == 80


def test_between_probing_peers_no_probe_is_answered_by_another_one() -> None:
    world = busy()
    world.run(1.0)
    assert all(beat.response for at, beat in world.lma.sent + world.mag.sent if at > 2.0)


# --- silence ---


@pytest.mark.parametrize("delays", [(0.01, 0.05), (0.1, 0.02), (0.05, 0.05)])
def test_both_ends_leave_a_silent_path_within_90_ms_of_its_last_probe(delays: tuple[float, ...]) -> None:
    for phase in range(10):
        world = busy(delays=delays)
        world.run(phase * LEAVES / 10)
        cut_at = world.now
        world.cut(1)
        world.run(0.5)
        for end in (world.lma, world.mag):
            # what left just before still arrives, so the way there counts too
            assert left_after(world, end, 1, cut_at) <= BOUND + delays[0] + 1e-6
        assert world.state(1) == (DOWN, DOWN)
        assert world.state(2) == (UP, UP)


@pytest.mark.parametrize("lateness", [0.0, 0.004])
def test_a_flow_that_goes_on_by_a_path_of_50_ms_has_a_gap_well_below_150_ms(lateness: float) -> None:
    near, far, between_packets = 0.02, 0.05, 0.001
    world = busy(delays=(near, far), seed=3, lateness=lateness)
    longest = 0.0
    for cycle in range(25):
        world.run(0.4 + cycle * LEAVES / 25)
        cut_at = world.now
        world.cut(1)
        world.run(0.5)
        longest = max(longest, *(left_after(world, end, 1, cut_at) for end in (world.lma, world.mag)))
        world.cut(1, cut=False)
        world.run(0.5)
    # the last packet came `near` after the cut, as the last probe did; the first one by the other path takes `far`
    gap = between_packets + longest - near + far
    assert gap <= between_packets + BOUND + lateness + far + 1e-6
    assert gap <= 0.1451


def test_with_jitter_and_late_wakes_a_silent_path_is_left_soon_all_the_same() -> None:
    times = []
    for seed in range(10):
        world = busy(seed=seed, lateness=0.005)
        for wire in world.wires.values():
            wire.jitter = 0.004
        world.run(1.0 + seed * 0.007)
        cut_at = world.now
        world.cut(1)
        world.run(0.5)
        times += [left_after(world, end, 1, cut_at) for end in (world.lma, world.mag)]
    # the way there with its jitter, and the look that is late itself
    assert max(times) <= 0.014 + BOUND + 0.005 + 1e-6, f"slowest: {max(times):.3f} s"


def test_one_probe_that_is_very_late_does_not_make_the_next_death_slower() -> None:
    world = busy()
    world.mag.busy_until = world.now + 0.04
    world.run(0.1)
    cut_at = world.now
    world.cut(1)
    world.run(0.5)
    for end in (world.lma, world.mag):
        assert left_after(world, end, 1, cut_at) <= BOUND + 0.01 + 1e-6


def test_a_suspect_path_is_down_one_probe_later() -> None:
    world = busy()
    world.cut(1)
    cut_at = world.now
    world.run(1.0)
    states = [(state, at) for at, bid, state in world.lma.changes if bid == 1 and at >= cut_at]
    assert [state for state, _ in states] == [SUSPECT, DOWN]
    assert states[1][1] - states[0][1] <= ANNOUNCED + 1e-6


def test_a_path_that_died_while_it_was_idle_is_left_soon_after_traffic_begins() -> None:
    world = busy()
    world.run(0.5)
    world.cut(2)
    world.traffic = {1, 2}
    begins = world.now
    world.run(2.0)
    # a look, the round trip, two missing
    assert left_after(world, world.lma, 2, begins) <= 0.375 + 0.1 + BOUND + 1e-6


def test_an_idle_path_that_dies_is_noticed_by_its_slow_probes() -> None:
    world = busy()
    world.cut(2)
    world.run(3.2)
    assert world.state(2) == (DOWN, DOWN)


def test_only_the_path_that_died_is_set() -> None:
    world = busy()
    world.cut(1)
    world.run(5.0)
    assert {bid for _, bid, _ in world.lma.changes} == {1}


def test_paths_are_up_again_soon_after_a_router_was_stuck_itself() -> None:
    world = busy()
    world.lma.busy_until = world.now + 0.4
    world.run(0.7)
    assert world.state(1) == (UP, UP)


def test_a_router_that_is_late_all_the_time_still_notices_a_death() -> None:
    world = busy(lateness=0.03)
    world.cut(1)
    world.run(1.0)
    assert world.state(1) == (DOWN, DOWN)


def test_why_a_state_changed_is_told() -> None:
    world = busy()
    world.cut(1, toward="mag")
    world.run(1.0)
    assert world.mag.notes[0].event == "path-state"
    assert world.mag.notes[0].fields == {"peer": "lma", "bid": 1, "label": 10, "state": "suspect", "why": "silent"}
    assert world.lma.notes[0].fields["why"] == "peer-report"


# --- one direction ---


@pytest.mark.parametrize("toward", ["lma", "mag"])
def test_a_path_that_loses_one_direction_is_down_at_both_ends(toward: str) -> None:
    world = busy()
    world.cut(1, toward=toward)
    cut_at = world.now
    world.run(1.0)
    assert world.state(1) == (DOWN, DOWN)
    for end in (world.lma, world.mag):  # the other end hears it by whichever path is faster: that one itself
        assert left_after(world, end, 1, cut_at) <= BOUND + 0.01 + 0.01 + 1e-6


@pytest.mark.parametrize("toward", ["lma", "mag"])
def test_a_direction_that_returns_brings_the_way_back_at_both_ends(toward: str) -> None:
    world = busy()
    world.cut(1, toward=toward)
    world.run(5.0)
    world.cut(1, toward=toward, cut=False)
    returned_at = world.now
    world.run(1.0)
    assert came_back_once(world, 1, returned_at)


def told(world: TwoRouters, bid: int) -> list[object]:
    """What people are told of a path, at the LMA and at the MAG."""
    return [end.monitor.rows()[bid - 1]["state"] for end in (world.lma, world.mag)]


def test_the_only_path_is_tried_although_it_is_down_one_way() -> None:
    world = TwoRouters(paths=1)
    world.register()
    world.traffic = {1}
    world.run(2.0)
    world.cut(1, toward="mag")
    world.run(1.0)
    assert (world.state(1), told(world, 1)) == ((SUSPECT, SUSPECT), ["down", "down"])


def test_paths_that_are_all_down_are_tried_until_one_is_known_to_be_up() -> None:
    world = busy()
    world.traffic = {1, 2}
    for bid in world.paths:
        world.cut(bid)
        world.run(0.5)
    assert [world.state(bid) for bid in world.paths] == [(SUSPECT, SUSPECT)] * 2
    assert [told(world, bid) for bid in world.paths] == [["down", "down"]] * 2
    world.cut(2, cut=False)
    world.run(1.0)
    assert [world.state(bid) for bid in world.paths] == [(DOWN, DOWN), (UP, UP)]


def test_a_path_without_carrier_is_not_tried_although_all_are_down() -> None:
    world = busy()
    world.cut(2)
    world.run(5.0)
    world.cut(1)
    world.perform(world.mag, world.mag.monitor.carrier_lost(("lma", 1), world.now + world.mag.boot))
    assert (world.mag.states[1], world.mag.states[2]) == (DOWN, SUSPECT)


def test_a_report_that_is_not_repeated_becomes_stale() -> None:
    world = busy()
    world.cut(1, toward="lma")  # the LMA sees it, the MAG believes the LMA
    world.run(1.0)
    path = world.mag.monitor._way(("lma", 1))
    assert path is not None
    assert path.state(world.now + world.mag.boot) is DOWN
    assert path.state(world.now + world.mag.boot + 3 * 1.0 + 0.2) is UP


# --- carrier ---


def test_a_path_without_carrier_is_down_at_once_and_the_peer_hears_of_it_over_the_other() -> None:
    world = busy()
    world.cut(1)
    lost_at = world.now
    world.perform(world.mag, world.mag.monitor.carrier_lost(("lma", 1), world.now + world.mag.boot))
    assert world.mag.states[1] is DOWN
    world.run(0.2)
    assert left_after(world, world.lma, 1, lost_at) <= 0.05 + 1e-6  # one way by the other path
    assert world.lma.states[1] is DOWN


def test_a_path_whose_carrier_returns_is_up_again_when_probes_pass() -> None:
    world = busy()
    world.cut(1)
    world.perform(world.mag, world.mag.monitor.carrier_lost(("lma", 1), world.now + world.mag.boot))
    world.run(30.0)
    world.cut(1, cut=False)
    world.run(1.0)
    assert world.state(1) == (UP, UP)


# --- return ---


def came_back_once(world: TwoRouters, bid: int, since: float) -> bool:
    """Each end changed its mind just once, to up."""
    changes = {
        end.name: [state for at, path, state in end.changes if path == bid and at >= since]
        for end in (world.lma, world.mag)
    }
    return changes == {"lma": [UP], "mag": [UP]}


@pytest.mark.parametrize("delays", [(0.02, 0.05), (0.05, 0.02), (0.01, 0.1)])
def test_a_path_that_returns_is_up_once_although_reports_by_other_paths_are_older(delays: tuple[float, ...]) -> None:
    world = busy(delays=delays, lateness=0.003)
    world.traffic = {1, 2}  # so that there are many reports by the other path
    for cycle in range(12):
        world.cut(1)
        world.run(0.5 + cycle * LEAVES / 12)
        world.cut(1, cut=False)
        returned_at = world.now
        world.run(0.6)
        assert came_back_once(world, 1, returned_at), f"cycle {cycle}: {world.changes(1, returned_at)}"


def test_an_older_report_is_believed_only_if_the_later_one_is_stale() -> None:
    later, older = Report(view=UP, until=10.0, written=5), Report(view=DOWN, until=11.0, written=2**32 - 5)
    assert later.outdates(older, 9.0)
    assert not older.outdates(later, 9.0)
    assert older.outdates(later, 10.0)  # the peer may have been switched on again: its clock began anew


def test_twenty_of_twenty_cycles_recover_within_a_second_of_the_return() -> None:
    world = busy(seed=4, lateness=0.005)
    slowest = 0.0
    for cycle in range(20):
        world.cut(1)
        world.run((0.3, 0.7, 1.2, 2.5)[cycle % 4] + 0.013 * cycle + (60.0 if cycle == 10 else 0.0))
        assert world.state(1) == (DOWN, DOWN)
        world.cut(1, cut=False)
        returned_at = world.now
        world.run(1.0)
        assert world.state(1) == (UP, UP), f"cycle {cycle}"
        slowest = max(slowest, world.changes(1, returned_at)[-1][0] - returned_at)
        world.run(1.0)
    assert slowest <= 1.0, f"slowest: {slowest:.3f} s"


def test_all_paths_return_after_all_were_dead_for_minutes() -> None:
    world = busy()
    for bid in world.paths:
        world.cut(bid)
    world.run(130.0)
    for bid in world.paths:
        world.cut(bid, cut=False)
    world.run(1.0)
    assert [world.state(bid) for bid in world.paths] == [(UP, UP)] * 2


def test_a_dead_path_is_probed_quickly_for_a_minute_and_then_four_times_a_second() -> None:
    world = busy()
    world.cut(1)
    world.run(50.0)
    assert probes_in(world, world.lma, 1, 3.0) == 80
    world.run(15.0)
    assert probes_in(world, world.lma, 1, 3.0) == 16


def test_one_probe_alone_does_not_bring_a_path_back() -> None:
    world = busy()
    world.cut(1)
    world.run(1.0)
    world.cut(1, cut=False)
    world.run(INTERVAL)  # one or two of each end
    world.cut(1)
    world.run(1.0)
    assert world.state(1) == (DOWN, DOWN)
    assert all(state is not UP for _, _, state in world.changes(1))


# --- loss ---


def test_one_percent_of_loss_for_ten_minutes_takes_no_path_down() -> None:
    world = busy(seed=1, lateness=0.005, key=b"")
    for wire in world.wires.values():
        wire.loss, wire.jitter = 0.01, 0.005
    world.run(600.0)  # traffic both ways, a probe each way every 37.5 ms
    states = [state for _, _, state in world.changes(1)]
    # two in a row of 32,000 probes: 3.2 on the average, told at both ends
    assert DOWN not in states
    assert states.count(SUSPECT) <= 16
    assert 5 <= world.lma.monitor.rows()[0]["lost"] / 16000 * 1000 <= 15  # type: ignore[operator]


@pytest.mark.parametrize("jitter", [0.01, 0.03])
def test_jitter_alone_makes_no_path_suspect(jitter: float) -> None:
    world = busy(seed=7, lateness=0.005)
    for wire in world.wires.values():
        wire.jitter = jitter
    world.run(60.0)
    assert world.changes(1) == []


# --- nothing sticks ---


def weather(world: TwoRouters, dice: random.Random) -> Iterator[str]:
    """Something happens to the paths, over and over."""
    while True:
        bid, toward = dice.choice(list(world.paths)), dice.choice(["", "lma", "mag"])
        match dice.choice(["cut", "mend", "mend", "traffic", "loss", "forget", "stall", "carrier"]):
            case "cut":
                world.cut(bid, toward=toward)
                yield f"cut {bid} {toward}"
            case "mend":
                world.cut(bid, toward=toward, cut=False)
                yield f"mend {bid} {toward}"
            case "traffic":
                world.traffic ^= {bid}
                yield f"traffic {bid}"
            case "loss":
                world.wires[dice.choice(["lma", "mag"]), bid].loss = dice.choice([0.0, 0.1, 0.5])
                yield f"loss {bid}"
            case "forget":
                end = dice.choice([world.lma, world.mag])
                end.monitor.forget(world.way(end, bid).key)
                yield f"forget {end.name} {bid}"
            case "stall":
                end = dice.choice([world.lma, world.mag])
                end.busy_until = world.now + dice.random()
                yield f"stall {end.name}"
            case "carrier":
                now = world.now + world.mag.boot
                world.perform(world.mag, world.mag.monitor.carrier_lost(("lma", bid), now))
                yield f"carrier {bid}"


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happened_good_paths_are_up_at_both_ends_within_seconds(seed: int) -> None:
    dice = random.Random(seed)
    world = busy(paths=3, seed=seed, lateness=0.005, key=b"")
    happenings = weather(world, dice)
    for walk in range(3):
        story = []
        for _ in range(12):
            story.append(next(happenings))
            world.run(dice.choice([0.01, 0.1, 0.5, 2.0, 5.0]))
        for bid in world.paths:
            world.cut(bid, cut=False)
        for wire in world.wires.values():
            wire.loss = 0.0
        world.register()
        world.run(5.0)
        states = [world.state(bid) for bid in world.paths]
        assert states == [(UP, UP)] * 3, f"seed {seed}, walk {walk}: {story}"


# --- peers that know no probes ---


def legacy() -> TwoRouters:
    world = TwoRouters()
    world.mag.legacy = True
    for bid in world.paths:
        world.lma.states[bid] = UP
        world.perform(world.lma, world.lma.monitor.watch(world.way(world.lma, bid), world.lma.boot))
    world.traffic = {1}
    return world


def test_the_ways_to_a_legacy_peer_stay_up() -> None:
    world = legacy()
    world.run(60.0)
    world.cut(1)
    world.run(60.0)
    assert world.lma.changes == []


def test_a_legacy_peer_is_asked_rarely() -> None:
    world = legacy()
    world.run(60.0)
    assert probes_in(world, world.lma, 1, 60.0) <= 8


def test_a_legacy_path_without_carrier_is_up_again_when_it_is_registered_again() -> None:
    world = legacy()
    world.run(1.0)
    now = world.now + world.lma.boot
    world.perform(world.lma, world.lma.monitor.carrier_lost(("mag", 1), now))
    assert world.lma.states[1] is DOWN
    world.perform(world.lma, world.lma.monitor.watch(world.way(world.lma, 1), now))
    assert world.lma.states[1] is UP


def test_a_peer_that_does_not_know_heartbeats_gets_no_more_of_them() -> None:
    world = legacy()
    world.lma.monitor.not_understood("mag")
    world.run(1.0)
    assert probes_in(world, world.lma, 1, 60.0) == 0


# --- what comes and goes ---


def test_as_many_paths_as_there_are_numbers_still_fit_in_a_probe() -> None:
    world = TwoRouters()
    for bid in range(1, 255):
        way = world.way(world.lma, 1)
        numbered = replace(way, tunnel=replace(way.tunnel, binding_id=bid))
        world.perform(world.lma, world.lma.monitor.watch(numbered, world.lma.boot))
    now = world.lma.boot + 0.1
    (setway, *_) = world.lma.monitor.carrier_lost(("mag", 200), now)
    assert isinstance(setway, SetWay)
    world.perform(world.lma, world.lma.monitor.watch(world.way(world.lma, 2), now))
    assert 200 in [report.binding_id for report in reports_of(world.lma.sent[-1][1])]


def test_a_path_that_is_not_registered_any_more_is_not_probed() -> None:
    world = busy()
    world.lma.monitor.forget(("mag", 1))
    assert probes_in(world, world.lma, 1, 5.0) == 0


def test_a_probe_of_a_path_that_is_not_known_here_is_answered_without_a_word_about_it() -> None:
    world = TwoRouters()
    world.perform(world.mag, world.mag.monitor.watch(world.way(world.mag, 1), world.mag.boot))
    world.run(0.1)
    (answer,) = (beat for _, beat in world.lma.sent)
    assert answer.response
    assert not world.lma.monitor.is_probe(answer)


def test_a_path_registered_again_from_another_address_begins_anew() -> None:
    world = busy()
    world.cut(1)
    world.run(1.0)
    moved = replace(world.way(world.lma, 1), destination=MAG[2])
    actions = world.lma.monitor.watch(moved, world.now + world.lma.boot)
    assert SetWay(tunnel=moved.tunnel, state=UP) in actions


def test_a_way_forgotten_while_it_was_down_is_up_when_it_is_registered_again() -> None:
    world = busy()
    world.cut(1)
    world.run(1.0)
    world.lma.monitor.forget(("mag", 1))
    way = world.way(world.lma, 1)
    assert SetWay(tunnel=way.tunnel, state=UP) in world.lma.monitor.watch(way, world.now + world.lma.boot)


def test_a_new_label_changes_nothing_but_the_label() -> None:
    world = busy()
    world.cut(1)
    world.run(1.0)
    way = world.way(world.lma, 1)
    relabelled = replace(way, tunnel=replace(way.tunnel, label=99))
    assert world.lma.monitor.watch(relabelled, world.now + world.lma.boot) == []
    world.cut(1, cut=False)
    world.run(1.0)
    assert world.state(1) == (UP, UP)
    assert world.lma.monitor.rows()[0]["label"] == 99


# --- trust ---


def recorded(world: TwoRouters) -> DatagramReceived:
    """A probe of the MAG that has arrived."""
    seen: list[DatagramReceived] = []
    deliver = world.deliver

    def record(end: End, event: DatagramReceived) -> None:
        if end is world.lma and event.source == MAG[0]:
            seen.append(event)
        deliver(end, event)

    world.deliver = record  # type: ignore[method-assign]
    world.run(0.2)
    world.deliver = deliver  # type: ignore[method-assign]
    return seen[0]


@pytest.mark.parametrize("later", [0.01, 1.0, 60.0])
def test_a_replayed_probe_does_not_keep_a_dead_path_alive(later: float) -> None:
    world = busy()
    event = recorded(world)
    world.traffic = set()
    world.run(later)
    before = world.lma.counters["probe.replayed"]
    world.deliver(world.lma, event)
    assert world.lma.counters["probe.replayed"] == before + 1


def test_a_probe_that_came_by_another_path_does_not_count_for_its_own() -> None:
    world = busy()
    now = world.now + world.mag.boot
    strayed = replace(world.way(world.mag, 1), source=MAG[1])
    world.mag.monitor.forget(("lma", 1))
    world.perform(world.mag, world.mag.monitor.watch(strayed, now))
    world.run(0.06)
    assert world.lma.counters["probe.elsewhere"] == 1


def test_signed_probes_carry_a_timestamp() -> None:
    world = TwoRouters()
    world.register()
    assert world.lma.sent[0][1].option(Timestamp) is not None


def test_without_keys_probes_carry_no_timestamp_and_are_believed() -> None:
    world = busy(key=b"")
    assert world.lma.sent[0][1].option(Timestamp) is None
    world.cut(1)
    world.run(1.0)
    assert world.state(1) == (DOWN, DOWN)


# --- measurement ---


def test_round_trip_jitter_and_loss_are_measured() -> None:
    world = busy(seed=2, delays=(0.01, 0.05))
    for name in ("lma", "mag"):
        world.wires[name, 1].jitter, world.wires[name, 1].loss = 0.006, 0.1
    world.run(30.0)
    row = world.lma.monitor.rows()[0]
    assert (row["peer"], row["bid"], row["label"], row["local"], row["remote"]) == ("mag", 1, 10, LMA, MAG[0])
    assert row["rtt_ms"] == pytest.approx(26.0, abs=3.0)
    assert row["jitter_ms"] == pytest.approx(2.0, abs=1.0)
    assert row["loss_percent"] == pytest.approx(10.0, abs=8.0)
    assert row["sent"] >= 800  # type: ignore[operator]
    assert world.lma.monitor.rows()[1]["rtt_ms"] == pytest.approx(100.0, abs=1.0)


def test_a_dead_path_has_lost_everything_after_a_while() -> None:
    world = busy()
    world.cut(1)
    world.run(90.0)
    assert world.lma.monitor.rows()[0]["loss_percent"] > 95.0  # type: ignore[operator]


def test_the_peer_is_told_of_the_other_paths() -> None:
    world = busy()
    world.cut(2)
    world.run(5.0)
    (report,) = reports_of(next(beat for _, beat in reversed(world.lma.sent) if probe_of(beat).binding_id == 1))
    assert (report.binding_id, report.view) == (2, DOWN)
    assert report.round_trip == pytest.approx(0.1, abs=0.001)
