"""`python -m router demo [PLAY]`: something moves, breaks or changes during a download, and you can watch.

    demo, demo handover      a stock host moves between three MARs       `mar_play`
    demo handover --pmip     the same between two MAGs of one LMA        `proxy_play`
    demo anchors             a stock host wanders over four MARs         `anchors_play`
    demo multipath           a branch with two uplinks                   `multipath_play`

What is promised is checked at the end; the exit code is 0 only if every promise held. Milliseconds of a handover are
promised of a machine that has nothing else to do, and so is what `demo anchors` says of how soon and how many: on one
that is measurably busy they are a warning.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from router.demo import anchors_outcome, anchors_picture, anchors_play, mar_play, multipath_play, proxy_play
from router.demo.branch_stage import BranchStage
from router.demo.busyness import Meter
from router.demo.lab import enter_lab
from router.demo.mar_stage import MarStage
from router.demo.narrator import Narrator
from router.demo.proxy_stage import ProxyStage
from router.demo.stage import Stage, scratch
from router.demo.stores import STORES, opened
from router.demo.topology import CN_ADDRESS
from router.errors import ConfigError, ExitCode, RouterError
from router.places import started_as


class Finding(Protocol):
    """What a play found."""

    @property
    def broken(self) -> list[str]:
        """Promises that did not hold, in words."""

    def as_json(self) -> dict[str, Any]:
        """All of it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a demo. Returns the exit code: 0 only if every promise held, or time alone did not on a busy machine."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given.pop(0) if given and given[0] in PLAYS else "handover"
    return PLAYS[name](given)


# --- what each of them takes ---


def handover(given: Sequence[str]) -> int:
    """A node moves between routers."""
    parser = _parser(
        "handover",
        "Watch a stock host move between three routers during a download that does not break; with --pmip between "
        "two gateways of one anchor.",
    )
    parser.add_argument("--pmip", action="store_true", help="Proxy Mobile IPv6: an LMA and two MAGs")
    parser.add_argument("--pcap", metavar="FILE", type=Path, help="record the underlay (pcapng)")
    parser.add_argument("--stay", metavar="SECONDS", type=_seconds, default=4.0, help="at each router (default: 4)")
    parser.add_argument("--moves", metavar="N", type=int, help="default: 3, and with --pmip 4")
    parser.add_argument("--encapsulation", choices=("udp", "ip", "gre"), default="udp", help="default: udp")
    options = parser.parse_args(given)
    capture = _writable(options.pcap, "--pcap")

    def play(directory: Path, narrator: Narrator) -> tuple[Finding, str]:
        meter = Meter()
        about = {"stay": options.stay, "record": capture is not None}
        if options.pmip:
            with ProxyStage(directory, encapsulation=options.encapsulation) as stage:
                outcome = proxy_play.ProxyPlay(stage, narrator, moves=options.moves or 4, **about).run()
                _keep(stage, capture)
            outcome.judge_time(meter.others())
            return outcome, proxy_play.summary(outcome)
        with MarStage(directory, encapsulation=options.encapsulation) as mars:
            outcome = mar_play.MarPlay(mars, narrator, moves=options.moves or 3, **about).run()
            _keep(mars, capture)
        outcome.judge_time(meter.others())
        return outcome, mar_play.summary(outcome)

    return perform(play, as_json=options.json)


def anchors(given: Sequence[str]) -> int:
    """A node wanders, and its anchors end by themselves."""
    parser = _parser(
        "anchors",
        "Watch a stock host wander over four routers for a while, with five long connections and many short ones: each "
        "anchor lives as long as something needs it.",
    )
    parser.add_argument("--seconds", metavar="S", type=_seconds, default=60.0, help="of the walk (default: 60)")
    parser.add_argument("--stay", metavar="S", type=_seconds, default=4.0, help="at each router (default: 4)")
    parser.add_argument("--seed", type=int, default=1, help="of the way it takes (default: 1)")
    parser.add_argument("--store", choices=STORES, default="sqlite", help="of the sessions (default: sqlite)")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw the walk")
    options = parser.parse_args(given)
    if problem := anchors_outcome.too_short(options.seconds, options.stay):
        raise ConfigError(problem)
    picture = _writable(options.svg, "--svg")

    def play(directory: Path, narrator: Narrator) -> tuple[Finding, str]:
        meter = Meter()
        with MarStage(directory, mars=anchors_play.MARS) as stage, opened(options.store, stage) as store:
            anchors_play.begin(stage, store)
            about = {"seconds": options.seconds, "stay": options.stay, "seed": options.seed}
            outcome = anchors_play.AnchorsPlay(stage, narrator, **about).run()
        outcome.judge(meter.others())
        if picture is not None:
            picture.write_text(anchors_picture.draw(outcome))
        return outcome, anchors_outcome.summary(outcome)

    return perform(play, as_json=options.json)


def multipath(given: Sequence[str]) -> int:
    """A branch with two uplinks."""
    parser = _parser(
        "multipath",
        "Watch a gateway with two uplinks: flows on their labels, a policy that changes live, a path that falls silent "
        "and comes back, packets on both paths at once.",
    )
    parser.add_argument("--act", metavar="SECONDS", type=_seconds, default=4.0, help="of each act (default: 4)")
    parser.add_argument("--cycles", metavar="N", type=int, default=3, help="silences of a path (default: 3)")
    options = parser.parse_args(given)

    def play(directory: Path, narrator: Narrator) -> tuple[Finding, str]:
        with BranchStage(directory, rules=multipath_play.ON_THEIR_LABELS) as stage:
            act = multipath_play.MultipathPlay(stage, narrator, seconds=options.act, cycles=options.cycles)
            outcome = act.run()
        return outcome, multipath_play.summary(outcome)

    return perform(play, as_json=options.json)


PLAYS: dict[str, Callable[[Sequence[str]], int]] = {
    "handover": handover,
    "anchors": anchors,
    "multipath": multipath,
}


def perform(play: Callable[[Path, Narrator], tuple[Finding, str]], *, as_json: bool) -> int:
    """Play in a lab of our own and say what came of it. Returns the exit code."""
    enter_lab(needs_tun=True)
    narrator = Narrator(quiet=as_json)
    try:
        with scratch() as directory:
            found, summary = play(directory, narrator)
    except RouterError as error:
        print(f"openmar demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        narrator.print("\nstopped; nothing is left behind")
        return ExitCode.FAILED
    print(json.dumps(found.as_json(), indent=2) if as_json else summary)
    return ExitCode.FAILED if found.broken else ExitCode.DONE


def _writable(file: Path | None, option: str) -> Path | None:
    """An absolute path, as the play may work elsewhere. Raises ConfigError."""
    if file is None:
        return None
    try:
        file.absolute().open("ab").close()  # before twenty seconds are spent on what cannot be kept
    except OSError as error:
        raise ConfigError(f"{option} {file}: {error.strerror}: choose another file") from None
    return file.absolute()


def _keep(stage: Stage[Any], capture: Path | None) -> None:
    if capture is not None:
        shutil.copyfile(stage.capture_file("underlay"), capture)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{started_as()} demo {name}",
        description=f"{description} Runs in network namespaces of its own, as root or as an ordinary user, and leaves "
        "nothing behind.",
        epilog=f"Other plays: {', '.join(PLAYS)}. The correspondent is {CN_ADDRESS}; everything stays on this machine.",
    )
    parser.add_argument("-j", "--json", action="store_true", help="the summary as JSON (the timeline goes to stderr)")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to 3600 seconds")
    return value
