"""The figures of a run as a picture: a panel for each pair of metrics, a group of two bars for each contender.

    TCP, 1 stream, Gbit/s                    UDP, kpkt/s
      no tunnel     ################ 20.1      no tunnel     ...
                    ############### 19.2
      openmar udp6  ######## 9.9

Thin lines: least to most of the rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.contenders import Kind
from bench.measures import METRIC, Metric
from bench.results import Report, Row, headline
from router.demo.svg import box, document, line, text

WIDTH = 960  # as all sizes here: units of the picture
MARGIN = 24
TOP = 64  # title and subtitle
COLUMNS = 2
GAP = 32  # between panels
PANEL_HEAD, PANEL_FOOT = 44, 22
LABELS = 150  # for names, left of the bars
VALUES = 56  # for numbers, right of the longest bar
BAR, BETWEEN = 9, 8  # height of a bar; between groups

STYLE = """
  .spread { stroke: #24292f; stroke-opacity: 0.6; }
  .direct { fill: #8c959f; } .kernel { fill: #9a6700; } .ours { fill: #0969da; } .bare { fill: #1a7f37; }
  .peer { fill: #bc4c00; } .second { fill-opacity: 0.5; }
  @media (prefers-color-scheme: dark) {
    .spread { stroke: #e6edf3; }
    .direct { fill: #8b949e; } .kernel { fill: #d29922; } .ours { fill: #58a6ff; } .bare { fill: #3fb950; }
    .peer { fill: #f0883e; }
  }
"""
CLASSES = {
    Kind.DIRECT: "direct",
    Kind.KERNEL: "kernel",
    Kind.OURS: "ours",
    Kind.BARE: "bare",
    Kind.PEER: "peer",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One small picture: metrics of one unit, and what its two bars are called."""

    title: str
    keys: tuple[str, ...]
    bars: tuple[str, ...]

    @property
    def metrics(self) -> list[Metric]:
        """Those it shows."""
        return [METRIC[key] for key in self.keys]


PANELS = (
    Panel("TCP, one stream", ("tcp_1_out", "tcp_1_back"), ("near to far", "far to near")),
    Panel("TCP, four streams", ("tcp_4_out", "tcp_4_back"), ("near to far", "far to near")),
    Panel("UDP, datagrams delivered", ("udp_small", "udp_large"), ("64 octets", "1300 octets")),
    Panel("Round trip of a lone ping", ("ping_median", "ping_p99"), ("median", "99th percentile")),
    Panel("CPU time of the machine for TCP", ("cpu",), ("all runs",)),
)


def draw(report: Report) -> str:
    """The picture, as the text of an SVG file."""
    rows = report.measured
    panel_width = (WIDTH - 2 * MARGIN - GAP * (COLUMNS - 1)) / COLUMNS
    body: list[str] = []
    y = float(TOP)
    for first in range(0, len(PANELS), COLUMNS):
        beside = PANELS[first : first + COLUMNS]
        for column, panel in enumerate(beside):
            body += draw_panel(panel, rows, MARGIN + column * (panel_width + GAP), y, panel_width)
        y += max(height(panel, rows) for panel in beside) + GAP
    bottom = y + MARGIN - GAP / 2
    return document(WIDTH, bottom, "Tunnels side by side", headline(report), STYLE, body)


def group_height(panel: Panel) -> int:
    """Height of one contender in a panel."""
    return BAR * len(panel.keys) + BETWEEN


def height(panel: Panel, rows: list[Row]) -> int:
    """Height of a panel."""
    return PANEL_HEAD + len(rows) * group_height(panel) + PANEL_FOOT


def draw_panel(panel: Panel, rows: list[Row], x: float, y: float, width: float) -> Iterator[str]:
    """Title, axis, groups of bars."""
    metrics = panel.metrics
    most = max((value for row in rows for metric in metrics for value in row_values(row, metric)), default=0) or 1.0
    scale = (width - LABELS - VALUES) / most
    better = "less is better" if metrics[0].less_is_better else "more is better"
    yield text(x, y + 14, panel.title, "panel")
    bars = " / ".join(panel.bars) + ": " if len(panel.bars) > 1 else ""
    yield text(x, y + 30, f"{bars}{unit(metrics[0])}, {better}", "quiet")
    left, top, bottom = x + LABELS, y + PANEL_HEAD, y + height(panel, rows) - PANEL_FOOT
    yield line(left, top, left, bottom, "axis")
    for number, row in enumerate(rows):
        yield from draw_group(panel, row, left, top + number * group_height(panel), scale)


def draw_group(panel: Panel, row: Row, left: float, y: float, scale: float) -> Iterator[str]:
    """The bars of one contender, from left on. scale: units of the picture for one of the metric."""
    middle = y + BETWEEN / 2 + BAR * len(panel.keys) / 2
    yield text(left - 8, middle + 4, row.title, anchor="end")
    medians = row.medians()
    for number, metric in enumerate(panel.metrics):
        top = y + BETWEEN / 2 + number * BAR
        length = medians[metric.key] * scale
        values = list(row_values(row, metric))
        second = " second" if number else ""
        shown = f"{medians[metric.key]:.{metric.digits}f}"
        tip = f"{row.title}, {metric.title}: {shown} {unit(metric)}"
        yield box(left, top + 0.5, length, BAR - 1, f"{CLASSES[row.kind]}{second}", tip)
        least, most = min(values) * scale + left, max(values) * scale + left
        yield line(least, top + BAR / 2, most, top + BAR / 2, "spread")
        yield text(max(left + length, most) + 4, top + BAR - 1, shown, "quiet", size=9)


def row_values(row: Row, metric: Metric) -> Iterator[float]:
    """Of every round."""
    return (sample.values[metric.key] for sample in row.samples)


def unit(metric: Metric) -> str:
    """As it is written in print."""
    return {"us": "µs", "kpkt/s": "thousand packets/s", "s/Gbit": "CPU seconds/Gbit"}.get(metric.unit, metric.unit)

