"""The folder of a comparison: whose it is, what it was made with, and who works in it."""

import contextlib
import os
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.config import to_toml
from common.config.base import COMMAND_FIELDS
from common.config.compare import CompareOptions
from common.errors import ConfigError
from common.experiment.display import short
from common.locks import try_lock
from common.whole_files import replace_file

COMPARE, LOCK = "compare.toml", ".lock"
OURS = frozenset({COMPARE, LOCK, "runs", "pilots", "results.json", "report.html", "figures"})
MAY_CHANGE = frozenset(
    {"arms", "equal_cores", "seeds", "targets", "out"}
)  # every run is checked by itself; the rest all runs share


def default_folder(data: str, method: str) -> Path:
    """`runs/compare-DATA-METHOD-TIME`."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{data}-{method}").strip("-.")
    return Path("runs") / f"compare-{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def as_table(options: CompareOptions, folder: Path) -> dict[str, Any]:
    """What compare.toml holds: the options of the comparison, and of the runs those that were given."""
    own = {name: getattr(options, name) for name in CompareOptions.model_fields if name not in COMMAND_FIELDS}
    return _plain(own | {"out": folder} | options.given)


@contextlib.contextmanager
def claimed(folder: Path, options: CompareOptions) -> Iterator[None]:
    """Makes the folder, or goes on in one of the same comparison; nobody else works in it meanwhile.

    Raises:
        ConfigError: it holds something else, a comparison with other options, or one that is going on.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ConfigError(f"--out: cannot use {folder} as a folder: {error.strerror}") from error
    if foreign := [name for name in present if name not in OURS and not name.startswith(".")]:
        raise ConfigError(
            f"--out: {short(folder)} holds {foreign[0]}, which is of no comparison; choose another folder"
        )
    with (folder / LOCK).open("ab") as lock:
        if not try_lock(lock):
            raise ConfigError(
                f"--out: another marginstream compare is at work in {short(folder)}; let it end, or end it"
            )
        table = as_table(options, folder)
        if (folder / COMPARE).exists():
            _check_same(folder, table)
        replace_file(folder / COMPARE, to_toml(table))
        yield


def _check_same(folder: Path, table: Mapping[str, Any]) -> None:
    try:
        before = tomllib.loads((folder / COMPARE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / COMPARE} cannot be read: {error}; remove the folder or choose another") from error
    old, new = _flat(before), _flat(table)
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in MAY_CHANGE and old.get(key) != new.get(key):
            raise ConfigError(
                f"--out: {short(folder)} holds a comparison with {key} {_show(old.get(key))}, and now it is "
                f"{_show(new.get(key))}; give it the same options to go on with it, choose another folder, "
                f"or remove this one (rm -r {short(folder)})"
            )


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, os.PathLike):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    return "not given" if value is None else str(value)
