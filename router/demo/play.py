"""`python -m router demo`: a stock host moves MAR1 -> MAR2 -> MAR3 -> MAR1 during a download, and you can watch.

What is promised is checked at the end; the exit code is 0 only if every promise held.
"""

import argparse
import json
import os
import queue
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from router.demo.figures import Move, arrival, losses, strays, tunnelled
from router.demo.lab import enter_lab
from router.demo.stage import DOWNLOAD_RATE, UPLOAD_RATE, Stage, scratch
from router.demo.topology import CN_ADDRESS, node_link_layer, pool, underlay_address
from router.demo.traffic import Report
from router.errors import ConfigError, ExitCode, RouterError

ROUTE = ("mar1", "mar2", "mar3", "mar1")
MEDIAN_WITHIN = 5.0  # ms from the first sign of the node to the first packet for its old address
LOST_AT_MOST = 10  # datagrams of a move, one sent each millisecond
SETTLED = 0.25  # s after a move: from here on no packet of the router's own prefix may be in a tunnel
PROGRESS_EVERY = 1.0  # s
PICTURE = """\
            cn  2001:db8:cccc::80                 a correspondent: serves the download
             |
           core                                   a plain kernel router
        /    |    \\
    mar1   mar2   mar3                            three `python -m router --mar`
      :      :      :                             access links
      mn --> mn --> mn --> back to mar1           a stock host, nothing of ours on it
"""


@dataclass(slots=True)
class Outcome:
    """The summary, as `-j` prints it."""

    handovers: list[dict[str, Any]] = field(default_factory=list)
    resets: int = 0
    octets: int = 0
    upload: int = 0
    corrupt: int = 0
    bypassed: bool = True
    broken: list[str] = field(default_factory=list)  # promises that did not hold, in words

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "handovers": self.handovers,
            "tcp": {
                "bytes": self.octets,
                "resets": self.resets,
                "uploaded_bytes": self.upload,
                "corrupt_bytes": self.corrupt,
            },
            "local_traffic_bypassed_tun": self.bypassed,
            "broken_promises": self.broken,
        }


class Narrator:
    """The timeline, on standard output or (with -j) on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._begin = time.time()
        self._stream = sys.stderr if quiet else sys.stdout

    def say(self, text: str, at: float | None = None) -> None:
        """One line, with the time since the beginning. at: CLOCK_REALTIME, s."""
        print(f"{(at or time.time()) - self._begin:7.3f}  {text}", file=self._stream, flush=True)

    def print(self, text: str = "") -> None:
        """Text without a time."""
        print(text, file=self._stream, flush=True)


class Play:
    """One run of the demo."""

    def __init__(self, stage: Stage, narrator: Narrator, *, stay: float, record: bool = False) -> None:
        """stay: s at each router. record: the underlay is wanted in full."""
        self.stage = stage
        self._narrator = narrator
        self._stay = stay
        self._record = record
        self._octets = 0
        self._progress_at = 0.0

    def run(self) -> Outcome:
        """All acts, then the figures."""
        stage, narrator = self.stage, self._narrator
        narrator.print(PICTURE)
        stage.start_routers()
        # routers have machines of their own in the world: we, and all we start from now on, must not take theirs here
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        stage.start_captures(whole=self._record)
        narrator.say("three routers are up")
        for mar in ROUTE:
            self._act(mar)
        narrator.say("the end: stopping traffic and captures")
        end = time.time()
        reports = stage.stop_traffic()
        return self._judge(reports, end)

    def _act(self, mar: str) -> None:
        stage, narrator = self.stage, self._narrator
        first = not stage.stays
        origin = stage.stays[-1].mar if stage.stays else ""
        narrator.print()
        narrator.say(f"mn    {'appears at' if first else f'moves {origin} ->'} {mar}")
        stay = stage.move(mar)
        self._watch(stay.made + SETTLED)  # nothing else happens here while a handover is under way
        own = stage.wait_for_address(mar, meanwhile=self._tell_events)
        self._tell_events()
        if first:
            stage.start_traffic(own)
            narrator.say(
                f"mn    starts a download ({DOWNLOAD_RATE:g} Mbit/s), an upload ({UPLOAD_RATE:g} Mbit/s) and a "
                f"datagram each millisecond, all on {stage.address}"
            )
        stay.connection = stage.connect()
        good = _of(stay.connection.source, mar, stage)
        narrator.say(
            f"mn    opens a new connection: {stay.connection.error or f'from {stay.connection.source}'}"
            f"{f', through {mar} without a tunnel' if good else f'  <-- not its address at {mar}, {own}'}"
        )
        self._watch(stay.made + self._stay)

    def _watch(self, until: float) -> None:
        quiet_until = self.stage.stays[-1].made + SETTLED
        while time.time() < until:
            self._tell_events()
            if self.stage.address is not None and time.time() >= max(self._progress_at, quiet_until):
                self._tell_progress()
            time.sleep(0.02)

    def _tell_events(self) -> None:
        news: list[tuple[str, dict[str, Any]]] = []
        with suppress(queue.Empty):
            while True:
                news.append(self.stage.routers.events.get_nowait())
        for mar, event in sorted(news, key=lambda item: float(item[1]["time"])):
            if event["event"] in SENTENCES:
                self._narrator.say(f"{mar}  {SENTENCES[event['event']](event)}", event["time"])

    def _tell_progress(self) -> None:
        """Rate of the download, and which anchor carries what."""
        stage, now = self.stage, time.time()
        octets = stage.progress("download")
        elapsed = PROGRESS_EVERY + max(0.0, now - self._progress_at) if self._progress_at else 0.0
        rate = f"{(octets - self._octets) * 8e-6 / elapsed:5.1f} Mbit/s" if elapsed else " begins"
        self._octets, self._progress_at = octets, now + PROGRESS_EVERY
        carried = [
            f"{mar} carries {row['prefix']} to {_name(row['peer'], stage)}"
            for mar in stage.world.mars
            for row in stage.show(mar, "bindings")
            if row["path"] == "to visited router"
        ]
        at = stage.stays[-1].mar
        self._narrator.say(f"      download {rate}, {octets / 1e6:.1f} MB so far, node at {at}; "
                           f"{'; '.join(carried) or 'no tunnel is needed'}")

    # --- the figures ---

    def _judge(self, reports: dict[str, Report], end: float) -> Outcome:
        stage, outcome = self.stage, Outcome()
        moves = self._moves(end)
        link, arrivals = stage.captured("link"), stage.arrivals()
        lost = losses(arrivals, moves)
        for move, missing, stay in zip(moves, lost, stage.stays[1:], strict=True):
            assert stage.address is not None
            found = arrival(link, move, node_link_layer(0), stage.address)
            reached = found.first_downlink if found else None
            milliseconds = round((reached - found.heard) * 1000, 3) if found and reached else None
            good = stay.connection is not None and _of(stay.connection.source, stay.mar, stage)
            outcome.handovers.append(
                {
                    "from": move.origin,
                    "to": move.target,
                    "rs_to_first_packet_ms": milliseconds,
                    "lost_packets": missing,
                    "new_connection_prefix_ok": good,
                    "first_sign": found.sign if found else None,
                    "link_down_ms": round((move.made - move.broken) * 1000, 3),
                }
            )
        for name in ("download", "upload"):
            outcome.resets += bool(reports[name]["error"])
            outcome.corrupt += reports[name].get("corrupt", 0)
        outcome.octets, outcome.upload = reports["download"]["octets"], reports["upload"]["octets"]
        outcome.bypassed = self._bypassed(end)
        outcome.broken = list(_broken(outcome, len(ROUTE) - 1, stage, arrivals))
        return outcome

    def _moves(self, end: float) -> list[Move]:
        stays = self.stage.stays
        ends = [stay.broken for stay in stays[1:]] + [end]
        return [
            Move(
                origin=before.mar,
                target=stay.mar,
                broken=stay.broken,
                down=stay.down,
                made=stay.made,
                until=until,
            )
            for before, stay, until in zip(stays, stays[1:], ends[1:], strict=False)
        ]

    def _bypassed(self, end: float) -> bool:
        """Whether packets of a router's own prefix stayed out of all tunnels while the node was there."""
        stage, inner = self.stage, tunnelled(self.stage.captured("underlay"))
        ends = [stay.broken for stay in stage.stays[1:]] + [end]
        return not any(
            strays(inner, pool(stage.world.mars.index(stay.mar) + 1), stay.made + SETTLED, until)
            for stay, until in zip(stage.stays, ends, strict=True)
        ) and bool(inner)


def _broken(
    outcome: Outcome, expected: int, stage: Stage, arrivals: Sequence[tuple[int, float, float]]
) -> "list[str]":
    """The promises that did not hold."""
    broken: list[str] = []
    times = [item["rs_to_first_packet_ms"] for item in outcome.handovers]
    if outcome.resets:
        broken.append(f"{outcome.resets} of the long TCP connections broke")
    if outcome.corrupt:
        broken.append(f"{outcome.corrupt} octets of the streams were wrong")
    if not outcome.octets or not outcome.upload or not arrivals:
        broken.append("one of the long flows carried nothing")
    if len(times) != expected or None in times:
        broken.append("after a move no packet reached the old address through the new router")
    elif statistics.median(times) > MEDIAN_WITHIN:
        took = f"the median handover took {statistics.median(times):.1f} ms, promised are {MEDIAN_WITHIN:g}"
        broken.append(f"{took} (is the machine busy with something else?)")
    for item in outcome.handovers:
        if item["lost_packets"] > LOST_AT_MOST:
            text = f"{item['lost_packets']} datagrams were lost, promised are {LOST_AT_MOST} at most"
            broken.append(f"{item['from']} -> {item['to']}: {text}")
    for stay in stage.stays:
        if stay.connection is None or not _of(stay.connection.source, stay.mar, stage):
            broken.append(f"a new connection at {stay.mar} did not use an address of {stay.mar}")
    if not outcome.bypassed:
        broken.append("traffic of a router's own prefix went through a tunnel")
    return broken


def _of(source: str, mar: str, stage: Stage) -> bool:
    return bool(source) and IPv6Address(source) in pool(stage.world.mars.index(mar) + 1)


def _name(address: str | None, stage: Stage) -> str:
    names = {str(underlay_address(number)): name for number, name in enumerate(stage.world.mars, 1)}
    return names.get(address or "", str(address))


def _peer(event: dict[str, Any]) -> str:
    """mar2 for 2001:db8:ff:2::1, as the topology numbers its routers."""
    parts = str(event.get("peer", event.get("anchor", ""))).split(":")
    return f"mar{parts[3]}" if len(parts) > 3 else "?"


TRIGGERS = {
    "rs": "a router solicitation",
    "ns": "a neighbour solicitation",
    "na": "a neighbour advertisement",
    "mld": "an MLD report",
    "echo": "an echo reply",
    "packet": "its first packet",
    "command": "the operator",
}
SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "attached": lambda event: f"notices the node by {TRIGGERS.get(event['trigger'], event['trigger'])}",
    "native": lambda event: f"serves {event['prefix']} natively",
    "tunnel-to-visited": lambda event: f"now tunnels {event['prefix']} to {_peer(event)}",
    "tunnel-to-anchor": lambda event: f"asks {_peer(event)} for {event['prefix']}, and will answer through the tunnel",
    "prefix-visits": lambda event: f"has the consent of {_peer(event)}: {event['prefix']} lives on, deprecated",
    "detached": lambda event: f"has lost the node ({event['reason']})",
    "registration-refused": lambda event: f"was refused {event['prefix']}: {event['status']}",
    "prefix-gone": lambda event: f"is done with {event['prefix']} of {_peer(event)}",
}


def summary(outcome: Outcome) -> str:
    """The figures for people."""
    lines = ["", "handover          first sign               to first packet   lost   new connections"]
    for item in outcome.handovers:
        took = item["rs_to_first_packet_ms"]
        lines.append(
            f"{item['from']} -> {item['to']}      {item['first_sign'] or '-':<24} "
            f"{'never' if took is None else f'{took:.2f} ms':>15}   {item['lost_packets']:>4}   "
            f"{'on the right prefix' if item['new_connection_prefix_ok'] else 'WRONG PREFIX'}"
        )
    lines += [
        "",
        f"TCP: {outcome.octets / 1e6:.1f} MB down, {outcome.upload / 1e6:.1f} MB up, every octet checked, "
        f"{outcome.resets} resets",
        f"local traffic {'never met a tunnel' if outcome.bypassed else 'WENT THROUGH A TUNNEL'}",
        "",
    ]
    lines += [f"BROKEN PROMISE: {text}" for text in outcome.broken] or ["every promise held"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns the exit code: 0 only if every promise held."""
    options = _parser().parse_args(arguments)
    capture = options.pcap.absolute() if options.pcap is not None else None
    if capture is not None:
        try:
            capture.open("ab").close()  # before twenty seconds are spent on what cannot be kept
        except OSError as error:
            raise ConfigError(f"--pcap {options.pcap}: {error.strerror}: choose another file") from None
    enter_lab(needs_tun=True)
    narrator = Narrator(quiet=options.json)
    try:
        with scratch() as directory, Stage(directory, encapsulation=options.encapsulation) as stage:
            outcome = Play(stage, narrator, stay=options.stay, record=capture is not None).run()
            if capture is not None:
                shutil.copyfile(stage.underlay_file, capture)
    except RouterError as error:
        print(f"openmar demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        narrator.print("\nstopped; nothing is left behind")
        return ExitCode.FAILED
    print(json.dumps(outcome.as_json(), indent=2) if options.json else summary(outcome))
    return ExitCode.FAILED if outcome.broken else ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router demo",
        description="Watch a stock host move between three routers during a download that does not break. Runs in "
        "network namespaces of its own, as root or as an ordinary user, and leaves nothing behind.",
        epilog=f"The correspondent is {CN_ADDRESS}; everything stays on this machine.",
    )
    parser.add_argument("-j", "--json", action="store_true", help="the summary as JSON (the timeline goes to stderr)")
    parser.add_argument("--pcap", metavar="FILE", type=Path, help="record the underlay (pcapng)")
    parser.add_argument("--stay", metavar="SECONDS", type=_seconds, default=4.0, help="at each router (default: 4)")
    parser.add_argument("--encapsulation", choices=("udp", "ip", "gre"), default="udp", help="default: udp")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 1.0 <= value <= 3600.0:
        raise argparse.ArgumentTypeError("expected 1 to 3600 seconds")
    return value
