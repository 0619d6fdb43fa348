"""What strangers and broken machines send to a running router: it lives, it counts, and nothing moves.

    forger in the core                  any source address, any octets
        |
    cn--core --+-- mar1 --:-- stranger  frames made by hand
               +-- mar2 --:-- mn        the node of mar1 is at mar2
"""

import json
import random
import time
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from router.demo.capture import read_packets
from router.demo.topology import CN_ADDRESS, underlay_address
from signaling.errors import MalformedMessage
from signaling.iana import BindingUpdateFlag, HandoffIndicator, ProtocolNumber
from signaling.settings import TIMESTAMP_UNITS
from signaling.update_request import identifier_of
from signaling.wire import authentication, ipv6, mobility_header
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.neighbor import NeighborSolicitation, RouterSolicitation, SourceLinkLayerAddress
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from tests.e2e.domain import NODES, Domain, RouterProcess, Row, finished, flowing
from tests.e2e.packets import ALL_ROUTERS, Forger, Stranger, mobility, packet, udp
from tests.eventually import eventually

VECTORS = Path(__file__).parent.parent / "vectors"
STRANGER = IPv6Address("2001:db8:cccc::666")
TUNNEL_PORT, SIGNALING_PORT = 5437, 5436
MANY = 3000
SOME_GROWTH = 24 << 20  # octets
CROWD = 400  # hosts: a kernel has room for 1024 neighbours, in all its namespaces together, and others need theirs
SEED = random.randrange(1 << 32)


@pytest.fixture(scope="module")
def prey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """A node of mar1 visits mar2; nothing that follows may change that."""
    with Domain(tmp_path_factory.mktemp("prey")) as prey:
        capture, _ = prey.capture("core", "mar1")
        prey.start().serve()
        prey.mn.no_duplicate_detection().attach("mar1")
        prey.mn.address(prey["mar1"].pool)
        prey.mn.attach("mar2")
        prey.mn.address(prey["mar2"].pool)
        eventually(lambda: [path for path, _ in prey["mar1"].paths().values()] == ["to visited router"], 5.0)
        capture.stop()
        yield prey


@pytest.fixture(autouse=True)
def _nothing_moves(prey: Domain) -> Iterator[None]:
    """Bindings, sessions and process are after each test what they were before."""
    mar1, mar2 = prey["mar1"], prey["mar2"]
    before, memory = (of_the_node(mar1), of_the_node(mar2)), mar1.memory()
    print("seed", SEED)
    yield
    assert mar1.process.poll() is None, mar1.log()
    # a router that was left gives back what still comes for a second
    eventually(lambda: (of_the_node(mar1), of_the_node(mar2)) == before, what="all is as before, and nothing was lost")
    assert mar1.memory() - memory < SOME_GROWTH
    prey.check_for_tracebacks()


def of_the_node(router: RouterProcess) -> list[Row]:
    return [row for row in router.show("bindings") if row["node"] == NODES[0]]


@pytest.fixture
def forger(prey: Domain) -> Iterator[Forger]:
    with Forger(prey.world["core"]) as forger:
        yield forger


def home(prey: Domain) -> IPv6Network:
    return next(prey["mar1"].pool.subnets(new_prefix=64))


def counted(prey: Domain, *names: str, by: int = 1) -> "Rise":
    return Rise(prey, names, by)


class Rise:
    """These counters of mar1 rise by at least so much in the block."""

    def __init__(self, prey: Domain, names: tuple[str, ...], by: int) -> None:
        self._router, self._names, self._by = prey["mar1"], names, by

    def __enter__(self) -> None:
        self._before = self._router.counters()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            for name in self._names:
                due = self._before.get(name, 0) + self._by
                eventually(lambda n=name, d=due: self._router.counter(n) >= d, 5.0, f"{name} counts {self._by} more")


def answered(prey: Domain) -> None:
    """It has read all that was sent before: the socket is a queue, and this stands behind."""
    with Forger(prey.world["core"]) as core, counted(prey, "malformed.unknown-type"):
        core.send(mobility(underlay_address(2), underlay_address(1), bytes((59, 0, 99, 0, 0, 0, 0, 0))))


def update(prey: Domain, **changes: object) -> BindingUpdate:
    """An update that would take the node's prefix from mar2."""
    about = {
        "sequence_number": 77,
        "flags": BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION,
        "lifetime": 0,
        "options": (
            identifier_of(NODES[0]),
            HomeNetworkPrefix(prefix=home(prey)),
            HandoffIndicatorOption(indicator=HandoffIndicator.HANDOFF_STATE_UNKNOWN),
            AccessTechnologyTypeOption(technology=4),
            Timestamp(value=int(time.time() * TIMESTAMP_UNITS)),
        ),
    }
    return BindingUpdate(**(about | changes))  # type: ignore[arg-type]


def key_of(prey: Domain) -> bytes:
    return bytes.fromhex(prey["mar1"].tables["peer"][0]["key"].removeprefix("hex:"))


def signed(
    prey: Domain, key: bytes, source: IPv6Address, *, spi: int = 256, message: BindingUpdate | None = None
) -> bytes:
    octets = authentication.sign(
        message or update(prey),
        key,
        spi,
        care_of=source,
        home_address=IPv6Address(0),
        source=source,
        destination=underlay_address(1),
        checksum=True,
    )
    return packet(source, underlay_address(1), ProtocolNumber.MOBILITY_HEADER, octets)


# Signalling


def malformed_headers() -> list[tuple[str, bytes]]:
    """Mobility Headers of tests/vectors that no decoder takes."""
    found = []
    for entry in json.loads((VECTORS / "index.json").read_text()):
        file = VECTORS / entry["file"]
        if not entry["malformed"]:
            continue
        octets = bytes.fromhex(file.read_text())
        if octets[0] >> 4 == 6 and octets[6] == ProtocolNumber.MOBILITY_HEADER:
            found.append((file.stem, octets[40:]))
    return found


@pytest.mark.parametrize("source", [underlay_address(2), STRANGER], ids=["as a peer", "as a stranger"])
def test_malformed_messages_of_all_kinds(prey: Domain, forger: Forger, source: IPv6Address) -> None:
    vectors = malformed_headers()
    assert len(vectors) > 15
    for _, octets in vectors:
        for right in (True, False):
            forger.send(mobility(source, underlay_address(1), octets, right=right))
    answered(prey)


def test_a_malformed_message_is_counted_under_its_reason(prey: Domain, forger: Forger) -> None:
    whole = mobility_header.encode(update(prey), underlay_address(2), underlay_address(1), checksum=False)
    expected: dict[str, int] = {}
    for length in range(8, len(whole), 8):
        cut = bytearray(whole[:length])
        try:
            mobility_header.decode(bytes(cut), underlay_address(2), underlay_address(1), verify_checksum=False)
        except MalformedMessage as defect:
            name = f"malformed.{defect.reason}"
            expected[name] = expected.get(name, 0) + 1
            forger.send(mobility(underlay_address(2), underlay_address(1), bytes(cut)))
    before = prey["mar1"].counters()
    answered(prey)
    after = prey["mar1"].counters()
    assert expected
    for name in expected:
        assert after.get(name, 0) > 0, (name, before, after)


def test_an_unsigned_update(prey: Domain, forger: Forger) -> None:
    octets = mobility_header.encode(update(prey), underlay_address(2), underlay_address(1), checksum=True)
    with counted(prey, "door.unsigned"):
        forger.send(packet(underlay_address(2), underlay_address(1), ProtocolNumber.MOBILITY_HEADER, octets))


def test_an_update_signed_with_another_key(prey: Domain, forger: Forger) -> None:
    with counted(prey, "door.forged"):
        forger.send(signed(prey, bytes(16), underlay_address(2)))


def test_an_update_signed_for_another_care_of_address(prey: Domain, forger: Forger) -> None:
    """The authenticator of mar2 cannot be moved to another source."""
    genuine = signed(prey, key_of(prey), underlay_address(2))
    with counted(prey, "door.unknown-peer"):
        forger.send(mobility(STRANGER, underlay_address(1), genuine[40:]))


def test_an_update_with_an_unknown_association(prey: Domain, forger: Forger) -> None:
    with counted(prey, "door.unknown-spi"):
        forger.send(signed(prey, key_of(prey), underlay_address(2), spi=4711))


def test_an_update_of_an_unknown_peer(prey: Domain, forger: Forger) -> None:
    with counted(prey, "door.unknown-peer"):
        forger.send(signed(prey, bytes(range(16)), STRANGER))


def test_a_signed_update_that_is_too_old(prey: Domain, forger: Forger) -> None:
    old = update(prey)
    late = Timestamp(value=int((time.time() - 10) * TIMESTAMP_UNITS))
    message = update(prey, options=(*old.options[:-1], late))
    with counted(prey, "anchor.refused.timestamp-lower-than-prev-accepted"):
        forger.send(signed(prey, key_of(prey), underlay_address(2), message=message))


def test_a_genuine_update_sent_again(prey: Domain, forger: Forger) -> None:
    captured = read_packets(prey.directory / "core-mar1.pcapng")
    genuine = [
        found.octets[14:]
        for found in captured
        if found.next_header == ProtocolNumber.MOBILITY_HEADER
        and found.source == underlay_address(2)
        and found.octets[56] == BindingUpdate.TYPE
    ]
    assert genuine
    with counted(prey, "anchor.refused.timestamp-mismatch", by=3):
        for _ in range(3):
            forger.send(genuine[-1])  # the one that was accepted, if another was late


def test_an_acknowledgement_nobody_waits_for(prey: Domain, forger: Forger) -> None:
    captured = read_packets(prey.directory / "core-mar1.pcapng")
    acknowledgements = [
        found.octets[14:]
        for found in captured
        if found.next_header == ProtocolNumber.MOBILITY_HEADER and found.octets[56] == 6
    ]
    assert acknowledgements
    with counted(prey, "received.BindingAck"):
        forger.send(mobility(underlay_address(2), underlay_address(1), acknowledgements[0][40:]))


def test_an_oversized_message(prey: Domain, forger: Forger) -> None:
    """The longest Mobility Header there is, behind it more than it says; in fragments on the way."""
    chance = random.Random(SEED)
    for extra in (0, 8, 200):
        octets = bytes((59, 255, 5, 0, 0, 0)) + chance.randbytes(2042 + extra)
        whole = mobility(underlay_address(2), underlay_address(1), octets)
        for fragment in fragments(whole):
            forger.send(fragment)
    answered(prey)


def fragments(whole: bytes, size: int = 1232) -> list[bytes]:
    """The same packet in pieces (RFC 8200 4.5)."""
    source, destination = IPv6Address(whole[8:24]), IPv6Address(whole[24:40])
    payload, pieces = whole[40:], []
    for at in range(0, len(payload), size):
        more = at + size < len(payload)
        head = bytes((whole[6], 0)) + (at | more).to_bytes(2, "big") + SEED.to_bytes(4, "big")
        pieces.append(packet(source, destination, 44, head + payload[at : at + size]))
    return pieces


def test_garbage_on_every_port(prey: Domain, forger: Forger) -> None:
    chance = random.Random(SEED)
    us = underlay_address(1)
    for _ in range(MANY):
        source = chance.choice((underlay_address(2), STRANGER, CN_ADDRESS))
        octets = chance.randbytes(chance.choice((0, 1, 7, 8, 40, 41, 100, 1000)))
        match chance.randrange(4):
            case 0:
                forger.send(mobility(source, us, octets))
            case 1:
                forger.send(udp(source, us, octets, ports=(TUNNEL_PORT, TUNNEL_PORT)))
            case 2:
                forger.send(udp(source, us, octets, ports=(SIGNALING_PORT, SIGNALING_PORT)))
            case _:
                forger.send(packet(source, us, ProtocolNumber.IPV6, octets))
    answered(prey)


def test_tunneled_packets_that_belong_to_nobody(prey: Domain, forger: Forger) -> None:
    """Inner sources and destinations that the tunnel they come by has no right to."""
    us, peer = underlay_address(1), underlay_address(2)
    inside = prey.mn.address(prey["mar1"].pool)

    def through(inner: bytes, source: IPv6Address, port: int = TUNNEL_PORT) -> bytes:
        return udp(source, us, inner, ports=(port, TUNNEL_PORT))

    with counted(prey, "engine.drop.not_bound", "engine.drop.unknown_tunnel", "engine.drop.bad_source", by=1):
        forger.send(through(udp(CN_ADDRESS, inside, b"to it"), peer))
        forger.send(through(udp(IPv6Address("2001:db8:2000::5"), CN_ADDRESS, b"another's"), peer))
        forger.send(through(udp(inside, CN_ADDRESS, b"from nowhere"), STRANGER))
        forger.send(through(udp(inside, CN_ADDRESS, b"wrong port"), peer, port=9999))
        forger.send(through(udp(IPv6Address("fe80::1"), CN_ADDRESS, b"local"), peer))


# The access link


def test_frames_without_sense_attach_nobody(prey: Domain) -> None:
    chance = random.Random(SEED)
    with Stranger(prey.world, "mar1") as stranger:
        for _ in range(MANY):
            link_layer = bytes((2, 0, 9)) + chance.randbytes(3)
            octets = chance.randbytes(chance.randrange(200))
            if octets and chance.random() < 0.7:  # as IPv6 at first sight
                head = bytes((0x60, 0, 0, 0)) + chance.randrange(300).to_bytes(2, "big")
                head += bytes((chance.choice((0, 58, 58, 43, 60)), 255))
                octets = head + octets
            stranger.frame(octets, link_layer=link_layer)
        marker = NeighborSolicitation(target=stranger.link_local)
        solicited = IPv6Address("ff02::1:ff00:99")

        def shows_itself() -> bool:  # again and again: the flood may have filled the socket of the router
            stranger.say(marker, solicited, IPv6Address("fe80::99"))
            return stranger.node in prey["mar1"].nodes()

        eventually(shows_itself, 10.0, "behind them all")
        assert prey["mar1"].nodes() == [stranger.node]
    prey.world["air"].link_down("acc1")
    eventually(lambda: prey["mar1"].nodes() == [], 5.0, "it has left")


def test_malformed_solicitations_attach_nobody(prey: Domain) -> None:
    with Stranger(prey.world, "mar1") as stranger:
        option = SourceLinkLayerAddress(address=stranger.link_layer)
        good = ipv6.carry(RouterSolicitation(options=(option,)), stranger.link_local, ALL_ROUTERS)
        for at in (7, 40, 41, 42, 43, 48, 49):  # hop limit, type, code, checksum, option
            broken = bytearray(good)
            broken[at] ^= 0x5A
            stranger.frame(bytes(broken))
        for length in range(40, len(good)):
            stranger.frame(good[:length])
        assert prey["mar1"].nodes() == []


def test_a_crowd_that_never_was(prey: Domain) -> None:
    """Solicitations of hosts that do not exist: each gets a prefix, as the real one that comes behind them."""
    with Stranger(prey.world, "mar1") as stranger:
        for number in range(CROWD):
            link_layer = bytes((2, 0, 8)) + number.to_bytes(3)
            solicitation = ipv6.carry(RouterSolicitation(), IPv6Address("fe80::8:0:0") + number, ALL_ROUTERS)
            stranger.frame(solicitation, link_layer=link_layer)

        def here() -> bool:
            stranger.say(RouterSolicitation(), ALL_ROUTERS)
            return stranger.node in prey["mar1"].nodes()

        eventually(here, 5.0, "the real one is attached")
    prey.world["air"].link_down("acc1")
    eventually(lambda: prey["mar1"].nodes() == [], 5.0, "all have left")


def test_a_legitimate_move_after_all_that(prey: Domain) -> None:
    download = prey.download()
    flowing(download)
    prey.mn.attach("mar1")
    flowing(download)
    prey.mn.attach("mar2")
    flowing(download)
    eventually(lambda: prey["mar1"].paths()[home(prey)][0] == "to visited router", 5.0)
    finished(download)
