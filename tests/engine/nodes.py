"""The little world of the engine's tests: three routers, a prefix on each side, and the packets between them."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from engine import Encapsulation, Side, Tables, Tunnel

HERE, ELSEWHERE, STRANGER = (IPv6Address(f"2001:db8:{n}::1") for n in ("a1", "a2", "bad"))
ANCHORED = IPv6Network("2001:db8:a1:100::/64")
VISITING = IPv6Network("2001:db8:a2:200::/64")
HELD = IPv6Network("2001:db8:a1:101::/64")
CORRESPONDENT = IPv6Address("2001:db8:cccc::80")
TUNNEL = Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.UDP)
OTHER = Tunnel(local=HERE, remote=IPv6Address("2001:db8:a3::1"), encapsulation=Encapsulation.UDP)


def fill(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(VISITING, TUNNEL, side=Side.ACCESS)
    tables.hold(HELD)


def packet(
    source: IPv6Address,
    destination: IPv6Address,
    *,
    payload: bytes = b"payload!",
    traffic_class: int = 0,
    hop_limit: int = 63,
    payload_length: int | None = None,
) -> bytes:
    """An IPv6 packet with no next header (59)."""
    length = len(payload) if payload_length is None else payload_length
    head = (6 << 28 | traffic_class << 20).to_bytes(4, "big") + length.to_bytes(2, "big") + bytes([59, hop_limit])
    return head + source.packed + destination.packed + payload


DOWN = packet(CORRESPONDENT, ANCHORED[5])  # to a node of ours that is away
UP = packet(VISITING[7], CORRESPONDENT)  # from a node that visits us
BACK = packet(ANCHORED[5], CORRESPONDENT)  # out of the tunnel at the anchor
HOME = packet(CORRESPONDENT, VISITING[7])  # out of the tunnel where the node is
