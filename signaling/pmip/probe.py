"""What two routers tell each other about the paths between them, in Vendor-Specific options (RFC 5094) of Heartbeats.

Subtype 1, probe: once, about the path that it travels. All fields in network order.

    0        1        2                 4                 6
    | BID    | T E v  | number          | interval (ms)   | loss (per mille)|
    8                                   12                                  16
    | timestamp (us)                    | echo (us)                         | held (us)      ... 20

    T: there is traffic. E: echo and held are valid. v: how the sender sees the path (0 up, 1 suspect, 2 down).
    interval: after which the sender's next probe leaves. echo: the newest timestamp of the other end; held: how
    long ago it came. loss: of the last probes toward the sender.

Subtype 2, report: as often as needed, 8 octets for each of the other paths.

    | BID    | view   | loss (per mille)| round trip (0.1 ms)   | jitter (0.1 ms)   |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.settings import WayState
from signaling.wire.codec import NUMBER, Bits, Field, Layout, bits, flag
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.vendor import VendorSpecific

VENDOR = 32473  # the enterprise number for examples (RFC 5612): this project has none of its own
PROBE, REPORT = 1, 2  # subtypes
REPORTS_IN_AN_OPTION = 31  # 255 octets less 5, 8 for each
CLOCK = 1 << 32  # timestamps wrap around after so many us

_VIEWS = (WayState.UP, WayState.SUSPECT, WayState.DOWN)


def _read_view(number: int) -> WayState:
    if number >= len(_VIEWS):
        raise ValueError(f"view {number}, at most {len(_VIEWS) - 1}")
    return _VIEWS[number]


def _capped(unit: float, octets: int) -> Field:
    """Seconds on this side, so many units on the wire; what is too long counts as the longest."""
    most = (1 << 8 * octets) - 1
    return Field(lambda number: number * unit, lambda seconds: min(most, round(seconds / unit)))


VIEW = Field(_read_view, _VIEWS.index)
MILLISECONDS = _capped(1e-3, 2)
TENTHS = _capped(1e-4, 2)
MICROSECONDS = _capped(1e-6, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What an end of a path says about it. Times in s, timestamps in us modulo 2**32."""

    LAYOUT: ClassVar[Layout] = Layout(
        "probe",
        "BBHHHIII",
        binding_id=NUMBER,
        _flags=Bits(traffic=flag(0x80), echoes=flag(0x40), view=bits(0x03, VIEW)),
        number=NUMBER,
        interval=MILLISECONDS,
        loss=NUMBER,
        timestamp=NUMBER,
        echo=NUMBER,
        held=MICROSECONDS,
    )

    binding_id: int
    number: int  # 16 bits, one more each time
    interval: float
    timestamp: int
    view: WayState = WayState.UP
    traffic: bool = False
    loss: int = 0  # per mille
    echoes: bool = False
    echo: int = 0
    held: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PathReport:
    """What an end of a path says about another one. Times in s."""

    LAYOUT: ClassVar[Layout] = Layout(
        "report",
        "BBHHH",
        binding_id=NUMBER,
        _view=Bits(view=bits(0x03, VIEW)),
        loss=NUMBER,
        round_trip=TENTHS,
        jitter=TENTHS,
    )

    binding_id: int
    view: WayState
    loss: int  # per mille
    round_trip: float
    jitter: float


def options_of(probe: Probe, reports: list[PathReport]) -> tuple[VendorSpecific, ...]:
    """The options that carry them."""
    written = [PathReport.LAYOUT.write(report) for report in reports]
    chunks = [written[at : at + REPORTS_IN_AN_OPTION] for at in range(0, len(written), REPORTS_IN_AN_OPTION)]
    return (
        VendorSpecific(vendor=VENDOR, subtype=PROBE, data=Probe.LAYOUT.write(probe)),
        *(VendorSpecific(vendor=VENDOR, subtype=REPORT, data=b"".join(chunk)) for chunk in chunks),
    )


def carries_probe(beat: Heartbeat) -> bool:
    """Whether there is a probe in it, intact or not."""
    return any(it.vendor == VENDOR and it.subtype == PROBE for it in beat.options_of(VendorSpecific))


def probe_of(beat: Heartbeat) -> Probe:
    """The probe in it. Raises ValueError if it is broken, or not there once."""
    (data,) = (it.data for it in beat.options_of(VendorSpecific) if it.vendor == VENDOR and it.subtype == PROBE)
    return Probe(**Probe.LAYOUT.read(data))


def reports_of(beat: Heartbeat) -> list[PathReport]:
    """The reports in it. Raises ValueError if one is broken."""
    size = PathReport.LAYOUT.size
    return [
        PathReport(**PathReport.LAYOUT.read(it.data[at : at + size]))
        for it in beat.options_of(VendorSpecific)
        if it.vendor == VENDOR and it.subtype == REPORT
        for at in range(0, len(it.data), size)
    ]


def microseconds(seconds: float) -> int:
    """A time as timestamps tell it."""
    return int(seconds * 1e6) % CLOCK


def between(earlier: int, later: int) -> float:
    """Seconds from one timestamp to another; negative if it is the other way round."""
    difference = (later - earlier) % CLOCK
    return (difference - CLOCK if difference >= CLOCK // 2 else difference) / 1e6
