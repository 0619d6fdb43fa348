"""What can go wrong in the router, and the exit code each kind ends the program with.

Every message is one line that says what failed, where, why, and what cures it; nobody parses its text.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `python -m router`, the same for every command."""

    DONE = 0
    FAILED = 1  # the running router refused, or a promise of the demo did not hold
    USAGE = 2  # command line or configuration is wrong; nothing was opened
    NOT_RUNNING = 3  # no router answers on the control socket
    TIMED_OUT = 4
    NO_RIGHTS = 5  # a privilege or a device is missing
    IN_USE = 7  # an address, port or socket is taken by somebody else
    ALREADY_RUNNING = 8  # another router runs on the same state directory
    NO_INTERFACE = 9  # a named interface or address does not exist here


class RouterError(Exception):
    """Root of all errors of the router package."""

    exit_code: ExitCode = ExitCode.FAILED


class ConfigError(RouterError):
    """The configuration cannot be used; each line of the message is one `file:line: key: what was expected`."""

    exit_code = ExitCode.USAGE


class NotRunning(RouterError):  # noqa: N818 - the names say what happened
    """Nobody listens on the control socket."""

    exit_code = ExitCode.NOT_RUNNING


class TimedOut(RouterError):  # noqa: N818
    """The router did not answer in time."""

    exit_code = ExitCode.TIMED_OUT


class NoRights(RouterError):  # noqa: N818
    """A capability, a namespace right or a device is missing."""

    exit_code = ExitCode.NO_RIGHTS


class InUse(RouterError):  # noqa: N818
    """An address, port or socket belongs to somebody else."""

    exit_code = ExitCode.IN_USE


class AlreadyRunning(RouterError):  # noqa: N818
    """Another router holds the lock of this state directory."""

    exit_code = ExitCode.ALREADY_RUNNING


class NoInterface(RouterError):  # noqa: N818
    """A named interface, or the underlay address, does not exist on this machine."""

    exit_code = ExitCode.NO_INTERFACE
