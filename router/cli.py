"""The command line: `python -m router --mar ...` (--lma, --mag, --cmd) runs a router; the verbs ask a running one.

Only what a command needs is imported, so that asking is quick.
"""

import argparse
import errno
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router._version import __version__
from router.errors import ConfigError, ExitCode, RouterError
from router.places import RoleName, default_socket, found_socket, started_as

SHOWN = (
    "nodes",
    "prefixes",
    "leases",
    "sessions",
    "bindings",
    "paths",
    "flows",
    "policy",
    "tunnels",
    "peers",
    "counters",
    "config",
)
ROLES = {
    RoleName.MAR: "Mobility capable Access Router: anchor of the prefixes it lends, DMA",
    RoleName.LMA: "Local Mobility Anchor of Proxy Mobile IPv6",
    RoleName.MAG: "Mobile Access Gateway of Proxy Mobile IPv6",
    RoleName.CMD: "Central Mobility Database, for MARs without a store in common (RFC 8885)",
}
MOST_HISTORY = 1000  # lines that a router remembers
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what a file that takes our output may say
EPILOG = """\
verbs ({program} VERB --help tells more):
  show WHAT        what a running router knows: bindings, sessions, flows, policy, tunnels, peers, counters, config;
                   a MAR or MAG also nodes; a MAR prefixes; an LMA or MAG paths; a MAG leases;
                   of these a CMD knows nodes, sessions, peers, counters, config
  monitor          a line for each thing it does, as it happens
  capture          what goes through its tunnels, into a pcapng file for wireshark
  attach, detach   tell it that a node came or left
  policy           flow policies: show, set NAME FILE, clear NAME
  move             have a prefix of a node, or some flows of it, at another MAR where the node is too
  revoke           take sessions back from their gateways (LMA): a node, a peer, all
  drain            have a MAR take no new nodes, and end when nobody needs it any more
  reload           have it read its configuration again, as SIGHUP does (LMA, MAG)
  demo             watch it: a host that moves, between MARs or (--pmip) MAGs; anchors that end; multipath

exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 no router answers, 4 timed out,
            5 a right or device is missing, 7 address, port, socket or device in use, 8 already running,
            9 no such interface or address
"""


class Parser(argparse.ArgumentParser):
    """Help that cannot be written fails aloud, as all else on standard output does."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):  # closed by whoever started us
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  to the end of the program
    try:
        return _do(given)
    except RouterError as error:
        # problems of a configuration already begin with their file and line
        print(error if isinstance(error, ConfigError) else f"openmar: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        _drop_output()  # whoever read it has enough
        return ExitCode.DONE
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_output()
        print(f"openmar: standard output: {os.strerror(error.errno or 0).lower()}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.FAILED


def _do(given: Sequence[str]) -> int:
    """Do it; what was printed leaves now and not at exit, where it could only fail loudly."""
    try:
        done = VERBS[given[0]](given[1:]) if given and given[0] in VERBS else _run(given)
    except SystemExit:  # help was printed, or how to be used
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return done


def _drop_output() -> None:
    """Nothing more may be written at exit, where it could only fail loudly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- running a router ---


def _run_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=started_as(),
        description="A mobility router in user space: IP sessions survive while a node moves between access routers.",
        epilog=EPILOG.format(program=started_as()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    role = parser.add_mutually_exclusive_group()
    for name, text in ROLES.items():
        role.add_argument(f"--{name.value}", dest="role", action="store_const", const=name, help=f"run a {text}")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check-config",
        metavar="FILE",
        type=Path,
        help="check a configuration file, with a role also for what that needs; opens nothing",
    )
    what.add_argument("--doctor", action="store_true", help="look at this machine: what works, what is missing")
    what.add_argument("--version", action="version", version=f"openmar {__version__}")
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML configuration; flags are laid over it")
    parser.add_argument("--name", help="name of this router (default: its role)")
    parser.add_argument("--access", metavar="IF", action="append", default=[], help="access link; may be repeated")
    parser.add_argument("--prefixes", metavar="PREFIX", action="append", default=[], help="pool of /64 prefixes")
    parser.add_argument("--anchor", metavar="NAME", help="which peer is the LMA of this MAG")
    parser.add_argument(
        "--uplink",
        metavar="IF[,label=..,bid=..,weight=..]",
        action="append",
        default=[],
        help="WAN interface of this MAG; may be repeated",
    )
    parser.add_argument("--underlay", metavar="ADDRESS", help="where tunnels and signalling of this router begin")
    parser.add_argument("--encapsulation", choices=("udp", "ip", "gre"), help="of tunnels (default: udp)")
    parser.add_argument("--workers", metavar="N", type=int, help="threads that only move packets (default: 0, none)")
    parser.add_argument("--signaling", choices=("mh", "udp"), help="what carries updates (default: mh)")
    parser.add_argument(
        "--peer",
        metavar="NAME=ADDRESS[,KEY]",
        action="append",
        default=[],
        help='another router; KEY is "hex:..." or "file:PATH"',
    )
    parser.add_argument("--no-authentication", action="store_true", help="run without keys; said at every start")
    parser.add_argument(
        "--store", metavar="URL", help="where sessions are kept, e.g. sqlite:///run/openmar/sessions.db"
    )
    parser.add_argument("--state-dir", metavar="DIR", help="what has to survive a restart")
    parser.add_argument("--socket", metavar="PATH", help="control socket")
    parser.add_argument(
        "--takeover", action="store_true", help="go on as the MAR that runs at this control socket; nothing is lost"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log every event, as `monitor` shows it")
    return parser


def _run(given: Sequence[str]) -> int:
    parser = _run_parser()
    if given and not given[0].startswith("-"):
        parser.error(f"{given[0]}: no such verb: expected one of {', '.join(VERBS)}, or a role such as --mar")
    options = parser.parse_args(given)
    if options.check_config is not None:
        if options.config is not None:
            parser.error("argument --check-config: not allowed with --config")
        return _check_config(options)
    if options.doctor:
        if options.role is not None:
            parser.error("argument --doctor: not allowed with a role")
        from router.doctor import report

        return report()
    if given and options.role is None:
        raise ConfigError(f"command line: no role: expected {' or '.join(f'--{role.value}' for role in ROLES)}")
    if options.role is None:
        parser.print_help()
        return ExitCode.USAGE
    return _run_router(options)


def _check_config(options: argparse.Namespace) -> int:
    """The file with the flags beside it laid over it."""
    from router.config import load

    config = load(options.check_config, _overrides(options), role=options.role)
    for doubt in config.doubts:
        print(doubt, file=sys.stderr)
    print(f"{options.check_config}: good")
    return ExitCode.DONE


def _run_router(options: argparse.Namespace) -> int:
    gc.disable()  # until it serves: what is imported and made until then stays

    import uvloop

    from engine import EngineError
    from router import daemon
    from router.config import load

    config = load(options.config, _overrides(options), role=options.role)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for doubt in config.doubts:
        logging.getLogger("openmar").warning("%s", doubt)
    try:
        return uvloop.run(daemon.take_over(config) if options.takeover else daemon.run(config))
    except EngineError as error:
        raise daemon.explain(error) from None


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Flags in the shape of a configuration file."""
    tables: dict[str, Any] = {
        "router": {"name": options.name, "state_dir": options.state_dir},
        "underlay": {
            "address": options.underlay,
            "encapsulation": options.encapsulation,
            "signaling": options.signaling,
        },
        "engine": {"workers": options.workers},
        "access": {"interfaces": options.access or None},
        "gateway": {"anchor": options.anchor},
        "anchor": {"prefixes": [part for item in options.prefixes for part in item.split(",")] or None},
        "security": {"authentication": "none" if options.no_authentication else None},
        "store": {"url": options.store},
        "control": {"socket": options.socket},
    }
    given = {table: {key: value for key, value in keys.items() if value is not None} for table, keys in tables.items()}
    result: dict[str, Any] = {table: keys for table, keys in given.items() if keys}
    if options.peer:
        result["peer"] = [_peer(text) for text in options.peer]
    if options.uplink:
        result["uplink"] = [_uplink(text) for text in options.uplink]
    return result


def _peer(text: str) -> dict[str, str]:
    name, equals, rest = text.partition("=")
    if not equals:
        raise ConfigError(f"command line: --peer {text}: expected NAME=ADDRESS,KEY")
    address, _, key = rest.partition(",")
    peer = {"name": name, "address": address}
    if key.startswith("file:"):
        peer["key_file"] = key.removeprefix("file:")
    elif key:
        peer["key"] = key
    return peer


def _uplink(text: str) -> dict[str, Any]:
    interface, *pairs = text.split(",")
    uplink: dict[str, Any] = {"interface": interface}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"command line: --uplink {text}: expected IF,key=value,...")
        uplink[key] = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
    return uplink


# --- asking one ---


def _verb_parser(verb: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"{started_as()} {verb}", description=description)
    parser.set_defaults(name=None, socket=None, json=False)
    return _asking(parser)


def _asking(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """With the options of every verb; of a verb within a verb they may stand behind either."""
    unless = argparse.SUPPRESS
    parser.add_argument("--name", default=unless, help="name of the router to ask (default: the only one, or mar)")
    parser.add_argument(
        "--socket", type=Path, default=unless, help="its control socket, when it is not where its name says"
    )
    parser.add_argument("-j", "--json", action="store_true", default=unless, help="JSON instead of text")
    return parser


def _client(options: argparse.Namespace) -> Any:
    from router.control.client import Client

    return Client(options.socket or (default_socket(options.name) if options.name else found_socket()))


def _show(given: Sequence[str]) -> int:
    parser = _verb_parser("show", "What a running router knows.")
    parser.add_argument("what", choices=SHOWN)
    options = parser.parse_args(given)
    return _print_view(options, _client(options).show(options.what))


def _print_view(options: argparse.Namespace, answer: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps(answer, indent=2))
    else:
        from router.control.render import table

        print(table(answer["rows"]))
    return ExitCode.DONE


def _monitor(given: Sequence[str]) -> int:
    parser = _verb_parser("monitor", "A line for each thing a running router does, as it happens.")
    parser.add_argument(
        "--history", type=_history, default=0, metavar="N", help=f"begin with the last N lines, at most {MOST_HISTORY}"
    )
    options = parser.parse_args(given)
    from router.control.render import line

    if getattr(sys.stdout, "name", "") == os.devnull:  # see main()
        print("openmar: monitor: standard output is closed: give it a terminal, a file or a pipe", file=sys.stderr)
        return ExitCode.USAGE
    for event in _client(options).monitor(options.history):
        print(json.dumps(event) if options.json else line(event), flush=True)
    return ExitCode.DONE


def _history(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MOST_HISTORY):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at most {MOST_HISTORY}")
    return int(text)


def _capture_parser() -> argparse.ArgumentParser:
    parser = _verb_parser(
        "capture",
        "What goes through a tunnel of a running router, into a pcapng file, until Ctrl-C or until the router ends.",
    )
    parser.add_argument("tunnel", metavar="TUNNEL", help='a peer, by name or address, or "all"')
    parser.add_argument("file", metavar="FILE", help='where to; it is overwritten. "-": standard output')
    parser.add_argument("--count", type=_at_least_one, metavar="N", help="end after N packets")
    parser.add_argument("--outer", action="store_true", help="packets with their outer headers, as on the underlay")
    return parser


def _at_least_one(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 1")
    return int(text)


def _capture(given: Sequence[str]) -> int:
    options = _capture_parser().parse_args(given)
    from router.control.save import STANDARD_OUTPUT, save

    if options.file == STANDARD_OUTPUT and sys.stdout.isatty():
        print("openmar: capture: standard output is a terminal: give a file, or pipe it on", file=sys.stderr)
        return ExitCode.USAGE
    saved = save(_client(options), options.tunnel, options.file, outer=options.outer, count=options.count)
    out = sys.stderr if options.file == STANDARD_OUTPUT else sys.stdout
    print(json.dumps({"packets": saved.packets, "lost": saved.lost}) if options.json else saved, file=out, flush=True)
    return ExitCode.DONE


def _attach(given: Sequence[str]) -> int:
    parser = _verb_parser("attach", "Tell a running router that a node is on one of its access links.")
    parser.add_argument("interface", help="the access link")
    parser.add_argument("link_layer", metavar="link-layer", help="address of the node, e.g. 02:00:00:00:00:11")
    parser.add_argument("--node", help="MN-Identifier; default: as configured, or after the link-layer address")
    parser.add_argument("--link-local", help="its link-local address, for probes and advertisements")
    options = parser.parse_args(given)
    names = ("interface", "link_layer", "node", "link_local")
    request = {name: value for name in names if (value := getattr(options, name)) is not None}
    return _tell(options, _client(options).attach(request), "attached")


def _detach(given: Sequence[str]) -> int:
    parser = _verb_parser("detach", "Tell a running router that a node has left.")
    parser.add_argument("node", help="its MN-Identifier, as `show nodes` has it")
    options = parser.parse_args(given)
    return _tell(options, _client(options).detach(options.node), "detached")


def _policy_parser() -> argparse.ArgumentParser:
    parser = _verb_parser("policy", "The flow policies of a running router.")
    what = parser.add_subparsers(dest="what", required=True, metavar="show|set|clear")
    _asking(what.add_parser("show", help="its rules, in the order they are tried"))
    replacing = _asking(what.add_parser("set", help="have the [[flow]] rules of a file be this policy, at once"))
    replacing.add_argument("policy", metavar="NAME")
    replacing.add_argument("file", metavar="FILE.toml", type=Path)
    _asking(what.add_parser("clear", help="have no such policy")).add_argument("policy", metavar="NAME")
    return parser


def _policy(given: Sequence[str]) -> int:
    options = _policy_parser().parse_args(given)
    if options.what == "show":
        return _print_view(options, _client(options).show("policy"))
    if options.what == "set":
        from router.toml_text import read

        text = read(options.file)
        if not text.strip():
            raise ConfigError(f"{options.file}: is empty: expected [[flow]] rules; to have none: policy clear NAME")
        answer = _client(options).set_policy(options.policy, text, str(options.file))
    else:
        answer = _client(options).clear_policy(options.policy)
    count = answer["rules"]
    what = f"{count} rule{'s' if count > 1 else ''}" if count else "cleared"
    print(json.dumps(answer) if options.json else f"policy {answer['policy']}: {what}")
    return ExitCode.DONE


def _move(given: Sequence[str]) -> int:
    parser = _verb_parser("move", "Have a prefix of a node, or flows of it, at another MAR where the node is too.")
    parser.add_argument("node", help="MN-Identifier, as `show nodes` has it")
    parser.add_argument("prefix", help="one of its prefixes, as `show sessions` has it")
    parser.add_argument("--to", metavar="ROUTER", help="a peer, or the anchor (default: the router that is asked)")
    parser.add_argument("--policy", metavar="NAME", help="only flows by the [[flow]] rules of this policy")
    options = parser.parse_args(given)
    names = ("node", "prefix", "to", "policy")
    request = {name: value for name in names if (value := getattr(options, name)) is not None}
    answer = _client(options).move(request)
    what = f"flows of {answer['prefix']}" if options.policy else answer["prefix"]
    print(json.dumps(answer) if options.json else f"{what}: asked to be at {answer['to']}")
    return ExitCode.DONE


def _revoke(given: Sequence[str]) -> int:
    parser = _verb_parser("revoke", "Take sessions back from their gateways, whatever their nodes do (RFC 5846).")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("node", nargs="?", help="MN-Identifier, as `show sessions` has it")
    whose.add_argument("--peer", metavar="NAME", help="all sessions at this gateway")
    whose.add_argument("--all", action="store_true", help="all sessions of this anchor")
    options = parser.parse_args(given)
    request = {key: value for key in ("node", "peer") if (value := getattr(options, key)) is not None}
    answer = _client(options).revoke(request)
    print(json.dumps(answer) if options.json else f"{answer['revoked']} revoked")
    return ExitCode.DONE


def _drain(given: Sequence[str]) -> int:
    parser = _verb_parser("drain", "Have a running MAR take no new nodes, and end when nobody needs it any more.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--within", metavar="SECONDS", help="end after so long at the latest; default: when empty")
    what.add_argument("--cancel", action="store_true", help="take nodes again, as if nothing had been said")
    options = parser.parse_args(given)
    client = _client(options)
    answer = client.end_drain() if options.cancel else client.drain(options.within)
    print(json.dumps(answer) if options.json else answer["done"])
    return ExitCode.DONE


def _reload(given: Sequence[str]) -> int:
    options = _verb_parser("reload", "Have a running LMA or MAG read its configuration again.").parse_args(given)
    answer = _client(options).reload()
    print(json.dumps(answer) if options.json else answer["done"])
    return ExitCode.DONE


def _tell(options: argparse.Namespace, answer: dict[str, Any], what: str) -> int:
    print(json.dumps(answer) if options.json else f"{answer['node']} {what}")
    return ExitCode.DONE


def _demo(given: Sequence[str]) -> int:
    from router.demo.play import main as play

    return play(given)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "show": _show,
    "monitor": _monitor,
    "capture": _capture,
    "attach": _attach,
    "detach": _detach,
    "policy": _policy,
    "move": _move,
    "revoke": _revoke,
    "drain": _drain,
    "reload": _reload,
    "demo": _demo,
}
