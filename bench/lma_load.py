"""The gateways of `bench.lma`: two MAGs in one process, with as many nodes as wanted, that register and are answered.

python -m bench.lma_load LMA MAG1 MAG2 KEY      orders come as lines of JSON, {"do": "fill", ...}; so do the results

Every update is a real one: built by our codec, with its own node, prefix, number and time, signed moments before it
leaves. Only what differs between nodes is written into the octets here, so that an update costs some 5 us.
"""

from __future__ import annotations

import hmac
import json
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv6Address
from itertools import islice
from typing import Any

from bench.batches import MOST, Batch
from bench.settings import options
from signaling.iana import BindingUpdateFlag, HandoffIndicator, MobilityHeaderType, RevocationStatus
from signaling.update_request import ALL_ZERO
from signaling.wire.authentication import sign
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.mobility_header import decode
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.option import frames
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

PROTOCOL = 135
SPI = 256
MAC = 12  # octets
NAME = b"mn%08d@example.net"
LIFETIME = 65532  # s: nothing has to be refreshed for its own sake
BUFFER = 16 << 20  # octets
SILENCE = 1.0  # s without an answer, and what is open is lost
WINDOW = 256  # updates open at once, when as many as possible are wanted
TICK = 0.001  # s between bursts at a given rate
UPDATE, ACK = int(MobilityHeaderType.BINDING_UPDATE), int(MobilityHeaderType.BINDING_ACKNOWLEDGEMENT)
REVOCATION = int(MobilityHeaderType.BINDING_REVOCATION)
NODE, PREFIX, LINK_LAYER, TIMESTAMP = 8, 22, 25, 27  # option types


def template(handoff: HandoffIndicator) -> bytearray:
    """An update with its options where they will be, and a MAC that is none yet."""
    message = BindingUpdate(
        sequence_number=0,
        flags=BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION,
        lifetime=LIFETIME,
        options=(
            MobileNodeIdentifier(identifier=NAME % 0),
            HomeNetworkPrefix(prefix=ALL_ZERO),
            HandoffIndicatorOption(indicator=handoff),
            AccessTechnologyTypeOption(technology=4),
            MobileNodeLinkLayerIdentifier(identifier=bytes(6)),
            Timestamp(value=0),
        ),
    )
    nowhere = IPv6Address(0)
    return bytearray(
        sign(message, b"-", SPI, care_of=nowhere, source=nowhere, destination=nowhere, checksum=False)
    )


class Wording:
    """How a MAG words updates of one kind."""

    def __init__(self, handoff: HandoffIndicator) -> None:
        self._octets = template(handoff)
        places = {number: (begin, end) for number, begin, end in frames(bytes(self._octets), 12)}
        self._name = slice(places[NODE][0] + 1, places[NODE][1])
        self._prefix = slice(places[PREFIX][0] + 1, places[PREFIX][0] + 10)  # its length, and 8 octets of it
        self._link_layer = slice(places[LINK_LAYER][0] + 2, places[LINK_LAYER][1])
        self._time = slice(*places[TIMESTAMP])

    def update(self, node: int, prefix: bytes | None, number: int, gateway: Gateway) -> bytearray:
        """The update of a node, signed now; its checksum is the kernel's. prefix: 64 bits; None: any."""
        octets = self._octets
        octets[self._name] = NAME % node
        octets[self._prefix] = bytes(9) if prefix is None else b"\x40" + prefix
        octets[self._link_layer] = (0x02 << 40 | node).to_bytes(6, "big")
        octets[6:8] = (number & 0xFFFF).to_bytes(2, "big")
        octets[self._time] = gateway.stamp().to_bytes(8, "big")
        text = b"".join((gateway.covered, octets[:4], b"\0\0", octets[6:-MAC]))
        octets[-MAC:] = hmac.digest(gateway.key, text, "sha1")[:MAC]
        return bytearray(octets)


class Gateway:
    """One MAG: its socket, its clock, its key."""

    def __init__(self, address: IPv6Address, anchor: IPv6Address, key: bytes) -> None:
        self.address, self.anchor, self.key = address, anchor, key
        self.covered = address.packed + bytes(16)  # care-of address and home address, as the MAC has them
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, PROTOCOL)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
        self.socket.bind((str(address), 0))
        self.socket.connect((str(anchor), 0))
        self.outgoing, self.incoming = Batch(self.socket), Batch(self.socket)
        self._last_stamp = 0

    def stamp(self) -> int:
        """A time newer than any before, 1/65536 s since 1970."""
        self._last_stamp = max(self._last_stamp + 1, int(time.time() * 65536))
        return self._last_stamp

    def confirm(self, octets: bytes) -> None:
        """Answer a revocation, as the MAG that a node left does."""
        asked = decode(octets, self.anchor, self.address)
        if isinstance(asked, BindingRevocationIndication):
            ack = BindingRevocationAck(
                status=RevocationStatus.SUCCESS,
                sequence_number=asked.sequence_number,
                flags=asked.flags,
                options=(Timestamp(value=self.stamp()),),
            )
            own, there = self.address, self.anchor
            self.socket.send(sign(ack, self.key, SPI, care_of=own, source=own, destination=there))


class Tally:
    """What came of a run."""

    def __init__(self) -> None:
        self.sent = self.accepted = 0
        self.refused: dict[int, int] = {}
        self.delays: list[float] = []  # s
        self.began = self.ended = time.monotonic()

    def as_json(self) -> dict[str, Any]:
        """For whoever gave the order."""
        delays = sorted(self.delays)
        shares = (0.5, 0.99, 0.999) if delays else ()
        at = {f"p{share * 100:g}": delays[int(share * (len(delays) - 1))] * 1e3 for share in shares}
        return {
            "sent": self.sent,
            "accepted": self.accepted,
            "refused": self.refused,
            "lost": self.sent - self.accepted - sum(self.refused.values()),
            "seconds": self.ended - self.began,
            "delays_ms": at | ({"most": delays[-1] * 1e3} if delays else {}),
        }


Update = tuple[int, Gateway, Wording]  # node, who says it, how


class Load:
    """The nodes, and runs over them."""

    def __init__(self, anchor: IPv6Address, gateways: tuple[IPv6Address, ...], key: bytes) -> None:
        self.gateways = [Gateway(address, anchor, key) for address in gateways]
        self._prefixes: list[bytes | None] = []  # of each node
        self._number = 0
        self._open: dict[int, tuple[int, float]] = {}  # number -> node, when it was due
        self._poll = select.poll()
        for gateway in self.gateways:
            self._poll.register(gateway.socket, select.POLLIN)

    # --- orders ---

    def fill(self, count: int) -> dict[str, Any]:
        """New sessions, until there are so many more, whatever is refused or lost on the way."""
        result = self.attach(count, None)
        while missing := [node for node, prefix in enumerate(self._prefixes) if prefix is None]:
            self._attach(missing, None)
        return result

    def attach(self, count: int, rate: float | None) -> dict[str, Any]:
        """So many more nodes attach at the first MAG."""
        begin = len(self._prefixes)
        self._prefixes += [None] * count
        return self._attach(range(begin, begin + count), rate).as_json()

    def _attach(self, nodes: Iterable[int], rate: float | None) -> Tally:
        word = Wording(HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE)
        return self._run(((node, self.gateways[0], word) for node in nodes), rate)

    def refresh(self, count: int, rate: float | None) -> dict[str, Any]:
        """Extensions, in turn, of all nodes that are at the first MAG."""
        word = Wording(HandoffIndicator.HANDOFF_STATE_NOT_CHANGED)
        nodes = len(self._prefixes)
        first = self._number
        return self._run((((first + at) % nodes, self.gateways[0], word) for at in range(count)), rate).as_json()

    def handoff(self, count: int, rate: float | None) -> dict[str, Any]:
        """The first nodes move to the other MAG, and stay there; the MAGs change roles."""
        word = Wording(HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE)
        self.gateways.reverse()
        nodes = len(self._prefixes)
        return self._run(((at % nodes, self.gateways[0], word) for at in range(count)), rate).as_json()

    def until_answered(self, seconds: float) -> dict[str, Any]:
        """Refresh the first node until somebody is there to answer."""
        word = Wording(HandoffIndicator.HANDOFF_STATE_NOT_CHANGED)
        tally = Tally()
        while not tally.accepted and time.monotonic() < tally.began + seconds:
            self._send([(0, self.gateways[0], word)], time.monotonic(), tally)
            self._poll.poll(5)
            self._take(tally)
        self._open.clear()
        return tally.as_json() | {"answered_at": time.monotonic() if tally.accepted else None}

    # --- runs ---

    def _run(self, updates: Iterator[Update], rate: float | None) -> Tally:
        """Send them all. rate: each second, whatever comes back; None: as fast as they are answered."""
        tally = Tally()
        if rate is None:
            self._as_answered(updates, tally)
        else:
            self._at_rate(updates, rate, tally)
        self._open.clear()
        return tally

    def _as_answered(self, updates: Iterator[Update], tally: Tally) -> None:
        last = time.monotonic()
        while True:
            some = list(islice(updates, min(MOST, WINDOW - len(self._open))))
            self._send(some, time.monotonic(), tally)
            if not self._open:
                return
            if not some and not self._poll.poll(SILENCE * 1000) and time.monotonic() - last > SILENCE:
                self._open.clear()  # lost
            if self._take(tally):
                last = time.monotonic()

    def _at_rate(self, updates: Iterator[Update], rate: float, tally: Tally) -> None:
        due = time.monotonic()
        carried = 0.0
        while True:
            while time.monotonic() < due:
                self._take(tally)
            carried += rate * TICK
            some = list(islice(updates, int(carried)))
            if not some and carried >= 1:
                break
            carried -= len(some)
            for at in range(0, len(some), MOST):
                self._send(some[at : at + MOST], due, tally)  # late is late, whoever was: delays count from here
            due += TICK
        while self._open and self._poll.poll(SILENCE * 1000):
            self._take(tally)

    def _send(self, updates: list[Update], due: float, tally: Tally) -> None:
        by_gateway: dict[Gateway, list[bytearray]] = {}
        for node, gateway, word in updates:
            self._number += 1
            number = self._number & 0xFFFF
            self._open[number] = node, due
            octets = word.update(node, self._prefixes[node], number, gateway)
            by_gateway.setdefault(gateway, []).append(octets)
        for gateway, messages in by_gateway.items():
            while messages:
                messages = messages[gateway.outgoing.send(messages) :]
        tally.sent += len(updates)

    def _take(self, tally: Tally) -> int:
        """Read what has come. Returns how many answers."""
        before = tally.accepted
        for gateway in self.gateways:
            for octets in gateway.incoming.receive():
                if octets[2] == ACK:
                    self._answered(octets, tally)
                elif octets[2] == REVOCATION:
                    gateway.confirm(bytes(octets))
        return tally.accepted - before

    def _answered(self, octets: memoryview, tally: Tally) -> None:
        node, due = self._open.pop(octets[8] << 8 | octets[9], (None, 0.0))
        if node is None:
            return
        if octets[6] >= 128:
            tally.refused[octets[6]] = tally.refused.get(octets[6], 0) + 1
            return
        tally.ended = time.monotonic()
        tally.accepted += 1
        tally.delays.append(tally.ended - due)
        if self._prefixes[node] is None:
            begin = next(begin for number, begin, _ in frames(bytes(octets), 12) if number == PREFIX)
            self._prefixes[node] = bytes(octets[begin + 2 : begin + 10])


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out orders until there are no more."""
    made = options("lma_load", __doc__)
    made.add_argument("anchor", type=IPv6Address, help="address of the LMA")
    made.add_argument("gateways", type=IPv6Address, nargs="+", help="addresses of the MAGs, all of this host")
    made.add_argument("key", type=bytes.fromhex, help="that signs all updates, in hexadecimal digits")
    about = made.parse_args(arguments)
    load = Load(about.anchor, tuple(about.gateways), about.key)
    orders: dict[str, Callable[..., dict[str, Any]]] = {
        order.__name__: order for order in (load.fill, load.attach, load.refresh, load.handoff, load.until_answered)
    }
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(orders[order.pop("do")](**order)), flush=True)


if __name__ == "__main__":
    main()
