"""How a router learns that a node came, and that it left.

    core --- mar1 --:-- mn             stock host
                    :-- a stranger     frames made by hand: a host that says one thing and no more
"""

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network

import pytest

from router.demo.capture import read_packets
from router.demo.topology import CN_ADDRESS, node_link_layer
from signaling.iana import MulticastRecordType
from signaling.wire.multicast_listener import MulticastListenerReportV2, MulticastRecord
from signaling.wire.neighbor import RouterSolicitation
from tests.e2e.domain import NODES, Domain, run_router
from tests.e2e.packets import ALL_MLDV2_ROUTERS, ALL_ROUTERS, ROUTER_LINK_LAYER, Stranger, udp
from tests.eventually import eventually

ICMPV6, HOP_BY_HOP = 58, 0
SOLICITATION = 133


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """One router for all of these tests; each begins with nobody there."""
    settings = {"access": {"probe_interval": 2.0}}
    with Domain(tmp_path_factory.mktemp("place"), mars=1, settings=settings) as place:
        place.mn.no_duplicate_detection()
        yield place.start()


@pytest.fixture(autouse=True)
def _nobody_there(place: Domain) -> Iterator[None]:
    yield
    place.mn.leave()
    place.world["air"].link_down("acc1")
    eventually(lambda: place["mar1"].nodes() == [], 5.0, "nobody is left")


def is_here(place: Domain, node: str) -> None:
    eventually(lambda: node in place["mar1"].nodes(), 5.0, f"{node} is attached")


def triggers(place: Domain, node: str) -> list[str]:
    return [line.rpartition("trigger=")[2] for line in place["mar1"].lines("attached") if f"node={node} " in line]


def test_a_router_solicitation_attaches_a_node(place: Domain) -> None:
    with Stranger(place.world, "mar1", "02:00:00:00:01:07") as stranger:
        place["mar1"].heard("link-up")
        stranger.say(RouterSolicitation(), ALL_ROUTERS)
        is_here(place, stranger.node)
        assert triggers(place, stranger.node) == ["rs"]


def test_a_multicast_listener_report_attaches_a_node(place: Domain) -> None:
    with Stranger(place.world, "mar1", "02:00:00:00:01:02") as stranger:
        group = IPv6Address("ff02::1:ff00:99")
        record = MulticastRecord(kind=MulticastRecordType.CHANGE_TO_EXCLUDE_MODE, group=group)
        stranger.say(MulticastListenerReportV2(records=(record,)), ALL_MLDV2_ROUTERS)
        is_here(place, stranger.node)
        assert triggers(place, stranger.node) == ["mld"]


def test_a_first_data_packet_attaches_a_node(place: Domain) -> None:
    with Stranger(place.world, "mar1", "02:00:00:00:01:03") as stranger:
        packet = udp(IPv6Address("2001:db8:2000::99"), CN_ADDRESS, b"hello")
        stranger.frame(packet, to=ROUTER_LINK_LAYER)
        is_here(place, stranger.node)
        assert triggers(place, stranger.node) == ["packet"]


def test_a_stock_host_whose_carrier_flaps_is_attached_again_without_a_solicitation(place: Domain) -> None:
    mn, air = place.mn, place.world["air"]
    mn.attach("mar1")
    is_here(place, NODES[0])
    address = mn.address(place["mar1"].pool)
    listening, file = place.capture("mar1", "acc0")
    for name in ("node0", "acc1"):
        air.link_down(name)
    eventually(lambda: place["mar1"].nodes() == [], 5.0, "it has left")
    for name in ("node0", "acc1"):
        air.link_up(name)
    is_here(place, NODES[0])
    assert place["mar1"].paths()[IPv6Network((address, 64), strict=False)] == ("native", None)
    assert mn.address(place["mar1"].pool) == address
    listening.stop()
    heard = [packet.octets[54] for packet in read_packets(file) if packet.next_header == ICMPV6 and not packet.outgoing]
    assert SOLICITATION not in heard
    assert triggers(place, NODES[0])[-1] != "rs"


def test_an_operator_attaches_and_detaches_a_node(place: Domain) -> None:
    mar1 = place["mar1"]
    socket = ("--socket", str(place.directory / "mar1.sock"))
    with Stranger(place.world, "mar1"):  # a carrier, and silence
        eventually(lambda: len(mar1.lines("link-up")) > len(mar1.lines("link-lost")), 5.0, "there is a carrier")
        done = run_router(mar1.host, "attach", "acc0", "02:00:00:00:02:02", "--node", "hand@example.net", *socket)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hand@example.net attached\n", "")
        is_here(place, "hand@example.net")
        assert "native" in [path for path, _ in mar1.paths().values()]
        done = run_router(mar1.host, "detach", "hand@example.net", *socket)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hand@example.net detached\n", "")
        assert mar1.nodes() == []
        mar1.heard("detached", "node=hand@example.net", "reason=command")


def test_a_lost_carrier_detaches_a_node_at_once(place: Domain) -> None:
    place.mn.attach("mar1")
    is_here(place, NODES[0])
    place.mn.leave()
    eventually(lambda: place["mar1"].nodes() == [], 5.0, "it has left")
    assert "reason=link lost" in place["mar1"].lines("detached")[-1]


def test_a_node_that_falls_silent_is_detached(place: Domain) -> None:
    """Its carrier stays: only the switch between stops passing its frames."""
    place.mn.attach("mar1")
    is_here(place, NODES[0])
    place.mn.address(place["mar1"].pool)
    air = place.world["air"]
    air.netlink.set_master(air.link("node0").index, 0)
    eventually(lambda: place["mar1"].nodes() == [], 20.0, "it is given up")
    place["mar1"].heard("detached", f"node={NODES[0]}", "reason=silent")


def test_a_node_that_answers_is_never_given_up(place: Domain) -> None:
    place.mn.attach("mar1")
    is_here(place, NODES[0])
    before = place["mar1"].counter("link.probes")
    eventually(lambda: place["mar1"].counter("link.probes") >= before + 2, 10.0, "it was asked twice")
    assert place["mar1"].nodes() == [NODES[0]]
    assert len(triggers(place, NODES[0])) - len(
        [line for line in place["mar1"].lines("detached") if NODES[0] in line]
    ) == 1


def test_a_packet_with_the_routers_own_link_layer_address_attaches_nobody(place: Domain) -> None:
    with Stranger(place.world, "mar1", "02:00:00:00:01:04") as stranger:
        for sender in (ROUTER_LINK_LAYER, bytes(6), bytes.fromhex("333300000001"), b"\xff" * 6):
            stranger.frame(udp(stranger.link_local, CN_ADDRESS, b"?"), link_layer=sender)
        stranger.say(RouterSolicitation(), ALL_ROUTERS)  # after all of those
        is_here(place, stranger.node)
        assert place["mar1"].nodes() == [stranger.node]


def test_a_node_is_known_by_its_configured_name(place: Domain) -> None:
    place.mn.attach("mar1")
    is_here(place, NODES[0])
    row = place["mar1"].show("nodes")[0]
    assert row["link_layer"] == node_link_layer(0).hex(":")
    assert row["interface"] == "acc0"
