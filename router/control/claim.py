"""The control socket becomes ours before anybody is answered; the server that answers there is loaded later.

Loading it takes a quarter of a second, in which the peers of a router that was restarted would wait.
"""

import errno
import os
import socket
import stat
from pathlib import Path

from router.errors import InUse, NoRights, RouterError


def claim(path: Path) -> socket.socket:
    """A socket that listens there: who connects waits until it is served. Raises InUse, NoRights."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _make_way(path)
        path.parent.mkdir(exist_ok=True)  # one, as /run/openmar: a path of more that are not there is a typo
        before = os.umask(0o117)  # 0660 from the first moment on
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen()
    except OSError as error:
        listener.close()
        kind = InUse if error.errno == errno.EADDRINUSE else NoRights
        # a path that is too long never reaches the kernel, and has no number
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise kind(f"control socket {path}: {why}: choose another with --socket") from None
    except RouterError:
        listener.close()
        raise
    return listener


def _make_way(path: Path) -> None:
    """Remove the socket of a router that is dead. Raises InUse if somebody listens, or it is no socket; OSError."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return  # it is not there; if it is worse, binding will say why
    if not is_socket:
        raise InUse(f"control socket {path}: a file is there that is no socket: remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # so many wait to be accepted that we may not: somebody listens, or did not yet stop to
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            return
    raise InUse(f"control socket {path}: another router listens there: stop it, or choose another with --socket")
