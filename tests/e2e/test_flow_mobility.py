"""A stock host with two radios at two MARs: TCP connections are moved from one to the other, by prefix and by filter.

mar1 acc0 ~~~ radio0 mn radio1 ~~~ acc0 mar2        both connections use the address of radio0, a prefix of mar1

The kernel of the host is as it comes: an address belongs to one interface, packets for it are taken on any of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network
from pathlib import Path

from router.demo.capture import Packet, read_packets
from router.demo.toml import toml
from router.demo.topology import CN_ADDRESS
from router.demo.traffic import Program
from tests.e2e.domain import NODES, Domain, RouterProcess, finished, flowing
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]
NODE = NODES[0]
WEB, FILES = 7001, 7002  # ports of the correspondent
RADIOS = ("radio0", "radio1")
SECOND = "mn/2"  # what radio1 is attached by
TCP = 6


def two_radios(make: MakeDomain) -> Domain:
    """mn1 at mar1 by radio0; radio1, which the routers know as the same node, is at nobody."""
    it = make()
    for router in it.routers.values():
        tables = dict(router.tables)
        tables["node"] = [{**each, "id": NODE} for each in tables["node"]]
        tables["flow"] = [{"policy": "files", "name": "files", "protocol": "tcp", "source_port": FILES}]
        router.config.write_text(toml(tables))
    it.start()
    it.world.air.add_node(1, it.world["mn"], 1500, interface="radio1", name=SECOND)
    for port in (WEB, FILES):
        it.program("cn", "tcp-serve", str(port)).wait_for("ready")
    it.mn.no_duplicate_detection().attach("mar1")
    it.mn.address(it["mar1"].pool)
    return it


def download(it: Domain, port: int) -> Program:
    program = it.program("mn", "tcp-get", str(CN_ADDRESS), str(port), "--rate", "10")
    program.wait_for("connected")
    return program


def prefix_of_mar1(it: Domain) -> IPv6Network:
    (row,) = it["mar1"].show("prefixes")
    return IPv6Network(row["prefix"])


@contextmanager
def recorded(it: Domain) -> Iterator[dict[str, set[int]]]:
    """By which radio packets of which connection came in meanwhile: port of the correspondent."""
    captures: dict[str, tuple[Program, Path]] = {radio: it.capture("mn", radio) for radio in RADIOS}
    seen: dict[str, set[int]] = {}
    yield seen
    for radio, (program, file) in captures.items():
        program.stop()
        seen[radio] = {source_port(packet) for packet in read_packets(file) if is_data(packet)}


def is_data(packet: Packet) -> bool:
    return not packet.outgoing and packet.next_header == TCP and packet.source == CN_ADDRESS


def source_port(packet: Packet) -> int:
    return int.from_bytes(packet.octets[54:56], "big")


def came_by(it: Domain, *downloads: Program) -> dict[str, set[int]]:
    """By which radio the connections come now; all of them go on."""
    with recorded(it) as seen:
        for program in downloads:
            flowing(program)
    return seen


def state(it: Domain) -> str:
    return str(next(row["state"] for row in it["mar1"].show("prefixes")))


def test_connections_are_moved_by_filter_and_by_prefix_and_back(domain: MakeDomain) -> None:
    it = two_radios(domain)
    web, files = download(it, WEB), download(it, FILES)
    it.world.attach("mar2", SECOND)
    eventually(lambda: it["mar2"].nodes() == [NODE], 5.0, "the second radio is at mar2")
    assert it["mar1"].nodes() == [NODE]
    prefix = str(prefix_of_mar1(it))
    assert came_by(it, web, files) == {"radio0": {WEB, FILES}, "radio1": set()}

    it["mar1"].client.move({"node": NODE, "prefix": prefix, "to": "mar2", "policy": "files"})
    eventually(lambda: state(it) == "split", 5.0, "flows are at mar2")
    flowing(files)
    assert came_by(it, web, files) == {"radio0": {WEB}, "radio1": {FILES}}
    (flow,) = it["mar1"].show("flows")
    assert (flow["prefix"], flow["to"], flow["node"]) == (prefix, ["mar2"], NODE)
    assert flow["packets"] > 0

    it["mar1"].client.move({"node": NODE, "prefix": prefix, "to": "mar2"})
    eventually(lambda: state(it) == "remote", 5.0, "the whole prefix is at mar2")
    flowing(web)
    assert came_by(it, web, files) == {"radio0": set(), "radio1": {WEB, FILES}}

    it["mar1"].client.move({"node": NODE, "prefix": prefix})
    eventually(lambda: state(it) == "local", 5.0, "all is back at mar1")
    flowing(web)
    assert came_by(it, web, files) == {"radio0": {WEB, FILES}, "radio1": set()}
    for program in (web, files):
        finished(program)


def test_when_a_radio_is_lost_its_connections_go_on_by_the_other_one(domain: MakeDomain) -> None:
    it = two_radios(domain)
    web = download(it, WEB)
    it.world.attach("mar2", SECOND)
    eventually(lambda: it["mar2"].nodes() == [NODE], 5.0, "the second radio is at mar2")
    it.world.detach()
    eventually(lambda: state(it) == "remote", 5.0, "the prefix is at mar2")
    flowing(web, timeout=30.0)  # when its host has given up the router it cannot reach, and TCP tries again
    assert came_by(it, web) == {"radio0": set(), "radio1": {WEB}}
    finished(web)


def test_a_radio_has_its_prefix_again_when_its_router_was_stopped_and_started(domain: MakeDomain) -> None:
    """The router of the other radio, which was asked to take it meanwhile, does not insist."""
    it = two_radios(domain)
    prefix = prefix_of_mar1(it)
    web = download(it, WEB)
    it.world.attach("mar2", SECOND)
    eventually(lambda: it["mar2"].nodes() == [NODE], 5.0, "the second radio is at mar2")
    it["mar1"].stop()
    eventually(lambda: its_state(it["mar2"], prefix) == "pending", 5.0, "mar2 wants it")
    it["mar1"].start()
    it["mar2"].heard("prefix-gone", str(prefix))
    assert its_state(it["mar2"], prefix) == ""
    assert state(it) == "local"
    flowing(web)
    assert came_by(it, web) == {"radio0": {WEB}, "radio1": set()}
    finished(web)


def its_state(router: RouterProcess, prefix: IPv6Network) -> str:
    """Of a prefix, as a router shows it; "": it has nothing to do with it."""
    return next((str(row["state"]) for row in router.show("sessions") if row["prefix"] == str(prefix)), "")
