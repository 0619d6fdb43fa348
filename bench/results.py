"""What a run found: samples of every contender, their medians, how they compare, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from bench.contenders import Contender, Kind
from bench.measures import LARGE, METRICS, PING_INTERVAL, SMALL, Sample, Settings, Tools
from bench.wire import LINK_MTU, OVERLAY_MTU
from router._version import __version__

FORMAT = 1  # of the JSON; another number when a key changes its meaning
VERSIONS = {  # how programs are asked for their versions
    "iperf3": ("iperf3", "--version"),
    "iproute2": ("ip", "-V"),
    "fastd": ("fastd", "--version"),
    "openvpn": ("openvpn", "--version"),
    "wireguard-go": ("wireguard-go", "--version"),
    "cc": ("cc", "--version"),
}
Medians = dict[str, float]  # by key of METRICS


@dataclass(slots=True)
class Row:
    """A contender, and what it did; or why it did nothing."""

    name: str
    title: str
    kind: Kind
    samples: list[Sample] = field(default_factory=list)
    skipped: str = ""
    failures: list[str] = field(default_factory=list)  # a line for each round that failed

    @classmethod
    def of(cls, contender: Contender) -> Row:
        """An empty one."""
        return cls(contender.name, contender.title, contender.kind)

    def medians(self) -> Medians:
        """Of each metric over the rounds; empty if none succeeded."""
        if not self.samples:
            return {}
        return {metric.key: median(sample.values[metric.key] for sample in self.samples) for metric in METRICS}


@dataclass(slots=True)
class Report:
    """One run."""

    settings: Settings
    tools: Mapping[str, str]  # what is measured -> by which program
    rows: list[Row]
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    began: str = ""  # ISO 8601, UTC

    @property
    def measured(self) -> list[Row]:
        """The rows that have samples."""
        return [row for row in self.rows if row.samples]

    def references(self) -> dict[str, Medians]:
        """What the others are compared with; the best peer is the best in each metric, not one program."""
        single = (Kind.DIRECT, Kind.KERNEL, Kind.BARE)
        found = {row.name: row.medians() for row in self.measured if row.kind in single}
        if peers := [row.medians() for row in self.measured if row.kind is Kind.PEER]:
            found["best peer"] = best(peers)
        return found


def new_report(settings: Settings, tools: Tools, contenders: list[Contender]) -> Report:
    """A report about this machine, now, without samples."""
    return Report(
        settings=settings,
        tools=tools.names,
        rows=[Row.of(each) for each in contenders],
        machine=machine(),
        versions=versions(),
        began=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def best(of: list[Medians]) -> Medians:
    """The best value of each metric."""
    if not of:
        return {}
    return {
        metric.key: (min if metric.less_is_better else max)(medians[metric.key] for medians in of) for metric in METRICS
    }


def ratios(medians: Medians, reference: Medians) -> Medians:
    """Each value, divided by that of the reference."""
    return {key: value / reference[key] for key, value in medians.items() if reference.get(key)}


# The machine


def machine() -> dict[str, Any]:
    """CPU model, how many, kernel, and how busy it is already."""
    about = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", about, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),  # processes that ran in the minute before
    }


@cache
def versions() -> dict[str, str]:
    """Of ourselves, Python, and the programs that are installed."""
    found = {"openmar": __version__, "python": platform.python_version()}
    for name, command in VERSIONS.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found[name] = ((done.stdout or done.stderr).splitlines() or [""])[0].strip()
    return found


# Rendering


def as_json(report: Report) -> str:
    """All of it: samples, medians, ratios, and what they were measured with."""
    references = report.references()
    contenders = []
    for row in report.rows:
        medians = row.medians()
        contenders.append(
            {
                "name": row.name,
                "title": row.title,
                "kind": row.kind.value,
                "skipped": row.skipped or None,
                "failures": row.failures,
                "samples": [asdict(sample) for sample in row.samples],
                "medians": medians,
                "ratios": {name: ratios(medians, reference) for name, reference in references.items()},
            }
        )
    return json.dumps({**about(report), "contenders": contenders}, indent=1) + "\n"


def about(report: Report) -> dict[str, Any]:
    """All but the figures."""
    return {
        "format": FORMAT,
        "began": report.began,
        "machine": dict(report.machine),
        "versions": dict(report.versions),
        "settings": {
            **asdict(report.settings),
            "ping_interval": PING_INTERVAL,  # s
            "link_mtu": LINK_MTU,  # octets, as all sizes here
            "overlay_mtu": OVERLAY_MTU,
            "udp_payloads": {"udp_small": SMALL, "udp_large": LARGE},
        },
        "tools": dict(report.tools),
        "metrics": {metric.key: asdict(metric) for metric in METRICS},
    }


def table(report: Report) -> str:
    """Medians, then how they compare with each reference, for people."""
    lines = [headline(report), ""]
    lines += block("median", {row.name: row.medians() for row in report.measured}, lambda metric: metric.digits)
    for name, reference in report.references().items():
        compared = {row.name: ratios(row.medians(), reference) for row in report.measured}
        lines += ["", *block(f"/ {name}", compared, lambda _: 2)]
    lines += ["", f"less is better: {', '.join(metric.title for metric in METRICS if metric.less_is_better)}"]
    lines += [f"{row.name}: skipped: {row.skipped}" for row in report.rows if row.skipped]
    lines += [f"{row.name}: failed: {failure}" for row in report.rows for failure in row.failures]
    return "\n".join(lines)


def headline(report: Report) -> str:
    """Where and how it was measured."""
    machine, settings = report.machine, report.settings
    return (
        f"{machine.get('cpus', '?')} x {machine.get('cpu', '?')}, Linux {machine.get('kernel', '?')}; "
        f"{settings.rounds} rounds of {settings.seconds:g} s; MTU {OVERLAY_MTU} in the tunnel, {LINK_MTU} on the wire"
    )


def block(title: str, rows: Mapping[str, Medians], digits: Any) -> list[str]:
    """Lines of a table: a row for each contender, a column for each metric."""
    names = max(map(len, (title, *rows)))
    widths = [max(len(metric.title), len(metric.unit), 7) for metric in METRICS]
    heads = zip(METRICS, widths, strict=True)
    lines = [f"{title:{names}}  " + "  ".join(f"{metric.title:>{width}}" for metric, width in heads)]
    if not title.startswith("/"):
        heads = zip(METRICS, widths, strict=True)
        lines.append(" " * names + "  " + "  ".join(f"{metric.unit:>{width}}" for metric, width in heads))
    for name, values in rows.items():
        cells = cells_of(values, widths, digits)
        lines.append(f"{name:{names}}  " + "  ".join(cells))
    return lines


def cells_of(values: Medians, widths: list[int], digits: Any) -> Iterator[str]:
    """Numbers, right-aligned; a dash where there is none."""
    for metric, width in zip(METRICS, widths, strict=True):
        value = values.get(metric.key)
        yield f"{'-':>{width}}" if value is None else f"{value:{width}.{digits(metric)}f}"
