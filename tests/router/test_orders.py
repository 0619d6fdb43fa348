"""Policies, revocation, reload and views of an LMA or MAG, also over its control socket; the router is a plain fake."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import HeldStats
from router.cli import main
from router.config import Config, load
from router.control import orders, render
from router.control.commands import VIEWS
from router.control.server import ControlServer
from router.errors import ExitCode, RouterError
from router.places import RoleName
from signaling.actions import Held, Note, TowardAnchor, TowardVisited, TunnelEnd
from signaling.flow_rules import FlowRule
from signaling.pmip.heartbeats import Exchange
from signaling.settings import Peer, WayState
from tests.router.test_control import ask

KEY = "hex:000102030405060708090a0b0c0d0e0f"
PREFIX, SITE, HOME = IPv6Network("2001:db8:1::/64"), IPv6Network("2001:db8:2::/64"), IPv4Network("10.5.0.9/32")
BUS = IPv6Address("2001:db8::b")
LMA = f"""\
[anchor]
prefixes = ["2001:db8:1000::/36"]
[labels]
wlan = 1
lte = 2
[[peer]]
name = "bus1"
address = "{BUS}"
key = "{KEY}"
[[node]]
id = "mn1@a.b"
policy = "default"
[[flow]]
name = "calls"
protocol = "udp"
family = "ipv6"
labels = ["lte", "wlan"]
"""
MAG = f"""\
[gateway]
anchor = "lma"
[labels]
wlan = 1
[[peer]]
name = "lma"
address = "2001:db8::a"
key = "{KEY}"
[[uplink]]
interface = "wlan0"
label = "wlan"
[[flow]]
labels = ["wlan"]
"""


class Role:
    """What a role is asked for, written down."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.monitor = SimpleNamespace(
            rows=lambda: [{"peer": "bus1", "bid": 1, "label": 1, "state": "up", "rtt_ms": 20.5}]
        )
        self.door = SimpleNamespace(peer={BUS: Peer(name="bus1", address=BUS)}.get)
        exchange = Exchange(destination=BUS, port=0, source=None, restarts=4)
        self.heartbeats = SimpleNamespace(exchange={"bus1": exchange}.get)
        self.counters = {"sent.BindingAck": 3}
        self.settings = SimpleNamespace(tunnel_mtu=1400)
        self.access = SimpleNamespace(attached={}, links={})

    def sessions(self) -> list[dict[str, Any]]:
        path = {"bid": 1, "address": BUS, "label": 1, "state": WayState.UP, "expires": inf}
        return [{"node": "mn1@a.b", "prefixes": (PREFIX,), "label": 2, "expires": 0.0, "care_ofs": [path]}]

    def _told(self, name: str, *what: Any) -> list[Note]:
        self.asked.append((name, what))
        return [Note(name)]

    def set_policy(self, name: str, rules: tuple[FlowRule, ...], now: float) -> list[Note]:
        return self._told("set_policy", name, rules)

    def set_profiles(self, profiles: tuple[Any, ...], now: float) -> list[Note]:
        return self._told("set_profiles", profiles)

    def set_peers(self, peers: tuple[Any, ...], now: float) -> list[Note]:
        return self._told("set_peers", peers)

    def set_uplinks(self, uplinks: tuple[Any, ...], now: float) -> list[Note]:
        return self._told("set_uplinks", uplinks)

    def revoke(self, subject: str | None, now: float) -> list[Note]:
        return self._told("revoke", subject)


class Fake:
    """A router of which there is only what orders and views need."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.role = Role()
        self.done: list[Any] = []
        self.driver = SimpleNamespace(perform=self.done.extend)
        self.renamed: list[Any] = []
        self.checked: list[str] = []
        access = SimpleNamespace(rename=self.renamed.append, addresses=None)
        self.access = None if config.role is RoleName.LMA else access
        ends = (TunnelEnd(remote=BUS, label=1), TunnelEnd(remote=IPv4Address("192.0.2.1"), binding_id=2, label=9))
        self.network = SimpleNamespace(
            policies={},
            paths={
                HOME: Held(),
                PREFIX: TowardVisited(tunnels=ends, policy="default"),
                SITE: TowardAnchor(tunnels=ends[:1], interface=""),
            },
            nodes={PREFIX: "mn1@a.b", SITE: "bus1@a.b", HOME: "mn1@a.b"},
            checked=lambda name, rules: self.checked.append(name),
            held={HOME: HeldStats(kept=7, sent=0, full=2, expired=1)}.get,
            flow_counters=lambda: [("default", config.policies["default"][0], 5, 400)],
        )
        self.tables = SimpleNamespace(tunnels=lambda: [])
        self.packets = SimpleNamespace(counters=_no_counters, compiled=True, offloads=lambda: "none")
        self.underlay = SimpleNamespace(address=BUS, why="as configured")
        self.part = SimpleNamespace(vitals=lambda: {"store": "bindings.db", "store.unsaved": 0})

    def asked(self, name: str) -> list[tuple[Any, ...]]:
        return [what for called, what in self.role.asked if called == name]


def _no_counters() -> Any:
    from engine import Engine, Tables

    return Engine(Tables()).counters()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "router.toml"


@pytest.fixture
def make(file: Path) -> Callable[..., Any]:
    def make(text: str = LMA, role: RoleName = RoleName.LMA) -> Fake:
        file.write_text(text)
        return Fake(load(file, role=role))

    return make


@pytest.fixture
def socket(make: Callable[..., Any], tmp_path: Path) -> Iterator[tuple[Path, Fake]]:
    """An LMA that listens."""
    router = make()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = ControlServer(router)
    path = tmp_path / "s"
    asyncio.run_coroutine_threadsafe(server.start(path), loop).result(5)
    yield path, router
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


# Policies


def test_a_policy_is_replaced_by_the_rules_of_a_text(make: Callable[..., Any]) -> None:
    router = make()
    text = '[[flow]]\nfamily = "ipv6"\nlabels = ["wlan"]\n[[flow]]\nspread = "drop"'
    assert orders.set_policy(router, "default", "p.toml", text) == 2
    ((name, rules),) = router.asked("set_policy")
    assert (name, [rule.labels for rule in rules]) == ("default", [(1,), ()])
    assert router.config.policies["default"] == rules
    assert router.done == [Note("set_policy")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[flow]]\nlabels = ["5g"]', 'p.toml:2: flow.labels: "5g" is no label'),
        ("", "p.toml: no [[flow]]: expected the rules of policy voice"),
        (
            '[[flow]]\npolicy = "a"\n[[flow]]\npolicy = "b"',
            'p.toml:2: flow.policy: "a": expected "voice", or no such key (and',
        ),
        ("[[flow]\n", "p.toml:1: syntax"),
    ],
)
def test_a_policy_that_makes_no_sense_changes_nothing(make: Callable[..., Any], text: str, why: str) -> None:
    router = make()
    before = router.config
    with pytest.raises(RouterError) as caught:
        orders.set_policy(router, "voice", "p.toml", text)
    assert why in str(caught.value)
    assert (router.config, router.role.asked) == (before, [])


def test_a_policy_is_not_set_under_another_name(make: Callable[..., Any]) -> None:
    router = make()
    with pytest.raises(RouterError, match=r'p\.toml:2: flow.policy: "zzz": expected "default", or no such key'):
        orders.set_policy(router, "default", "p.toml", '[[flow]]\npolicy = "zzz"')
    assert router.role.asked == []


@pytest.mark.parametrize(("role", "text"), [(RoleName.LMA, LMA), (RoleName.MAG, MAG)])
def test_a_policy_that_no_node_has_is_not_set(make: Callable[..., Any], role: RoleName, text: str) -> None:
    router = make(text, role)
    expected = 'policy set other: nothing was changed: no .* policy = "other": expected default'
    with pytest.raises(RouterError, match=expected):
        orders.set_policy(router, "other", "p.toml", "[[flow]]\nlabels = [1]")
    assert router.role.asked == []


TOO_MANY = "".join(f"[[flow]]\ndestination_port = {5000 + at}\nlabels = [1]\n" for at in range(100))


@pytest.mark.parametrize(
    ("text", "why"),
    [(TOO_MANY, "200 rules do not fit into one binding update"), ("[[flow]]\nlabels = [9]", "has label 9")],
)
def test_a_gateway_does_not_take_a_policy_that_it_could_not_follow(
    make: Callable[..., Any], file: Path, text: str, why: str
) -> None:
    router = make(MAG, RoleName.MAG)
    before = router.config
    for _ in range(2):  # nothing is left of the first time
        with pytest.raises(RouterError, match=f"policy set default: nothing was changed: .*{why}"):
            orders.set_policy(router, "default", "p.toml", text)
    file.write_text(MAG.partition("[[flow]]")[0] + text)
    with pytest.raises(RouterError, match=f"reload: nothing was changed: .*toml:12: flow: policy default: .*{why}"):
        orders.reload(router)
    assert (router.config, router.role.asked) == (before, [])


def test_an_anchor_takes_any_number_of_rules(make: Callable[..., Any]) -> None:
    assert orders.set_policy(make(), "default", "p.toml", TOO_MANY) == 200


def test_a_policy_can_be_taken_away(make: Callable[..., Any]) -> None:
    router = make()
    orders.clear_policy(router, "default")
    assert router.asked("set_policy") == [("default", ())]
    with pytest.raises(RouterError, match="policy clear default: no such policy: this router has none"):
        orders.clear_policy(router, "default")


# Revocation


def test_sessions_are_revoked_by_node_by_peer_or_all(make: Callable[..., Any]) -> None:
    router = make()
    orders.revoke(router, node="mn1@a.b")
    orders.revoke(router, peer="bus1")
    orders.revoke(router)
    assert router.asked("revoke") == [("mn1@a.b",), ("bus1",), (None,)]


@pytest.mark.parametrize(
    ("whose", "why"),
    [
        ({"node": "mn9@a.b"}, "revoke mn9@a.b: it has no session here"),
        ({"peer": "bus9"}, "revoke bus9: no such peer: expected one of: bus1"),
    ],
)
def test_who_is_not_there_cannot_be_revoked(make: Callable[..., Any], whose: dict[str, str], why: str) -> None:
    router = make()
    with pytest.raises(RouterError, match=why):
        orders.revoke(router, **whose)
    assert router.role.asked == []


@pytest.mark.parametrize("role", [RoleName.MAR, RoleName.MAG])
def test_only_an_lma_revokes(make: Callable[..., Any], role: RoleName) -> None:
    router = make(MAG, role) if role is RoleName.MAG else _mar(make)
    with pytest.raises(RouterError, match=f"revoke: this router is a {role.name}: only an LMA can do that"):
        orders.revoke(router)


def _mar(make: Callable[..., Any]) -> Any:
    router = make()
    router.config = replace(router.config, role=RoleName.MAR)
    return router


def test_a_mar_has_nothing_to_reload(make: Callable[..., Any]) -> None:
    with pytest.raises(RouterError, match="this router is a MAR: only an LMA and a MAG can do that"):
        orders.reload(_mar(make))


# Reload


def test_what_did_not_change_is_not_touched(make: Callable[..., Any]) -> None:
    router = make()
    assert orders.reload(router) == "reload: nothing differs"
    assert (router.role.asked, router.done) == ([], [])


def test_only_what_differs_is_applied(make: Callable[..., Any], file: Path) -> None:
    router = make()
    file.write_text(LMA.replace('id = "mn1@a.b"', 'id = "mn1@a.b"\nipv4 = false').replace('"lte", "wlan"', '"wlan"'))
    assert orders.reload(router) == "reload: node, flow"
    assert [name for name, _ in router.role.asked] == ["set_profiles", "set_policy"]
    assert router.config == load(file, role=RoleName.LMA)
    assert orders.reload(router) == "reload: nothing differs"


def test_policies_come_change_and_go(make: Callable[..., Any], file: Path) -> None:
    router = make(LMA + '[[flow]]\npolicy = "old"\n')
    file.write_text(LMA + '[[flow]]\npolicy = "new"\nlabels = [4]\n')
    orders.reload(router)
    told = {name: [rule.labels for rule in rules] for name, rules in router.asked("set_policy")}
    assert told == {"old": [], "new": [(4,)]}


def test_a_policy_that_was_set_by_hand_gives_way_to_the_file(make: Callable[..., Any]) -> None:
    router = make()
    at_first = router.config.policies["default"]
    orders.set_policy(router, "default", "p.toml", "[[flow]]\nlabels = [9]")
    assert orders.reload(router) == "reload: flow"
    assert router.asked("set_policy")[-1] == ("default", at_first)


def test_peers_and_keys_are_changed_live(make: Callable[..., Any], file: Path) -> None:
    router = make()
    file.write_text(LMA.replace("0e0f", "0eff"))
    assert orders.reload(router) == "reload: peer"
    (((peer,),),) = router.asked("set_peers")
    assert peer.key[-1] == 0xFF


def test_a_mag_changes_labels_weights_and_names_of_nodes_live(make: Callable[..., Any], file: Path) -> None:
    router = make(MAG, RoleName.MAG)
    node = '[[node]]\nid = "mn1@a.b"\nlink_layer = "02:00:00:00:00:11"\n'
    file.write_text(MAG.replace("wlan = 1", "wlan = 5").replace('label = "wlan"', 'label = "wlan"\nweight = 3') + node)
    assert orders.reload(router) == "reload: node, labels, flow, uplink.label, uplink.weight"
    (((uplink,),),) = router.asked("set_uplinks")
    assert (uplink.label, uplink.weight) == (5, 3)
    assert list(router.renamed[0].values()) == ["mn1@a.b"]


@pytest.mark.parametrize(
    ("role", "change", "named"),
    [
        (RoleName.LMA, ("/36", "/40"), "anchor.prefixes"),
        (
            RoleName.LMA,
            ("[anchor]", '[router]\nname = "b"\n[underlay]\nsignaling = "udp"\n[anchor]'),
            "router.name, underlay.signaling",
        ),
        (RoleName.LMA, ("[anchor]", "[anchor]\ndelete_delay = 3"), "anchor.delete_delay"),
        (RoleName.MAG, ('interface = "wlan0"', 'interface = "wlan1"'), "uplink.interface"),
        (RoleName.MAG, ('label = "wlan"', 'label = "wlan"\nbid = 9'), "uplink.bid"),
    ],
)
def test_what_cannot_be_changed_live_is_named_and_nothing_is_changed(
    make: Callable[..., Any], file: Path, role: RoleName, change: tuple[str, str], named: str
) -> None:
    text = LMA if role is RoleName.LMA else MAG
    router = make(text, role)
    before = router.config
    file.write_text(text.replace(*change).replace("0e0f", "0eff"))
    with pytest.raises(RouterError) as caught:
        orders.reload(router)
    assert str(caught.value) == f"reload: nothing was changed: restart it for: {named}"
    assert (router.config, router.role.asked) == (before, [])


def test_a_configuration_that_is_wrong_is_refused_in_one_line(make: Callable[..., Any], file: Path) -> None:
    router = make()
    file.write_text("[anchor]\nguard = 0\n[paths]\ninterval = 0\n")
    with pytest.raises(RouterError) as caught:
        orders.reload(router)
    assert str(caught.value).startswith(f"reload: nothing was changed: {file}:1: anchor.prefixes: missing")
    assert str(caught.value).endswith("(and 2 more)")
    assert "\n" not in str(caught.value)


def test_without_a_file_there_is_nothing_to_reload(make: Callable[..., Any]) -> None:
    router = make()
    assert orders.can_reload(router)
    router.config = replace(router.config, source=replace(router.config.source, file=None))
    assert not orders.can_reload(router)
    with pytest.raises(RouterError, match="start it with --config"):
        orders.reload(router)


# Views


@pytest.mark.parametrize(("role", "text"), [(RoleName.LMA, LMA), (RoleName.MAG, MAG)])
def test_every_view_is_rows_that_json_can_carry(make: Callable[..., Any], role: RoleName, text: str) -> None:
    router = make(text, role)
    for what, view in VIEWS[role].items():
        rows = view(router)
        assert len({tuple(row) for row in rows}) <= 1, what
        assert json.loads(json.dumps(rows)) == rows


def test_sessions_show_labels_by_name_and_the_time_that_is_left(make: Callable[..., Any]) -> None:
    (row,) = VIEWS[RoleName.LMA]["sessions"](make())
    care_of = {"bid": 1, "address": str(BUS), "label": "wlan", "state": "up", "expires": None}
    assert render.cell([care_of]) == f"1/{BUS}/wlan/up/-"
    assert (row["prefixes"], row["label"], row["care_ofs"]) == ([str(PREFIX)], "lte", [care_of])
    assert row["expires"] < 0


def test_bindings_show_every_way_with_its_label(make: Callable[..., Any]) -> None:
    rows = {row["prefix"]: row for row in VIEWS[RoleName.LMA]["bindings"](make())}
    assert rows[str(PREFIX)] == {
        "prefix": "2001:db8:1::/64",
        "node": "mn1@a.b",
        "path": "to gateway",
        "ways": ["1:wlan:2001:db8::b", "2:9:192.0.2.1"],
        "interface": None,
        "policy": "default",
        "held": 0,
        "held_lost": 0,
    }
    assert (rows[str(SITE)]["path"], rows[str(SITE)]["interface"]) == ("to anchor", None)
    home = rows[str(HOME)]
    assert (home["path"], home["ways"], home["held"], home["held_lost"]) == ("held", [], 7, 3)


def test_paths_flows_and_policies_show_labels_by_their_names(make: Callable[..., Any]) -> None:
    router = make()
    views = VIEWS[RoleName.LMA]
    assert views["paths"](router)[0]["label"] == "wlan"
    rule = {
        "rule": "calls",
        "selector": "ipv6 protocol=udp",
        "labels": ["lte", "wlan"],
        "bids": [],
        "spread": "per-flow",
    }
    assert views["flows"](router) == [{"policy": "default", **rule, "packets": 5, "octets": 400}]
    assert views["policy"](router) == [{"policy": "default", "number": 1, **rule}]


def test_peers_show_what_they_carry_and_no_key(make: Callable[..., Any]) -> None:
    (row,) = VIEWS[RoleName.LMA]["peers"](make())
    assert (row["name"], row["address"], row["prefixes"], row["authenticated"]) == ("bus1", str(BUS), 2, True)
    assert (row["alive"], row["heard_at"], row["restarts"]) == (True, str(BUS), 4)


# Over the socket


def test_orders_are_given_by_the_command_line(
    socket: tuple[Path, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, router = socket
    rules = tmp_path / "p.toml"
    rules.write_text('[[flow]]\nlabels = ["wlan"]')
    at = ["--socket", str(path)]
    assert main(["policy", *at, "set", "default", str(rules)]) == ExitCode.DONE
    assert main(["policy", *at, "show"]) == ExitCode.DONE
    assert main(["policy", *at, "clear", "default"]) == ExitCode.DONE
    assert main(["revoke", "mn1@a.b", *at]) == ExitCode.DONE
    assert main(["revoke", "--peer", "bus1", *at]) == ExitCode.DONE
    assert main(["revoke", "--all", *at]) == ExitCode.DONE
    assert main(["reload", *at]) == ExitCode.DONE
    out = capsys.readouterr().out.splitlines()
    assert [out[0], *out[3:]] == [
        "policy default: 1 rule",
        "policy default: cleared",
        "mn1@a.b revoked",
        "bus1 revoked",
        "all revoked",
        "reload: flow",
    ]
    assert out[1].split() == ["policy", "number", "rule", "selector", "labels", "bids", "spread"]
    assert [name for name, _ in router.role.asked] == [*["set_policy"] * 2, *["revoke"] * 3, "set_policy"]


def test_a_policy_file_that_is_empty_is_refused_before_anybody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "p.toml"
    rules.write_text("\n")
    assert main(["policy", "--socket", str(tmp_path / "none"), "set", "default", str(rules)]) == ExitCode.USAGE
    assert capsys.readouterr().err == f"{rules}: is empty: expected [[flow]] rules; to have none: policy clear NAME\n"


def test_a_problem_of_a_policy_file_names_the_file_of_who_asked(
    socket: tuple[Path, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "p.toml"
    rules.write_text("[[flow]]\nport = 1")
    assert main(["policy", "--socket", str(socket[0]), "set", "default", str(rules)]) == ExitCode.FAILED
    assert f"{rules}:2: flow.port: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/v1/policy/set", {"name": "a"}, "missing text"),
        ("/v1/policy/set", {"name": "../a", "text": "[[flow]]"}, "policy: expected a name"),
        ("/v1/policy/clear", {"name": "none"}, "no such policy"),
        ("/v1/revoke", {"node": "a", "peer": "b"}, "a node or a peer, not both"),
        ("/v1/revoke", {"all": "yes"}, "unknown all: expected node, peer"),
        ("/v1/reload", {"now": "yes"}, "unknown now: expected nothing"),
        ("/v1/attach", {"interface": "a", "link_layer": "02:00:00:00:00:11"}, "attach: an LMA has no access links"),
        ("/v1/detach", {"node": "a@b"}, "detach: an LMA has no access links"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_in_one_line(
    socket: tuple[Path, Fake], path: str, body: dict[str, str], why: str
) -> None:
    status, answer = ask(socket[0], "POST", path, json.dumps(body).encode())
    assert status == 409
    assert why in answer["error"]
    assert "\n" not in answer["error"]


def test_what_another_role_knows_is_not_shown(socket: tuple[Path, Fake]) -> None:
    status, answer = ask(socket[0], "GET", "/v1/show/nodes")
    assert (status, answer["error"].partition(", bindings")[0]) == (
        409,
        "show nodes: unknown: expected one of sessions",
    )
