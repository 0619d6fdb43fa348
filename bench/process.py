"""What a process takes of the machine, by what the kernel tells of it (proc(5))."""

import os
from pathlib import Path

KIB = 1024
TICKS = os.sysconf("SC_CLK_TCK")  # of processor time, each second: what a figure is a multiple of


def memory(process: int) -> int:
    """Octets it has in memory (RSS)."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * KIB


def processor_time(process: int) -> float:
    """Of all its threads so far, in user space and in the kernel, s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
