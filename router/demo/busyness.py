"""What other programs took of this machine while a demo ran: milliseconds that are promised are those of an idle one.

That is what all programs took by /proc/stat (and a hypervisor; not interrupts, as it is not known for whom they were),
less what this process took and its children, once those have ended.
"""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
TOOK = (0, 1, 2, 7)  # fields of a processor there: user, nice, system, steal
BUSY = 0.2  # of all processors: from here on a packet may wait for a turn, whatever we do


class Meter:
    """Begins to count when it is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all, self._own = _taken_by_all(), _taken_by_us()

    def others(self) -> float:
        """The share of all processors that others took since then, 0 to 1. Ask when our children have ended."""
        available = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        taken = (_taken_by_all() - self._all) - (_taken_by_us() - self._own)
        return min(1.0, max(0.0, taken / available)) if available else 0.0


def _taken_by_all() -> float:
    """Seconds of processors since the machine was started; 0 where that is not told."""
    try:
        fields = STAT.read_text().split("\n", 1)[0].split()[1:]
        return sum(int(fields[at]) for at in TOOK) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _taken_by_us() -> float:
    return sum(os.times()[:4])
