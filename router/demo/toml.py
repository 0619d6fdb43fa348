"""Tables as TOML text."""

import json
from collections.abc import Mapping
from typing import Any


def toml(tables: Mapping[str, Any]) -> str:
    """Tables, and lists of tables, of strings, numbers, truth values and lists; JSON writes these alike."""
    lines: list[str] = []
    for name, content in tables.items():
        several = isinstance(content, list)
        for table in content if several else [content]:
            lines.append(f"[[{name}]]" if several else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join([*lines, ""])
