"""Options from defaults, a TOML file and flags: defaults < file < flags."""

import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from common.config.base import COMMAND_FIELDS, Options
from common.config.compare import CompareFlags
from common.config.explain import explain
from common.config.flags import group_of, nearest, option_keys, parse_flags
from common.config.run import RunOptions
from common.config.scorer import ScorerOptions
from common.config.trainer import TrainerOptions
from common.errors import ConfigError

COMMANDS: dict[str, type[Options]] = {
    "run": RunOptions,
    "trainer": TrainerOptions,
    "scorer": ScorerOptions,
    "compare": CompareFlags,
}

Kind = TypeVar("Kind", bound=Options)


def load_options(kind: type[Kind], argv: Sequence[str] | None = None, *, prog: str | None = None) -> Kind:
    """The options of one command.

    Args:
        kind: RunOptions, TrainerOptions, ScorerOptions or CompareFlags.
        argv: flags; those of this process by default.
        prog: name of the command in messages.

    Raises:
        ConfigError: names the flag, or file and key, with the value seen and what would be right.
        SystemExit: after `--help`.
    """
    command = next((name for name, other in COMMANDS.items() if other is kind), "")
    prog = prog or f"marginstream {command}".strip()
    elsewhere = {name: other for name, other in COMMANDS.items() if other is not kind}
    flags = parse_flags(kind, sys.argv[1:] if argv is None else argv, prog=prog, elsewhere=elsewhere)
    path = flags.get("config")
    table = read_file(kind, Path(path)) if path is not None else {}
    _let_flags_decide(table, flags)
    try:
        return kind.model_validate(merge_tables(table, flags))
    except ValidationError as error:
        raise ConfigError(explain(error, kind, table, flags, path)) from error


def read_file(kind: type[Options], path: Path) -> dict[str, Any]:
    """The options in a TOML file that are `kind`'s, unchecked. Those of other commands are left out.

    One file serves run, trainer and scorer. Paths in it are relative to the working folder, like those in flags.

    Raises:
        ConfigError: no such file, no TOML, or a key that no command has.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    _refuse_unknown_keys(table, [kind, *COMMANDS.values()], path)
    return {name: value for name, value in table.items() if name in kind.model_fields}


def _refuse_unknown_keys(
    table: Mapping[str, Any], kinds: Sequence[type[Options]], path: Path, prefix: str = ""
) -> None:
    fields = {name: field for kind in kinds for name, field in kind.model_fields.items() if name not in COMMAND_FIELDS}
    for name, value in table.items():
        key = prefix + name
        if name in COMMAND_FIELDS and not prefix:
            raise ConfigError(f"{path}: {key} is a flag only and cannot be set in a file")
        if name not in fields:
            known = option_keys(kinds[0]) if prefix else [key for kind in kinds for key in option_keys(kind)]
            meant = nearest(
                name.replace("-", "_"), [known_key for known_key in known if known_key not in COMMAND_FIELDS]
            )
            remedy = f"did you mean {prefix}{meant}?" if meant else "marginstream run --help lists the options"
            raise ConfigError(f"{path}: unknown option {key}; {remedy}")
        group = group_of(fields[name].annotation)
        if group and isinstance(value, dict):
            _refuse_unknown_keys(value, [group], path, f"{key}.")


def _let_flags_decide(table: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """A flag for mode or method overrides the other one in the file where the two would contradict each other."""
    for one, other in (("mode", "method"), ("method", "mode")):
        if one in flags and other not in flags and (flags[one] == "uniform") != (table.get(other) == "uniform"):
            table.pop(other, None)


def merge_tables(table: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables of options; what stands in `flags` wins."""
    merged = dict(table)
    for name, value in flags.items():
        below = merged.get(name)
        merged[name] = (
            merge_tables(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return merged
