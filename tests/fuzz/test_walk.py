"""The walk against anything: whatever octets come, the compiled path does what the model does and touches nothing else.

OPENMAR_FUZZ_SECONDS: how long all tests here take together, 5 without it. OPENMAR_FUZZ_SEED: where they begin, a number
that a failure has printed; each round has a seed of its own, one more than that of the round before.
Under `make sanitize` every access of the compiled path is checked as well.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path as File
from typing import Any

import pytest

import engine
from engine import (
    BadTunnel,
    Discard,
    Drop,
    Encapsulation,
    Engine,
    FlowRule,
    HoldBuffer,
    NoRights,
    Offloads,
    Path,
    Port,
    PortKind,
    Side,
    Spread,
    Steer,
    Tables,
    TrafficSelector,
    Tunnel,
    TunnelState,
    open_gre,
    open_ip,
    open_udp,
)
from engine.model import offload as model_offload
from engine.model import spread as model_spread
from engine.model.dropped import Dropped
from engine.model.path import parse
from tests.engine.descriptors import drained, settle
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    CORRESPONDENT,
    CORRESPONDENT4,
    HELD,
    HELD4,
    HERE,
    HERE4,
    ICMP,
    ICMP6,
    STRANGER,
    STRANGER4,
    UNDERLAYS,
    VISITING,
    VISITING4,
    segment,
)
from tests.fuzz.any_packets import PORTS, inner, outer, spoiled

if engine.compiled:
    from engine._fast import offload as fast_offload
    from engine._fast import spread as fast_spread

pytestmark = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")

SECONDS = float(os.environ.get("OPENMAR_FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("OPENMAR_FUZZ_SEED", "0")) or random.randrange(1, 1 << 32)
NUMBERS = {  # fields of a selector, and values that occur
    "source_port": PORTS,
    "destination_port": PORTS,
    "protocol": [0, 6, 17, 50, 58, 255],
    "traffic_class": [0, 3, 0xB8, 0xFF],
    "spi": [0, 7, 0xFFFFFFFF],
}
STRANGERS = [
    Tunnel(local=HERE, remote=STRANGER, encapsulation=Encapsulation.UDP),
    Tunnel(local=HERE4, remote=STRANGER4, encapsulation=Encapsulation.GRE, key_in=8),
]
PREFIXES = [
    *(ANCHORED, VISITING, HELD, ANCHORED4, VISITING4, HELD4),
    *(IPv6Network("2001:db8::/32"), IPv6Network((ANCHORED[5], 128)), IPv6Network("::/0")),
    *(IPv4Network("10.0.0.0/8"), IPv4Network((ANCHORED4[5], 32)), IPv4Network("0.0.0.0/0")),
]
GSO = [0, 1, 4, 5, 0x81, 0x84, 2, 3, 0xFF]
BURST = 64


def rounds(share: float) -> Iterator[random.Random]:
    """Dice for one round after the other, as long as this share of the time lasts; the first even then."""
    os.write(2, f"OPENMAR_FUZZ_SEED={SEED}\n".encode())  # an aborted process says no more than it has said
    until = time.monotonic() + SECONDS * share
    for seed in range(SEED, SEED + (1 << 32)):
        print(f"round with OPENMAR_FUZZ_SEED={seed}")
        yield random.Random(seed)
        if time.monotonic() > until:
            return


# --- in memory, beside the model -----------------------------------------------------------------------


class World:
    """Tables that are edited at random, and an engine over them. Two of them with the same dice are alike."""

    def __init__(self, dice: random.Random, *, compiled: bool) -> None:
        # the twins look at the clock one after the other: a pause is over for both, or for none
        pause, transience = dice.choice([0.0, 3600.0]), dice.choice([0.0, 3600.0])
        self.tables = Tables(compiled=compiled, flow_pause=pause, transience=transience)
        self.tables.open_idle_after = 7440.0
        self.engine = Engine(self.tables, clamp_mss=dice.choice([0, 1280, 1400]))
        self.bundles = [self.tables.bundle(paths(dice)) for _ in range(3)]
        self.policies = [self.tables.policy(rules(dice)) for _ in range(3)]
        self.steps = [self.bind, self.bind, self.hold, self.unbind, self.change, self.know, self.know, self.follow]
        for prefix in PREFIXES[:6]:
            self.bind(dice, prefix)
        for _ in range(6):
            self.edit(dice)

    def edit(self, dice: random.Random) -> None:
        dice.choice(self.steps)(dice)

    def bind(self, dice: random.Random, prefix: IPv6Network | IPv4Network | None = None) -> None:
        to = dice.choice([*self.bundles, *dice.sample(UNDERLAYS, 3)])
        policy = dice.choice([None, *self.policies])
        self.tables.bind(prefix or dice.choice(PREFIXES), to, side=dice.choice(list(Side)), policy=policy)

    def hold(self, dice: random.Random) -> None:
        self.tables.hold(dice.choice(PREFIXES))

    def unbind(self, dice: random.Random) -> None:
        bindings = self.tables.bindings()
        if len(bindings) > 6:
            self.tables.unbind(dice.choice(bindings).prefix)

    def change(self, dice: random.Random) -> None:
        if dice.random() < 0.5:
            self.tables.change(dice.choice(self.bundles), paths(dice))
        else:
            self.tables.change(dice.choice(self.policies), rules(dice))

    def know(self, dice: random.Random) -> None:
        tunnel = dice.choice(self.tables.tunnels()).tunnel
        self.tables.set_state(tunnel, dice.choice([TunnelState.UP, *TunnelState]))
        self.tables.set_mtu(tunnel, dice.choice([None, None, 100, 1232, 1280, 1400, 9000]))

    def follow(self, dice: random.Random) -> None:
        tunnel = dice.choice(self.tables.tunnels()).tunnel
        if tunnel.encapsulation is Encapsulation.UDP:
            with suppress(BadTunnel):
                self.tables.follow(tunnel, dice.choice([5437, 40000, 40001]))

    def counted(self) -> tuple[object, ...]:
        """All its counters; a policy is called by its place."""
        rows = [(row.policy.number, row.rule, row.packets, row.octets) for row in self.tables.flow_rules()]
        opened = {prefix: each.number for prefix, each in self.tables.all_connections().items()}
        return self.engine.counters(), self.tables.tunnels(), [row[1:] for row in rows], opened


def paths(dice: random.Random) -> list[Path]:
    chosen = dice.sample(UNDERLAYS, dice.choice([1, 2, 3, 8]))
    bids = dice.sample(range(1, 255), len(chosen))
    return [
        Path(tunnel, bid=bid, label=dice.randrange(4), weight=dice.choice([1, 1, 3, 65535]))
        for tunnel, bid in zip(chosen, bids, strict=True)
    ]


def rules(dice: random.Random) -> list[FlowRule]:
    return [rule(dice) for _ in range(dice.choice([0, 1, 3, 12]))]


def rule(dice: random.Random) -> FlowRule:
    names = dice.sample(sorted(NUMBERS), dice.choice([0, 1, 1, 2]))
    ranges: dict[str, Any] = {name: tuple(sorted(dice.choices(NUMBERS[name], k=2))) for name in names}
    if dice.random() < 0.1:
        return FlowRule(TrafficSelector(family=dice.choice([4, 6]), **ranges), Discard())
    wanted = dice.choice([{}, {}, {"labels": (1, 2)}, {"labels": (3,)}, {"bids": tuple(range(1, 255, 16))}])
    return FlowRule(
        TrafficSelector(family=dice.choice([4, 6]), **ranges), Steer(spread=dice.choice(list(Spread)), **wanted)
    )


def alike(packets: list[bytes], ours: list[Any], theirs: list[Any]) -> None:
    for octets, mine, wanted in zip(packets, ours, theirs, strict=True):
        assert mine == wanted, octets.hex()


def test_whatever_comes_both_paths_make_the_same_of_it() -> None:
    kinds: Counter[object] = Counter()
    for dice in rounds(0.5):
        seed = dice.random()
        fast, slow = worlds = [World(random.Random(seed), compiled=compiled) for compiled in (True, False)]
        for _ in range(4):
            packets = [some(dice, inner) for _ in range(dice.choice([1, BURST, BURST]))]
            answers = fast.engine.encapsulate(packets)
            alike(packets, answers, slow.engine.encapsulate(packets))
            arrivals = [some(dice, from_a_peer) for _ in range(dice.choice([1, BURST, BURST]))]
            delivered = fast.engine.decapsulate(arrivals)
            alike(arrivals, delivered, slow.engine.decapsulate(arrivals))
            assert fast.counted() == slow.counted()
            kinds.update(each if isinstance(each, Drop) else type(each) for each in answers + delivered)
            seed = dice.random()
            for world in worlds:
                world.edit(random.Random(seed))
    assert sum(kinds.values()) < 3000 or (kinds[tuple] > 100 < kinds[bytes] and len(kinds) > 12), kinds


def some(dice: random.Random, make: Callable[[random.Random], bytes]) -> bytes:
    octets = make(dice)
    return spoiled(dice, octets)[:65600] if dice.random() < 0.4 else octets


def from_a_peer(dice: random.Random) -> bytes:
    return outer(dice, UNDERLAYS + STRANGERS if dice.random() < 0.1 else UNDERLAYS)


# --- parts of it, beside the model ---------------------------------------------------------------------


def test_whatever_comes_both_name_the_same_flow() -> None:
    for dice in rounds(0.1):
        fast, slow = fast_spread.Trial(), model_spread.Trial()
        for clock in (0, 1, 400):
            packets = [octets for octets in (some(dice, inner) for _ in range(100)) if parsed(octets)]
            alike(packets, fast.identify(packets, clock), slow.identify(packets, clock))


def parsed(octets: bytes) -> bytes | None:
    """As the path sees it; None: it sees nothing."""
    try:
        return parse(octets)
    except Dropped:
        return None


def split(octets: bytes, gso: int, size: int, start: int, offset: int) -> list[bytes] | int:
    try:
        return model_offload.split(octets, gso, size, start, offset)
    except Dropped as dropped:
        return int(dropped.reason)


def finish(octets: bytes, start: int, offset: int) -> bytes | int:
    try:
        return model_offload.finish_checksum(octets, start, offset)
    except Dropped as dropped:
        return int(dropped.reason)


Offload = tuple[int, int, int, int]  # gso_type, gso_size, csum_start, csum_offset


def large(dice: random.Random) -> tuple[bytes, Offload]:
    """A packet that stands for many, as a kernel gives it, but for its checksum; and what it says beside it."""
    six = dice.random() < 0.5
    payload = dice.randbytes(dice.choice([1, 100, 3000, 20000, 65000]))
    ends = (VISITING[7], ANCHORED[5]) if six else (VISITING4[7], ANCHORED4[5])
    options = bytes([1] * 4 * dice.randrange(4))
    octets = segment(*ends, flags=dice.choice([0x10, 0x18, 0x90]), payload=payload, options=options)
    header = 40 if six else 20
    start, offset = dice.choice([(header, 16), (header, 16), (0, 0)])
    return octets, (4 if six else 1, dice.choice([1000, 1400, 65535]), start, offset)


def any_offload(dice: random.Random) -> Offload:
    size = dice.choice([0, 1, 8, 100, 1400, 65535]) if dice.random() < 0.5 else dice.randrange(1 << 16)
    start = dice.choice([0, 20, 40, 40, 48, 65535, dice.randrange(100)])
    return dice.choice(GSO), size, start, dice.choice([0, 6, 16, 16, 65535, dice.randrange(100)])


def with_offload(dice: random.Random) -> tuple[bytes, Offload]:
    """Right in all its parts, spoiled, or with offloads that do not belong to it."""
    octets, said = large(dice) if dice.random() < 0.5 else (inner(dice)[:3000], any_offload(dice))
    if dice.random() < 0.1:
        said = any_offload(dice)
    if dice.random() < 0.4:
        octets = spoiled(dice, octets)[:65600]
    gso, size, start, offset = said
    return octets, (gso, max(size, len(octets) // 200), start, offset)  # the model is slow: no packet for each octet


def test_whatever_comes_both_split_it_and_finish_it_alike() -> None:
    for dice in rounds(0.1):
        for _ in range(20):
            octets, said = with_offload(dice)
            assert fast_offload.split_packet(octets, *said) == split(octets, *said), (octets.hex(), said)
            assert fast_offload.finish_packet(octets, *said[2:]) == finish(octets, *said[2:]), (octets.hex(), said)


def test_whatever_comes_both_merge_it_alike() -> None:
    for dice in rounds(0.1):
        made = [some(dice, inner) for _ in range(10)]
        for octets, said in (large(dice) for _ in range(3)):
            pieces = split(octets, *said)
            made += pieces[:80] if isinstance(pieces, list) else []
        if dice.random() < 0.3:
            dice.shuffle(made)
        packets = [spoiled(dice, octets) if dice.random() < 0.03 else octets for octets in made][:256]
        packets = [octets[:65600] for octets in packets]
        may = dice.choice([31, 31, dice.randrange(32)])
        merged = [(each.virtio, each.packet, each.packets) for each in model_offload.Merger(may).merge(packets)]
        assert fast_offload.merge_packets(packets, None, may) == merged


# --- through descriptors, with offloads ----------------------------------------------------------------


class Mirror:
    """An engine whose every tunnel leads back to it: what its TUN takes in comes out of the TUN again, or dies.

    The TUN is one end of a socket pair, with virtio headers; `kernel` is the other. Underlays are on loopback.
    """

    ENDS = ((HERE, IPv6Address("::1")), (HERE4, IPv4Address("127.0.0.1")))

    def __init__(self, stack: ExitStack) -> None:
        self.tables = Tables()
        self.tables.open_idle_after = 7440.0
        self.engine = Engine(self.tables)
        self.tunnels: list[Tunnel] = []
        self.ways_in: list[tuple[Tunnel, socket.socket]] = []
        ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self.kernel):
            stack.enter_context(end)
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        tun_offloads = Offloads(udp_segment=False, udp_gro=False)
        self.add(stack, Port(fd=ours.fileno(), kind=PortKind.TUN, virtio=True, offloads=tun_offloads))
        for local, loopback in self.ENDS:
            self.open(stack, local, loopback)
        self.bundle = self.tables.bundle(self.paths())
        self.policy = self.tables.policy([])
        for prefix in self.prefixes():
            self.tables.bind(prefix, self.bundle, side=Side.ANCHOR, policy=self.policy)

    def prefixes(self) -> list[IPv6Network | IPv4Network]:
        return [ANCHORED, VISITING, IPv6Network(f"{CORRESPONDENT}/64", strict=False), ANCHORED4, VISITING4,
                IPv4Network(f"{CORRESPONDENT4}/24", strict=False)]  # fmt: skip

    def open(self, stack: ExitStack, local: Any, loopback: Any) -> None:
        udp = open_udp(loopback)
        sock: Any = udp.owner
        more = {"local": local, "remote": loopback}
        self.way(stack, udp, Tunnel(**more, encapsulation=Encapsulation.UDP, port=sock.getsockname()[1]))
        with suppress(NoRights):  # raw sockets; UDP is enough
            for port in open_ip(loopback):
                self.way(stack, port, Tunnel(**more, encapsulation=Encapsulation.IP))
            keys = {"key_in": 7, "key_out": 7} if loopback.version == 4 else {}
            self.way(stack, open_gre(loopback), Tunnel(**more, encapsulation=Encapsulation.GRE, sequence=True, **keys))

    def way(self, stack: ExitStack, port: Port, tunnel: Tunnel) -> None:
        stack.callback(port.close)
        self.add(stack, replace(port, local=tunnel.local))
        self.ways_in.append((tunnel, port.owner))  # type: ignore[arg-type]
        if tunnel not in self.tunnels:
            self.tunnels.append(tunnel)

    def add(self, stack: ExitStack, port: Port) -> None:
        self.engine.add_port(port)
        stack.callback(self.engine.remove_port, port)

    def paths(self, dice: random.Random | None = None) -> list[Path]:
        chosen = dice.sample(self.tunnels, dice.randint(1, len(self.tunnels))) if dice else self.tunnels
        return [Path(tunnel, bid=bid) for bid, tunnel in enumerate(chosen, 1)]

    def edit(self, dice: random.Random) -> None:
        """Other paths, other rules, a node that leaves for a while."""
        away = dice.choice(self.prefixes())
        if dice.random() < 0.3:
            self.tables.change(self.bundle, self.paths(dice))
        if dice.random() < 0.5:
            self.tables.change(self.policy, rules(dice) if dice.random() < 0.7 else [])
        if dice.random() < 0.3:
            self.tables.hold(away, buffer=HoldBuffer(octets=1 << 16, packets=30, seconds=dice.choice([0.0, 1.0])))
        else:
            self.tables.bind(away, self.bundle, side=Side.ANCHOR, policy=self.policy)

    def send(self, octets: bytes, said: Offload) -> bool:
        """To the engine, as a TUN gives it. False: there is no room."""
        gso, size, start, offset = said
        header = struct.pack("=BBHHHH", 1 if offset else 0, gso, 0, size, start, offset)
        try:
            return bool(self.kernel.send(header + octets))
        except BlockingIOError:
            return False

    def inject(self, dice: random.Random, octets: bytes) -> None:
        """To the engine, as a peer gives it, or not quite."""
        tunnel, sock = dice.choice(self.ways_in)
        flags = dice.choice([0, 0x1000, 0x3000, 0xB000, 1])
        if tunnel.encapsulation is Encapsulation.GRE:
            protocol = 0x86DD if octets[:1] >= b"\x60" else 0x0800
            fields = struct.pack("!HHII", flags, protocol, 7, dice.randrange(9))
            octets = fields[: 4 + 4 * (flags >> 12).bit_count()] + octets
        with suppress(OSError):
            sock.sendto(octets, (str(tunnel.remote), tunnel.port if tunnel.encapsulation is Encapsulation.UDP else 0))

    def delivered(self) -> Iterator[bytes]:
        """What the TUN has been given, large packets in pieces again."""
        for octets in drained(self.kernel):
            flags, gso, _, size, start, offset = struct.unpack_from("=BBHHHH", octets)
            assert flags == (1 if gso else 0)
            pieces = split(octets[10:], gso, size, start, offset) if gso else [octets[10:]]
            assert isinstance(pieces, list), octets.hex()
            yield from pieces


def as_comparable(octets: bytes) -> bytes:
    """Without what may change on the way: ECN; identification where it has no meaning (RFC 6864), header checksum."""
    if octets[0] >> 4 == 6:
        return octets[:1] + bytes([octets[1] & 0xCF]) + octets[2:]
    header = bytearray(octets[:20])
    header[1] &= 0xFC
    header[4:6] = header[10:12] = b"\0\0"
    return bytes(header) + octets[20:]


def is_error(octets: bytes) -> bool:
    """An ICMP error, which may be the engine's own."""
    if octets[0] >> 4 == 6:
        return octets[6] == ICMP6 and octets[40:41] < b"\x80"
    return octets[9] == ICMP


def legal(octets: bytes, said: Offload) -> Iterator[bytes]:
    """What may become of a packet from the TUN: what is behind its stated length may be cut off first, or last."""
    gso, _, start, offset = said
    for whole in {octets, parsed(octets) or b""}:
        made = split(whole, *said) if gso else [whole, finish(whole, start, offset)]
        packets = [parsed(piece) for piece in made if isinstance(piece, bytes)] if isinstance(made, list) else []
        yield from (as_comparable(packet) for packet in packets if packet is not None)


@contextmanager
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr("engine.ports.UDP_PORT", 0)  # any that is free
    with ExitStack() as stack:
        yield Mirror(stack)


def test_nothing_comes_out_that_did_not_go_in(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = tried = 0
    with mirror(monkeypatch) as mirrored:
        wanted: set[int] = set()  # hashes: of as many packets as come in minutes
        group = None
        for dice in rounds(0.2):
            for _ in range(dice.choice([1, 20, 60])):
                octets, said = with_offload(dice)
                if octets and mirrored.send(octets, said):
                    wanted.update(map(hash, legal(octets, said)))
                    tried += 1
            for _ in range(dice.choice([0, 5])):
                octets = some(dice, inner)
                mirrored.inject(dice, octets)
                wanted.update(hash(as_comparable(packet)) for packet in [parsed(octets)] if packet)
            settle(mirrored.engine)
            for packet in mirrored.delivered():
                assert is_error(packet) or hash(as_comparable(packet)) in wanted, packet.hex()
                passed += 1
            mirrored.edit(dice)
            if group is not None and dice.random() < 0.3:
                group = group.close()
            elif group is None and dice.random() < 0.5:
                numbered = [each.tunnel for each in mirrored.tables.tunnels() if each.tunnel.sequence]
                group = mirrored.tables.reorder(numbered, packets=16, octets=1 << 16) if numbered else None
    assert tried < 500 or passed > 100


# --- the sanitizers themselves -------------------------------------------------------------------------


@pytest.mark.skipif("OPENMAR_SANITIZE" not in os.environ, reason="only `make sanitize` watches")
@pytest.mark.parametrize("sanitizer", [b"__asan_report", b"__ubsan_handle"])
def test_under_make_sanitize_every_compiled_module_is_watched(sanitizer: bytes) -> None:
    modules = sorted(File(import_module("engine._fast.path").__file__ or "").parent.glob("*.so"))
    assert modules
    unwatched = [file.name for file in modules if sanitizer not in file.read_bytes()]
    assert unwatched == []
