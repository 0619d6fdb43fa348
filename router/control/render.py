"""Values -> plain data -> text for people: aligned columns, one line an event."""

from collections.abc import KeysView, Mapping, Sequence
from datetime import datetime
from typing import Any

UNITS = {"attached": "s", "heard": "s", "since": "s", "expires": "s", "silence": "s"}  # of columns


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as aligned columns under their names; "none" when there are none."""
    if not rows:
        return "none"
    head = list(rows[0])
    lines = [[_title(name) for name in head], *([cell(row[name]) for name in head] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _title(name: str) -> str:
    title = name.replace("_", " ")
    return f"{title} ({UNITS[name]})" if name in UNITS else title


def cell(value: object) -> str:
    """One value."""
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ",".join(map(cell, value))
    if isinstance(value, dict):
        return "/".join(map(cell, value.values()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def plain(value: object) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple | list | KeysView | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return str(getattr(value, "value", value))


def line(event: Mapping[str, Any]) -> str:
    """One event of the monitor: 12:34:56.789 pbu-sent node=mn1@example.net ..."""
    at = datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S.%f")[:-3]
    rest = " ".join(f"{key}={cell(value)}" for key, value in event.items() if key not in ("time", "event"))
    return f"{at} {event['event']:<18} {rest}".rstrip()
