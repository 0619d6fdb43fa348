"""The restart counter of a router (RFC 5847 3.4), in a file of its own: it outlives the sessions it is about."""

import logging
import time
from pathlib import Path

from router.errors import NoRights

log = logging.getLogger(__name__)

LARGEST = 0xFFFFFFFF


def restart_counter(file: Path, *, lost: bool) -> int:
    """The counter of this start. lost: sessions of the last run are gone, so it is one more. Raises NoRights.

    The first counter follows the wall clock. So one that was lost with its file does not begin with a number again that
    a peer remembers, unless this router had restarted more than once a second.
    """
    before = _read(file)
    if before is not None and not lost:
        return before
    counter = int(time.time()) & LARGEST if before is None else (before + 1) & LARGEST
    temporary = file.with_suffix(".new")
    try:
        temporary.write_text(f"{counter}\n")
        temporary.replace(file)
    except OSError as error:
        raise NoRights(f"{file}: {error.strerror}: make it writable, or choose another --state-dir") from None
    return counter


def last_counter(file: Path) -> int:
    """The counter of the run that goes on; 0: there was none."""
    return _read(file) or 0


def _read(file: Path) -> int | None:
    try:
        counter = int(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: %s: counting again from the wall clock", file, error)
        return None
    return counter if 0 <= counter <= LARGEST else None
