"""`python -m router capture` as a process, for tests of what it writes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.demo.lab import PROJECT


@contextmanager
def capturing(socket: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The command, once the router with this control socket captures. arguments: TUNNEL FILE and flags."""
    command = [sys.executable, "-m", "router", "capture", *arguments, "--socket", str(socket)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == f"capturing {arguments[0]}: Ctrl-C ends it\n"
        yield process
    finally:
        process.kill()
        process.communicate()
