"""The paths between two routers, watched: probes at both ends, each judging what reaches it, and telling the other.

    LMA                                   MAG
     |---- probe, within 50 ms ----------->|   its own view of the path: from probes that came, and did not
     |<--- probe, within 50 ms ------------|   what it tells: that view, loss, reports on the other paths

A way is as good as the worse of our own view and the peer's report says: a path that loses one direction is dead for
both. Views are reported, never states, or two ends would keep each other down. Reports overtake each other, as paths
are not equally long: the one that was written last counts.

Probes leave within `interval` while there is traffic or trouble, else within `idle_interval`; each says when the next
one comes, so that silence is judged by what was announced:

    0 -------------- 75 % ---- 85 % --------- 100 %      of the interval; RFC 5880 6.8.7 has 75 to 100 % as well
    a probe leaves   the next  it is late:
                     one       what was announced

Flows never take a way that is down, unless all are, and none for want of a carrier: then each is tried like a suspect
one. What looks dead may be a router that stood still for a moment, and there is nothing to be lost.

A router that is 10 % late has lost nothing. At 50 ms, a silent path is left 2 x 42.5 + 5 = 90 ms after its last probe
came (`path_view`), up to the jitter; a flow that goes on by a path that takes 50 ms has a gap of 140 ms.

Probes are Heartbeats (RFC 5847) with a Vendor-Specific option (RFC 5094): a request wants an answer at once (a path
that begins, gets busy or recovers), an unsolicited response wants none (all others). A peer that answers without our
option is a legacy one: its ways are up as long as they are registered.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from signaling.actions import Action, Note, SetWay, TunnelEnd
from signaling.deadlines import Deadlines
from signaling.door import Door
from signaling.events import DatagramReceived
from signaling.freshness import Freshness
from signaling.iana import HeartbeatFlag
from signaling.pmip.path_view import NUMBERS, ROUNDING, Measurements, Sign, View
from signaling.pmip.probe import (
    REPORTS_IN_AN_OPTION,
    PathReport,
    Probe,
    between,
    carries_probe,
    microseconds,
    options_of,
    probe_of,
    reports_of,
)
from signaling.settings import Address, Clock, Counters, LmaSettings, MagSettings, PathCare, Peer, WayState
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.option import Option
from signaling.wire.options.security import RestartCounter

LEAVES, ANNOUNCED = 0.75, 0.85  # of the interval: when the next probe leaves, and when it is late
LOOKS = 2  # at the traffic of a path, from one idle probe to the next
RECOVERY_INTERVAL = 0.25  # s at most between probes of a path that is not up, so that it is back within 1 s
QUICK_RECOVERY = 60.0  # s: for so long such a path is probed at the busy interval,
SIGN_OF_LIFE = 1.0  # s: and again for so long after anything came by it
LEAST_INTERVAL = 0.005  # s, believed of a peer
PATIENCE = 1.0  # s, for the first probe of a path, or while its round trip is unknown
LEGACY_INTERVAL = 10.0  # s between probes to a peer that has not answered the first PROBES_TO_A_STRANGER
PROBES_TO_A_STRANGER = 5
REPORTS_KEPT = 3  # announced intervals, and REPORT_GRACE: then a report is stale
REPORT_GRACE = 0.1  # s

MOST_REPORTS = 2 * REPORTS_IN_AN_OPTION  # in one probe: it has to stay small, however many paths a peer makes

RESPONSE, UNSOLICITED, REQUEST = HeartbeatFlag.RESPONSE, HeartbeatFlag.UNSOLICITED, HeartbeatFlag(0)
WORSE = (WayState.UP, WayState.SUSPECT, WayState.DOWN)  # each worse than the one before

Key = tuple[str, int]  # name of the peer, BID
Ends = tuple[Address | None, Address, int]  # local, remote, port of a tunnel


class Recipient(NamedTuple):
    """Where a probe goes, from which address and kind of port of ours."""

    address: Address
    port: int
    source: Address | None
    beside_data: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One path to a peer, and between which addresses its probes travel. source: ours; None: the usual one."""

    tunnel: TunnelEnd
    peer: str
    source: Address | None
    destination: Address
    port: int = 0

    @property
    def key(self) -> Key:
        """What the monitor knows it by."""
        return self.peer, self.tunnel.binding_id

    @property
    def ends(self) -> Ends:
        """What makes its tunnel another one; GRE keys do not, they are a session's."""
        return self.tunnel.local, self.tunnel.remote, self.tunnel.port

    @property
    def beside_data(self) -> bool:
        """Whether probes take the UDP port of tunnels: through a NAT that is another way than that of signalling."""
        return bool(self.tunnel.port)

    @property
    def recipient(self) -> Recipient:
        """Where its probes go."""
        return Recipient(self.destination, self.tunnel.port or self.port, self.source, self.beside_data)

    def joins(self, other: "Way") -> bool:
        """Whether the other is the same path, whatever its label and weight, and the ports of its NAT."""
        mine = (self.tunnel.local, self.tunnel.remote, self.beside_data, self.source, self.destination)
        others = (other.tunnel.local, other.tunnel.remote, other.beside_data, other.source, other.destination)
        return mine == others

    def carried(self, event: DatagramReceived) -> bool:
        """Whether it came by this way. The port may have changed: the NAT of the peer chooses it."""
        here = event.source == self.destination and self.source in (None, event.destination)
        return here and event.beside_data == self.beside_data


@dataclass(slots=True, kw_only=True)
class Report:
    """How the peer sees the way. until: monotonic s; written: us, by the clock of the peer."""

    view: WayState = WayState.UP
    until: float = 0.0
    written: int = 0

    def outdates(self, other: "Report", now: float) -> bool:
        """Whether it was written after the other one. One that is stale says nothing: the peer may have restarted."""
        return now >= other.until or between(other.written, self.written) >= 0


@dataclass(slots=True, kw_only=True)
class Watched:
    """A way under watch. Times: monotonic s."""

    way: Way
    view: View
    since: float  # the last change of `told`
    next_probe: float
    next_look: float
    rhythm: float  # when looks at the ways of this peer began: they share wake-ups
    told: WayState = WayState.UP  # the state that people were told last
    given: WayState = WayState.UP  # the state that SetWay gave last
    measured: Measurements = field(default_factory=Measurements)
    report: Report = field(default_factory=Report)
    every: float = 0.0  # s, the interval that our last probe announced
    asking: bool = True  # our probes are requests
    sent: int = 0
    traffic: int = -1  # what the counters said
    traffic_until: float = 0.0  # there was some lately
    peer_has_traffic: bool = False
    heard: tuple[int, float] | None = None  # the peer's newest timestamp (us), and when it came

    def state(self, now: float) -> WayState:
        """The worse of our own view and the peer's, as long as that is not stale."""
        theirs = self.report.view if now < self.report.until else WayState.UP
        return max(self.view.what, theirs, key=WORSE.index)

    def loss(self, now: float) -> int:
        """Of the peer's probes, per mille."""
        return self.measured.loss(self.view.missing(now))


class PathMonitor:
    """All ways to all peers. traffic: packets of a tunnel, both ways, since whenever; -1 where that is unknown."""

    def __init__(
        self,
        settings: LmaSettings | MagSettings,
        door: Door,
        clock: Clock,
        counters: Counters,
        *,
        traffic: Callable[[TunnelEnd], int],
    ) -> None:
        self._settings = settings
        self._care: PathCare = settings.paths
        self._door = door
        self._clock = clock
        self._counters = counters
        self._traffic = traffic
        self._freshness = Freshness(clock)
        self._deadlines: Deadlines[Key] = Deadlines()
        self._ways: dict[str, dict[int, Watched]] = {}  # of a peer, by BID
        self._probing: set[str] = set()  # peers that sent a probe on any path
        self._mute: set[str] = set()  # peers that do not know heartbeats
        self._left_down: set[Ends] = set()  # of tunnels forgotten while they were not up
        self._moved: dict[Key, int] = {}  # UDP port that data of a way comes from now
        self._now = 0.0  # monotonic s, when something happened last

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s."""
        return self._deadlines.next

    # --- what is watched ---

    def watch(self, way: Way, now: float) -> list[Action]:
        """A way was registered, newly or once more; the first probe leaves at once."""
        self._now = now
        known = self._way(way.key)
        if known is not None and known.way.joins(way):
            known.way = way
            known.view.registered()
            return self._settle(known, now)
        if known is not None:
            self.forget(way.key)
        paths = self._ways.setdefault(way.peer, {})
        rhythm = next((other.rhythm for other in paths.values()), now)
        path = Watched(way=way, view=View(self._care), since=now, next_probe=now, next_look=now, rhythm=rhythm)
        paths[way.tunnel.binding_id] = path
        actions: list[Action] = []
        if way.ends in self._left_down:
            self._left_down.discard(way.ends)
            actions.append(SetWay(tunnel=way.tunnel, state=WayState.UP))
        if way.peer in self._probing:
            path.view.start(now + PATIENCE)
        return actions + self._attend(path, now)

    def forget(self, key: Key) -> None:
        """The way is not registered any more."""
        peer, binding_id = key
        path = self._ways.get(peer, {}).pop(binding_id, None)
        if path is None:
            return
        self._deadlines.cancel(key)
        if path.given is not WayState.UP:
            self._left_down.add(path.way.ends)
        if not self._ways[peer]:
            del self._ways[peer]
            self._probing.discard(peer)

    def carrier_lost(self, key: Key, now: float) -> list[Action]:
        """The kernel says that nothing leaves by this way: it is down, and the peer hears of it over the others."""
        path = self._way(key)
        if path is None:
            return []
        before = path.view.what
        path.view.carrier_lost()
        return self._react(path, before, now)

    def take_moved(self) -> dict[Key, int]:
        """The ways whose data came from another UDP port since the last call, and from which."""
        moved, self._moved = self._moved, {}
        return moved

    def not_understood(self, peer: str) -> None:
        """The peer answered with a Binding Error, status 2: it gets no more probes."""
        self._mute.add(peer)

    def _way(self, key: Key) -> Watched | None:
        return self._ways.get(key[0], {}).get(key[1])

    def _others(self, path: Watched) -> list[Watched]:
        return [other for other in self._ways[path.way.peer].values() if other is not path]

    # --- in ---

    def is_probe(self, beat: Heartbeat) -> bool:
        """Whether a Heartbeat is for us, or for whoever asks if the peer lives."""
        return carries_probe(beat)

    def receive(self, beat: Heartbeat, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        """A probe came in, and it is genuine. peer: who sent it."""
        self._now = now
        try:
            probe, reports = probe_of(beat), reports_of(beat)
        except ValueError:
            self._counters["probe.malformed"] += 1
            return []
        if peer is None or (peer.key and not self._freshness.accepts((peer.name, probe.binding_id), beat, now)):
            self._counters["probe.replayed"] += 1
            return []
        path = self._way((peer.name, probe.binding_id))
        if path is None or not path.way.carried(event):
            self._counters["probe.elsewhere"] += 1  # a path that is not registered yet, or no more
            return [] if beat.response else [self._plain_answer(beat, event, now)]
        self._meet(peer.name, now)
        moved = self._follow_port(path, event)
        before = path.view.what
        self._measure(path, probe, now)
        spoken_of = self._take_reports(path, probe, reports, now)
        actions = moved + self._react(path, before, now)
        for other in spoken_of:
            actions += self._settle(other, now)
        if not beat.response:
            actions.append(self._probe(path, now, RESPONSE, beat.sequence_number))
        return actions + self._attend(path, now)

    def _meet(self, peer: str, now: float) -> None:
        """A peer that sends probes sends them on all paths: from now on it is missed where it does not."""
        if peer not in self._probing:
            self._probing.add(peer)
            for path in self._ways[peer].values():
                path.view.start(now + PATIENCE)

    def _follow_port(self, path: Watched, event: DatagramReceived) -> list[Action]:
        """Behind its NAT the peer sends data from another port now: probes go there at once, data with `take_moved`."""
        if not event.beside_data or event.port == path.way.tunnel.port:
            return []
        path.way = replace(path.way, tunnel=replace(path.way.tunnel, port=event.port))
        self._moved[path.way.key] = event.port
        return [SetWay(tunnel=path.way.tunnel, state=path.told)]  # a tunnel begins as one that is up

    def _measure(self, path: Watched, probe: Probe, now: float) -> None:
        lost = path.measured.arrived(probe.number, microseconds(now) - probe.timestamp)
        if probe.echoes:
            path.measured.answered(between(probe.echo, microseconds(now)) - probe.held)
        path.view.arrived(max(probe.interval, LEAST_INTERVAL), now, lost=lost)
        path.heard = probe.timestamp, now
        path.peer_has_traffic = probe.traffic
        path.asking = False

    def _take_reports(self, path: Watched, probe: Probe, reports: list[PathReport], now: float) -> list[Watched]:
        """Believe what the peer says about its views. Gives the other paths it spoke of."""
        until = now + REPORTS_KEPT * probe.interval + REPORT_GRACE
        views = {report.binding_id: report.view for report in reports} | {probe.binding_id: probe.view}
        spoken_of = []
        for binding_id, view in views.items():
            about = self._way((path.way.peer, binding_id))
            report = Report(view=view, until=until, written=probe.timestamp)
            if about is not None and report.outdates(about.report, now):
                about.report = report
                spoken_of.append(about)
        return [other for other in spoken_of if other is not path]

    # --- time ---

    def wake(self, now: float) -> list[Action]:
        """Send probes that are due; look for those that did not come."""
        self._now = now
        actions: list[Action] = []
        for peer, binding_id in self._deadlines.due(now):
            path = self._ways[peer][binding_id]
            before = path.view.what
            path.view.look(now)
            actions += self._react(path, before, now) + self._attend(path, now)
        return actions

    def _react(self, path: Watched, before: WayState, now: float) -> list[Action]:
        """Our view may have changed: the way follows it, and the peer hears of it at once, wherever it listens."""
        actions = self._settle(path, now)
        if path.view.what is before:
            return actions
        # by this way too: if only the direction toward us is lost, it is the shortest
        ways = self._ways[path.way.peer].values()
        return actions + [self._probe(each, now) for each in ways if each.heard is not None]

    def _settle(self, path: Watched, now: float) -> list[Action]:
        """Say so if the state of the way changed."""
        state = path.state(now)
        if state is path.told:
            return []
        path.told, path.since = state, now
        self._deadlines.set(path.way.key, now)  # probes leave in another rhythm from now on
        sign = path.view.sign if state is path.view.what else None
        why = sign.value if sign else "peer-report"
        peer, binding_id = path.way.key
        self._counters[f"path.{state.value}"] += 1
        fields = {"peer": peer, "bid": binding_id, "label": path.way.tunnel.label, "state": state.value, "why": why}
        return [*self._give(peer), Note("path-state", fields)]

    def _give(self, peer: str) -> list[Action]:
        """What flows are to make of the ways of a peer: of ways that are all down, none is given up."""
        ways = self._ways[peer].values()
        all_down = all(path.told is WayState.DOWN for path in ways)
        actions: list[Action] = []
        for path in ways:
            tried = all_down and path.view.sign is not Sign.CARRIER_LOST
            state = WayState.SUSPECT if tried else path.told
            if state is not path.given:
                path.given = state
                actions.append(SetWay(tunnel=path.way.tunnel, state=state))
        return actions

    def _attend(self, path: Watched, now: float) -> list[Action]:
        """Look at the traffic, send the probe that is due."""
        actions = self._settle(path, now)
        if path.way.peer in self._mute:
            self._deadlines.cancel(path.way.key)
            return actions
        self._look_at_traffic(path, now)
        every = self._interval(path, now)
        if every < path.every:  # what was announced is too slow now
            path.next_probe = now
        if now >= path.next_probe:
            actions.append(self._probe(path, now))
        self._set_deadline(path, now)
        return actions

    def _look_at_traffic(self, path: Watched, now: float) -> None:
        path.next_look = self._look_before(path, now) + self._between_looks
        before, path.traffic = path.traffic, self._traffic(path.way.tunnel)
        if path.traffic == before or before < 0:
            return
        begins = now >= path.traffic_until
        path.traffic_until = now + self._care.idle_interval
        if begins and path.view.what is WayState.UP:
            # it may have died unnoticed while it was idle: the peer is asked, and has a round trip to answer
            path.asking = True
            path.view.expect(now + (path.measured.round_trip or PATIENCE), ANNOUNCED * self._care.interval)

    @property
    def _between_looks(self) -> float:
        return LEAVES * self._care.idle_interval / LOOKS

    def _look_before(self, path: Watched, at: float) -> float:
        """The last time to look that is not after `at`."""
        at += ROUNDING
        return at - (at - path.rhythm) % self._between_looks

    def _interval(self, path: Watched, now: float) -> float:
        """Within which time after a probe the next one leaves, s."""
        care = self._care
        if path.way.peer not in self._probing:
            return care.idle_interval if path.sent < PROBES_TO_A_STRANGER else LEGACY_INTERVAL
        if path.told is not WayState.UP:
            stirs = path.heard is not None and now - path.heard[1] < SIGN_OF_LIFE
            quick = stirs or now - path.since < QUICK_RECOVERY
            return care.interval if quick else max(care.interval, RECOVERY_INTERVAL)
        return care.interval if now < path.traffic_until or path.peer_has_traffic else care.idle_interval

    def _set_deadline(self, path: Watched, now: float) -> None:
        times = [path.next_probe]
        if path.way.peer in self._probing:
            times.append(path.next_look)
        if path.view.next is not None:
            times.append(path.view.next)
        if now < path.report.until and path.report.view is not WayState.UP:
            times.append(path.report.until)
        self._deadlines.set(path.way.key, min(times))

    # --- out ---

    def _probe(self, path: Watched, now: float, flags: HeartbeatFlag | None = None, number: int = 0) -> Action:
        """The probe of a path; flags and number of a Heartbeat that it answers, else as the path needs it."""
        path.sent += 1
        path.every = self._interval(path, now)
        path.next_probe = now + LEAVES * path.every
        if path.every >= self._care.idle_interval:  # no hurry: with a look, it costs no wake-up
            path.next_probe = self._look_before(path, path.next_probe)
        if flags is None:
            asks = path.asking or path.told is not WayState.UP
            flags, number = (REQUEST, path.sent) if asks else (RESPONSE | UNSOLICITED, 0)
        echo, at = path.heard or (0, now)
        probe = Probe(
            binding_id=path.way.tunnel.binding_id,
            number=path.sent % NUMBERS,
            interval=ANNOUNCED * path.every,
            timestamp=microseconds(now),
            view=path.view.what,
            traffic=now < path.traffic_until,
            loss=path.loss(now),
            echoes=path.heard is not None,
            echo=echo,
            held=now - at,
        )
        worst_first = sorted(self._others(path), key=lambda other: -WORSE.index(other.view.what))
        options = options_of(probe, [_report(other, now) for other in worst_first[:MOST_REPORTS]])
        return self._send(flags, number, options, path.way.recipient, now)

    def _plain_answer(self, beat: Heartbeat, event: DatagramReceived, now: float) -> Action:
        """What every request gets, from whomever (RFC 5847 3.2): about the path we have nothing to say."""
        to = Recipient(event.source, event.port, event.destination, event.beside_data)
        return self._send(RESPONSE, beat.sequence_number, (), to, now)

    def _send(
        self, flags: HeartbeatFlag, number: int, options: tuple[Option, ...], to: Recipient, now: float
    ) -> Action:
        if RESPONSE in flags:
            options = (*options, RestartCounter(counter=self._settings.restart_counter))
        if self._door.signs_for(to.address, to.port):
            options = (*options, self._freshness.stamp(now))
        return self._door.send(
            Heartbeat(flags=flags, sequence_number=number, options=options),
            to.address,
            care_of=self._door.path_care_of(to.source, to.address),
            port=to.port,
            source=to.source,
            beside_data=to.beside_data,
        )

    # --- what people ask ---

    def states(self) -> dict[Key, WayState]:
        """What is known of each way, by peer and BID."""
        return {path.way.key: path.told for paths in self._ways.values() for path in paths.values()}

    def rows(self) -> list[dict[str, object]]:
        """For `show paths`: one row for each way. since: wall clock s; times in ms, None where not measured."""
        return list(self._rows(self._now))

    def _rows(self, now: float) -> Iterator[dict[str, object]]:
        for peer, paths in sorted(self._ways.items()):
            for binding_id, path in sorted(paths.items()):
                measured, round_trip = path.measured, path.measured.round_trip
                yield {
                    "peer": peer,
                    "bid": binding_id,
                    "label": path.way.tunnel.label,
                    "local": path.way.source or self._settings.address,
                    "remote": path.way.destination,
                    "state": path.told.value,
                    "rtt_ms": None if round_trip is None else round(round_trip * 1e3, 1),
                    "jitter_ms": None if path.heard is None else round(measured.jitter * 1e3, 1),
                    "loss_percent": None if path.heard is None else path.loss(now) / 10,
                    "sent": path.sent,
                    "lost": measured.lost,
                    "since": self._clock.wall(path.since),
                }


def _report(path: Watched, now: float) -> PathReport:
    measured = path.measured
    return PathReport(
        binding_id=path.way.tunnel.binding_id,
        view=path.view.what,
        loss=path.loss(now),
        round_trip=measured.round_trip or 0.0,
        jitter=measured.jitter,
    )
