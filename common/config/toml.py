"""Writing TOML. The standard library only reads it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_toml(table: Mapping[str, Any]) -> str:
    """A nested table of str, int, float, bool and lists of them as TOML text that reads back equal."""
    return "\n".join(_lines(table, ())) + "\n"


def write_toml(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(to_toml(table), encoding="utf-8")


def _lines(table: Mapping[str, Any], parents: tuple[str, ...]) -> list[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            path = (*parents, key)
            header = f"[{'.'.join(map(_key, path))}]"
            lines += ([""] if lines else []) + [header, *_lines(value, path)]
    return lines


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"no TOML for {type(value).__name__}: {value!r}")


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is and TOML refuses.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
