"""The engine in plain Python: specification of _fast, and what runs where nothing is compiled. Read path.py first."""

from typing import TYPE_CHECKING, TypeAlias

from engine.model.path import Path
from engine.model.tables import ACCESS, ANCHOR, HELD, BindingRow, PathRow, Tables, TunnelRow

if TYPE_CHECKING:
    from engine._fast.path import Path as FastPath
    from engine._fast.tables import Tables as FastTables

AnyPath: TypeAlias = "Path | FastPath"
AnyTables: TypeAlias = "Tables | FastTables"

__all__ = ["ACCESS", "ANCHOR", "HELD", "AnyPath", "AnyTables", "BindingRow", "Path", "PathRow", "Tables", "TunnelRow"]
