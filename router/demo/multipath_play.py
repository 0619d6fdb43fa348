"""The play of `demo multipath`: what a gateway with two uplinks does with the flows of the hosts behind it.

Five acts: flows on their labels, the policy changed live, a path that falls silent, bicast, and both paths per packet.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from router.demo.branch import ACCESSES, ANCHOR, GATEWAY, LTE, WLAN, Access
from router.demo.branch_stage import DOWN_FLOW, TCP_FLOW, UP_FLOW, BranchStage, Rule, Streams
from router.demo.figures import Stream
from router.demo.narrator import Narrator, promises
from router.demo.topology import CN_ADDRESS
from router.demo.traffic import Program

GAP_WITHIN = 150.0  # ms without a datagram when a path falls silent
BACK_WITHIN = 1.0  # s after which a path that works again is used again
SHARE_AT_LEAST = 0.8  # of a flow on the path of its label; the counts of wire and host are not of the same moment
RATIO_AT_LEAST = 1.6  # of both paths to one, a TCP stream on equal paths
EQUAL_RATE, EQUAL_DELAY = 20.0, 20.0  # Mbit/s, ms
FAST_DOWNLOAD = 30.0  # Mbit/s: more than lte has, and no queue on wlan that would cost the voice something
SLOW_DOWNLOAD = 5.0  # Mbit/s, of what runs while paths fall silent
SETTLED = 0.5  # s in which what was on its way arrives
EVERY = 1.0  # s between two lines of rates

WLAN_FIRST, LTE_FIRST = ["wlan", "lte"], ["lte", "wlan"]
ON_THEIR_LABELS: list[Rule] = [
    {"name": "bulk", **TCP_FLOW, "labels": WLAN_FIRST},
    {"name": "voice-down", **DOWN_FLOW, "labels": LTE_FIRST},
    {"name": "voice-up", **UP_FLOW, "labels": LTE_FIRST},
]
EXCHANGED: list[Rule] = [
    {"name": "bulk", **TCP_FLOW, "labels": LTE_FIRST},
    {"name": "voice-down", **DOWN_FLOW, "labels": WLAN_FIRST},
    {"name": "voice-up", **UP_FLOW, "labels": WLAN_FIRST},
]
ALL_ON_WLAN: list[Rule] = [{"name": "all", "labels": WLAN_FIRST}]
VOICE_ON_BOTH: list[Rule] = [
    {"name": "voice-down", **DOWN_FLOW, "spread": "bicast"},
    {"name": "voice-up", **UP_FLOW, "spread": "bicast"},
    *ALL_ON_WLAN,
]
PACKETS_ON_BOTH: list[Rule] = [{"name": "all", "spread": "per-packet"}]

CONDITIONS = "; ".join(f"{access.name} {access.rate:g} Mbit/s {access.delay:g} ms" for access in ACCESSES)
PICTURE = f"""\
            cn  2001:db8:cccc::80                 a correspondent
             |
           core ---- lma                          `python -m router --lma`
          /    \\
      wlan      lte                               {CONDITIONS}
          \\    /
           mag                                    `python -m router --mag`, an uplink for each
          :    :
         h1    h2                                 stock hosts, nothing of ours on them
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Where flows went: octets of the download, datagrams of the voice, on the path they should be on; 1.0: all."""

    bulk_on: str
    bulk_share: float
    voice_on: str
    voice_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """One time that a path went silent under 1000 datagrams a second each way, and came back."""

    gap_down_ms: float
    gap_up_ms: float
    lost: int
    reordered: int
    back_ms: float  # after its return, until both routers saw it


@dataclass(slots=True)
class Outcome:
    """The summary, as `-j` prints it."""

    labels: Shares | None = None
    exchanged: Shares | None = None
    moved: dict[str, Stream] = field(default_factory=dict)  # voice, while its policy changed: "down", "up"
    silences: list[Silence] = field(default_factory=list)
    bicast: dict[str, Stream] = field(default_factory=dict)
    one_path: float = 0.0  # Mbit/s
    both_paths: float = 0.0
    errors: list[str] = field(default_factory=list)  # of TCP connections
    broken: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """What both paths carried per packet, to what one did."""
        return self.both_paths / self.one_path if self.one_path else 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "flows_on_labels": asdict(self.labels) if self.labels else None,
            "policy_changed": asdict(self.exchanged) if self.exchanged else None,
            "voice_while_it_changed": {way: asdict(each) for way, each in self.moved.items()},
            "silences": [asdict(each) for each in self.silences],
            "bicast": {way: asdict(each) for way, each in self.bicast.items()},
            "per_packet": {
                "one_path_mbit": round(self.one_path, 2),
                "both_paths_mbit": round(self.both_paths, 2),
                "ratio": round(self.ratio, 3),
            },
            "tcp_errors": self.errors,
            "broken_promises": self.broken,
        }


class MultipathPlay:
    """One run of it."""

    def __init__(self, stage: BranchStage, narrator: Narrator, *, seconds: float, cycles: int) -> None:
        """seconds: of an act. cycles: how often the path falls silent."""
        self.stage = stage
        self._narrator = narrator
        self._seconds = seconds
        self._cycles = cycles
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """All acts, then what is to be said of them."""
        stage, narrator = self.stage, self._narrator
        narrator.print(PICTURE)
        stage.start_routers()
        stage.serve()
        stage.attach_hosts()
        narrator.say("the gateway has registered both uplinks; h1 and h2 have addresses")
        self._tell_paths()
        self._flows_on_their_labels()
        self._silences()
        self._bicast()
        self._per_packet()
        self._outcome.broken = list(broken_promises(self._outcome))
        return self._outcome

    # --- the acts ---

    def _flows_on_their_labels(self) -> None:
        self._title("flows on their labels: the download on wlan, the voice on lte; then the other way round")
        self._set_policy(ON_THEIR_LABELS)
        voice, bulk = self.stage.start_streams(), self._download(rate=FAST_DOWNLOAD)
        self._outcome.labels = self._shares(bulk, voice, WLAN, LTE)
        self._tell_flows()
        self._set_policy(EXCHANGED)
        self._outcome.exchanged = self._shares(bulk, voice, LTE, WLAN)
        self._tell_flows()
        self._end(bulk)
        self._outcome.moved = voice.stop()
        for way, each in self._outcome.moved.items():
            self._narrator.say(f"voice {way:<4} {each.lost} of {each.sent} lost while its policy changed")

    def _shares(self, bulk: Program, voice: Streams, bulk_on: Access, voice_on: Access) -> Shares:
        """Watch for an act, and compare what wires carried toward the gateway with what came to the host."""
        self._watch(SETTLED)
        before = self._sample(bulk, voice, bulk_on, voice_on)
        self._watch(self._seconds, bulk)
        octets, bulk_octets, packets, datagrams = (
            now - then for now, then in zip(self._sample(bulk, voice, bulk_on, voice_on), before, strict=True)
        )
        return Shares(
            bulk_on=bulk_on.name,
            bulk_share=round(min(1.0, octets / max(1, bulk_octets)), 3),
            voice_on=voice_on.name,
            voice_share=round(min(1.0, packets / max(1, datagrams)), 3),
        )

    def _sample(self, bulk: Program, voice: Streams, bulk_on: Access, voice_on: Access) -> tuple[int, int, int, int]:
        _, octets = self.stage.world.carried(bulk_on)
        packets, _ = self.stage.world.carried(voice_on)
        return octets, octets_of(bulk), packets, voice.received("down")

    def _silences(self) -> None:
        self._title(f"wlan falls silent without a change of carrier, {self._cycles} times, and comes back")
        self._set_policy(ALL_ON_WLAN)
        bulk = self._download(rate=SLOW_DOWNLOAD)
        for _ in range(self._cycles):
            self._outcome.silences.append(self._silence())
        self._end(bulk)

    def _silence(self) -> Silence:
        stage, narrator = self.stage, self._narrator
        voice = stage.start_streams()
        self._watch(SETTLED)
        narrator.say("wlan  falls silent", stage.world.silence(WLAN))
        stage.wait_for_paths({"wlan": "down", "lte": "up"})
        self._watch(EVERY)
        narrator.say("wlan  works again", stage.world.speak(WLAN))
        back = stage.wait_for_paths({"wlan": "up", "lte": "up"})
        self._watch(SETTLED)
        streams = voice.stop()
        silence = Silence(
            gap_down_ms=round(streams["down"].longest_gap * 1e3, 1),
            gap_up_ms=round(streams["up"].longest_gap * 1e3, 1),
            lost=sum(each.lost for each in streams.values()),
            reordered=sum(each.reordered for each in streams.values()),
            back_ms=round(back * 1e3, 1),
        )
        narrator.say(
            f"      longest gap {silence.gap_down_ms:g} ms down, {silence.gap_up_ms:g} ms up, {silence.lost} lost; "
            f"wlan was back after {silence.back_ms:g} ms"
        )
        return silence

    def _bicast(self) -> None:
        self._title("bicast: the voice on both paths, and wlan falls silent again")
        self._set_policy(VOICE_ON_BOTH)
        self._watch(SETTLED)
        voice = self.stage.start_streams()
        self._watch(EVERY)
        self._narrator.say("wlan  falls silent", self.stage.world.silence(WLAN))
        self._watch(self._seconds / 2)
        self._narrator.say("wlan  works again", self.stage.world.speak(WLAN))
        self.stage.wait_for_paths({"wlan": "up", "lte": "up"})
        self._watch(EVERY)
        self._outcome.bicast = voice.stop()
        for way, each in self._outcome.bicast.items():
            self._narrator.say(f"voice {way:<4} {each.lost} of {each.sent} lost, {each.duplicates} came twice")

    def _per_packet(self) -> None:
        self._title(f"two equal paths of {EQUAL_RATE:g} Mbit/s: one download on one of them, then packet by packet")
        stage = self.stage
        stage.world.equal_paths(rate=EQUAL_RATE, delay=EQUAL_DELAY)
        self._set_policy(ALL_ON_WLAN)
        self._outcome.one_path = stage.bulk(self._seconds, settle=1.5)
        self._narrator.say(f"one path    {self._outcome.one_path:5.1f} Mbit/s")
        self._set_policy(PACKETS_ON_BOTH)
        self._outcome.both_paths = stage.bulk(self._seconds, settle=1.5)
        self._narrator.say(f"both paths  {self._outcome.both_paths:5.1f} Mbit/s")
        stage.world.restore()

    # --- what acts have in common ---

    def _title(self, text: str) -> None:
        self._narrator.print()
        self._narrator.say(text)

    def _set_policy(self, rules: Sequence[Rule]) -> None:
        command = self.stage.set_policy(*rules)
        self._narrator.say(f"$ {command}")
        for rule in rules:
            self._narrator.print(f"           {in_words(rule)}")

    def _download(self, *, rate: float) -> Program:
        """Of h2, until it is stopped. rate: Mbit/s; 0: as fast as it goes."""
        name = f"download {len(self.stage.programs)}"
        program = self.stage.program(name, "h2", "tcp-get", str(CN_ADDRESS), "--rate", f"{rate:g}")
        program.wait_for("connected")
        return program

    def _end(self, download: Program) -> None:
        done = download.stop()
        if done["error"] or done["corrupt"]:
            self._outcome.errors.append(done["error"] or f"{done['corrupt']} wrong octets")

    def _watch(self, seconds: float, download: Program | None = None) -> None:
        """Let time pass; say each second what the wires carry, if it is a second."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            before = self._rates(download)
            time.sleep(min(left, EVERY))
            if left >= EVERY:
                self._tell_rates(before, self._rates(download))
        self._tell_events()

    def _rates(self, download: Program | None) -> dict[str, int]:
        world = self.stage.world
        carried = {
            f"{access.name} {way}": world.carried(access, host)[1]
            for access in ACCESSES
            for way, host in (("down", GATEWAY), ("up", "core"))
        }
        return carried | ({"download": octets_of(download)} if download else {})

    def _tell_rates(self, before: dict[str, int], now: dict[str, int]) -> None:
        rates = (f"{name} {(now[name] - before[name]) * 8e-6 / EVERY:5.1f}" for name in now)
        self._narrator.say(f"      Mbit/s: {'  '.join(rates)}")

    def _tell_events(self) -> None:
        for router, event in self.stage.news():
            if event["event"] == "path-state" and router in (GATEWAY, ANCHOR):
                about = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("event", "time"))
                self._narrator.say(f"{router}   sees a path change: {about}", event["time"])

    def _tell_paths(self) -> None:
        for row in self.stage.show(GATEWAY, "paths"):
            self._narrator.say(
                f"path  bid {row['bid']} label {row['label']} {row['local']} -> {row['remote']}: {row['state']}, "
                f"{row['rtt_ms']} ms"
            )

    def _tell_flows(self) -> None:
        """What each rule of the gateway has treated: the way up."""
        for row in self.stage.show(GATEWAY, "flows"):
            if row["packets"]:
                labels = ", else ".join(map(str, row["labels"])) or "all paths"
                self._narrator.say(f"flow  {row['rule']}: {row['packets']} packets, {row['octets']} octets; {labels}")


def octets_of(download: Program) -> int:
    """That it has received so far."""
    reports = download.reports("progress")
    return int(reports[-1]["octets"]) if reports else 0


def in_words(rule: Rule) -> str:
    """A [[flow]] for people."""
    how = f"on {', else '.join(rule['labels'])}" if "labels" in rule else "on all paths"
    selects = [f"{key.replace('_', ' ')} {rule[key]}" for key in rule if key not in ("name", "labels", "spread")]
    return f"{rule['name']:<11} {', '.join(selects) or 'everything'}: {rule.get('spread', 'per-flow')}, {how}"


def broken_promises(outcome: Outcome) -> list[str]:
    """What was promised and did not hold."""
    broken: list[str] = []
    for shares in filter(None, (outcome.labels, outcome.exchanged)):
        for flow, access, share in (
            ("the download", shares.bulk_on, shares.bulk_share),
            ("the voice", shares.voice_on, shares.voice_share),
        ):
            if share < SHARE_AT_LEAST:
                broken.append(f"{share:.0%} of {flow} went by {access}, as its label says")
    for number, silence in enumerate(outcome.silences, 1):
        gap = max(silence.gap_down_ms, silence.gap_up_ms)
        if gap > GAP_WITHIN:
            broken.append(f"silence {number}: a gap of {gap:g} ms, promised are {GAP_WITHIN:g} at most")
        if silence.back_ms > BACK_WITHIN * 1e3:
            broken.append(f"silence {number}: the path was back after {silence.back_ms:g} ms, promised is 1 s")
    for what, streams in (("while the policy changed", outcome.moved), ("with bicast", outcome.bicast)):
        for way, each in streams.items():
            if each.lost or each.duplicates:
                broken.append(f"{what} {each.lost} datagrams {way} were lost and {each.duplicates} came twice")
    if outcome.ratio < RATIO_AT_LEAST:
        broken.append(f"both paths carried {outcome.ratio:.2f} times what one does, promised are {RATIO_AT_LEAST:g}")
    return broken + [f"a TCP connection broke: {error}" for error in outcome.errors]


def summary(outcome: Outcome) -> str:
    """The figures for people."""
    lines = [""]
    for shares in filter(None, (outcome.labels, outcome.exchanged)):
        lines.append(
            f"on their labels   {shares.bulk_share:.0%} of the download on {shares.bulk_on}, "
            f"{shares.voice_share:.0%} of the voice on {shares.voice_on}"
        )
    for silence in outcome.silences:
        lines.append(
            f"silence           gap {silence.gap_down_ms:g} ms down, {silence.gap_up_ms:g} ms up; {silence.lost} lost; "
            f"back after {silence.back_ms:g} ms"
        )
    for way, each in outcome.bicast.items():
        lines.append(f"bicast {way:<10} {each.sent} sent, {each.lost} lost, {each.duplicates} came twice")
    lines.append(
        f"per packet        {outcome.both_paths:.1f} Mbit/s on both, {outcome.one_path:.1f} on one: {outcome.ratio:.2f}"
    )
    return "\n".join([*lines, "", *promises(outcome.broken)])
