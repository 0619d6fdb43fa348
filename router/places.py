"""What a router is called, where it keeps its state and its control socket, if not told otherwise. Cheap to import."""

import os
import shlex
import sys
from enum import Enum
from pathlib import Path

from router.errors import ConfigError, NotRunning

DEFAULT_NAME = "mar"


class RoleName(Enum):
    """What a router is, chosen on the command line. Also its name, unless it has another."""

    MAR = "mar"
    LMA = "lma"
    MAG = "mag"
    CMD = "cmd"


def default_state_dir() -> Path:
    """/var/lib/openmar for root, the user's state directory (XDG) for anybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/openmar")
    return Path(os.environ.get("XDG_STATE_HOME") or _home() / ".local/state") / "openmar"


def default_run_dir() -> Path:
    """/run/openmar for root, the user's runtime directory (XDG) or else the state directory for anybody else."""
    if os.geteuid() == 0:
        return Path("/run/openmar")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "openmar" if runtime else default_state_dir()


def default_socket(name: str = DEFAULT_NAME) -> Path:
    """The control socket of the router with this name."""
    return default_run_dir() / f"{name}.sock"


def found_socket() -> Path:
    """The control socket of the only router there is; of several, that with the default name. Raises NotRunning."""
    default, there = default_socket(), sorted(default_run_dir().glob("*.sock"))
    if len(there) == 1:
        return there[0]
    if there and default not in there:
        names = ", ".join(each.stem for each in there)
        raise NotRunning(f"{default_run_dir()}: there are several routers: {names}: say which with --name")
    return default


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        cure = "set HOME, or give --state-dir and --socket"
        raise ConfigError(f"home directory: user {os.geteuid()} has none: {cure}") from None


def started_as() -> str:
    """What this program is called, in its help."""
    return "openmar" if Path(sys.argv[0]).name == "openmar" else "python -m router"


def program() -> str:
    """How this program was started, for a line that somebody will copy."""
    return shlex.quote(sys.argv[0]) if started_as() == "openmar" else f"{shlex.quote(sys.executable)} -m router"
