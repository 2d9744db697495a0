"""What a finished run left in its folder, read back."""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config import RunOptions
from common.errors import ConfigError
from common.run_folder import ENVIRONMENT, METRICS, OPTIONS, SUMMARY

AGREEMENT = "agreement.jsonl"
PILOTS = "pilots"  # folder of a comparison with runs that only measured what a step takes


@dataclass(frozen=True)
class RunRecord:
    """One run that ended in order.

    Attributes:
        folder: absolute.
        options: resolved; those of scorers are defaults where the trainer was started on its own. `trainers` is the
            number of ranks that ended the run, whoever started them.
        summary: summary.json.
        metrics: rows of metrics.jsonl, each with `step` and `wall_s`.
        agreement: rows of agreement.jsonl; empty where nothing was audited.
        environment: environment.json; empty where there is none.
    """

    folder: Path
    options: RunOptions
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    agreement: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FailedRun:
    """One run that has no record: it failed, or has not run yet where `error` is None."""

    folder: Path
    seed: int
    error: str | None = None


def load_record(folder: Path) -> RunRecord:
    """The record in a run folder.

    Raises:
        ConfigError: no such folder, no run folder, a run that has not ended, or a damaged file.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name a run folder, such as runs/digits-mms-stale-TIME")
    if not (folder / OPTIONS).is_file():
        raise ConfigError(f"{folder} is no run folder: it holds no {OPTIONS}")
    if not (folder / SUMMARY).is_file():
        raise ConfigError(f"{folder} holds a run that has not ended in order: there is no {SUMMARY}")
    agreement = folder / AGREEMENT
    environment = folder / ENVIRONMENT
    summary = _table(folder / SUMMARY)
    num_ranks = len(summary.get("ranks") or ()) or 1
    return RunRecord(
        folder=folder.absolute(),
        options=read_options(folder / OPTIONS).model_copy(update={"trainers": num_ranks}),
        summary=summary,
        metrics=_rows(folder / METRICS),
        agreement=_rows(agreement) if agreement.is_file() else [],
        environment=_table(environment) if environment.is_file() else {},
    )


def read_options(path: Path) -> RunOptions:
    """The resolved options of a run.

    Raises:
        ConfigError: unreadable, or written by a version with other options.
    """
    try:
        return RunOptions.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path} holds options of another version of marginstream: {key}: {first['msg']}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _table(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; the run folder is damaged") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a table, got {type(value).__name__}; the run folder is damaged")
    return value


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON. A last line without its end was being written when the machine stopped, and is passed over."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; the run folder is damaged") from error
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: no JSON: {error}; the run folder is damaged") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {number}: must be a table, got {line[:40]}; the run folder is damaged")
        rows.append(row)
    return rows
