"""The compiled path, if it is built: all of it or nothing, so that no half-built tree runs half a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine._fast.path import Path as FastPath
    from engine._fast.queues import Queues as FastQueues
    from engine._fast.tables import Tables as FastTables

Path: type[FastPath] | None
Queues: type[FastQueues] | None
Tables: type[FastTables] | None

try:
    from engine._fast.path import Path
    from engine._fast.queues import Queues
    from engine._fast.tables import Tables
except ImportError:
    Path = Queues = Tables = None

available: bool = Path is not None
