"""TCP maximum segment size held down to what the tunnel takes: specification of _fast/clamp.pyx.

Not a standard; RFC 4459 3.2 calls it a hack. Only SYN segments, only downward, never added, checksum updated
(RFC 1624).
"""

from __future__ import annotations

SYN = 0x02
END, NOTHING, MAXIMUM_SEGMENT_SIZE = 0, 1, 2  # TCP options, RFC 9293 3.2


def clamp(packet: bytes, transport: int, mtu: int) -> bytes:
    """Packet with an MSS for packets of mtu octets. transport: octets to its TCP header."""
    most = mtu - (40 if packet[0] >> 4 == 6 else 20) - 20
    tcp = packet[transport:]
    if most <= 0 or len(tcp) < 20 or not tcp[13] & SYN or len(tcp) < 4 * (tcp[12] >> 4):
        return packet
    at = _find(tcp[: 4 * (tcp[12] >> 4)])
    if at is None or int.from_bytes(tcp[at : at + 2], "big") <= most:
        return packet
    changed = tcp[:at] + most.to_bytes(2, "big") + tcp[at + 2 :]
    before, after = (int.from_bytes(part[at : at + 2], "big" if at % 2 == 0 else "little") for part in (tcp, changed))
    total = (int.from_bytes(tcp[16:18], "big") ^ 0xFFFF) + (before ^ 0xFFFF) + after  # RFC 1624 3
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:transport] + changed[:16] + (total ^ 0xFFFF).to_bytes(2, "big") + changed[18:]


def _find(header: bytes) -> int | None:
    """Where the value of the MSS option stands; None: no such option, or a malformed list."""
    at = 20
    while at < len(header):
        if header[at] == END:
            return None
        if header[at] == NOTHING:
            at += 1
            continue
        if at + 2 > len(header) or header[at + 1] < 2 or at + header[at + 1] > len(header):
            return None
        if header[at] == MAXIMUM_SEGMENT_SIZE and header[at + 1] == 4:
            return at + 2
        at += header[at + 1]
    return None
