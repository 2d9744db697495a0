"""The folder of one run: who may use it, what its files are called, and whether the run in it has ended."""

import contextlib
import json
import math
import os
import re
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.config import TrainerOptions, to_toml
from common.errors import ConfigError
from common.locks import try_lock
from common.whole_files import replace_file

METRICS, SUMMARY, GENERATION = "metrics.jsonl", "summary.json", "generation"
OPTIONS, ENVIRONMENT, MODEL = "options.toml", "environment.json", "model.pt"
UNWRITTEN = "unwritten"  # in a summary: what else the run should have left
_SUPERVISED_OPTIONS = re.compile(r"options-trainer(-\d+)?\.toml")  # of several ranks with their number

# What a resumed run may be told anew: where it runs, whom it talks to and what it records, not what it computes.
_PLACE = {"out", "resume", "device", "threads", "data_root", "data_device"}
_PEERS = {"listen", "listen_on_all", "keys", "insecure", "service"}
_RECORDS = {"checkpoint", "log", "profile", "metrics_port", "unhealthy_after_s"}
_MAY_CHANGE = frozenset(_PLACE | _PEERS | _RECORDS)
_STAYS = ("log", "ledger")  # the exception: what is kept for a report is part of the state


def default_out(options: TrainerOptions) -> Path:
    """`runs/DATA-METHOD-TIME`, with the mode beside the method where there is a choice."""
    method = options.method if options.mode == "uniform" else f"{options.method}-{options.mode}"
    data = re.sub(r"[^A-Za-z0-9_.-]+", "-", options.data).strip("-.") or "data"
    return Path("runs") / f"{data}-{method}-{time.strftime('%Y%m%d-%H%M%S')}"


def write_options(folder: Path, options: TrainerOptions) -> Path:
    """Writes the resolved options of the run, its folder among them; with another --out they repeat the run."""
    path = folder / OPTIONS
    replace_file(path, to_toml(options.model_copy(update={"out": folder, "resume": False}).dump()))
    return path


def is_supervised(options: TrainerOptions, folder: Path) -> bool:
    """Whether `run` made the folder and started this trainer: with the options file that it wrote there."""
    if options.config is None:
        return False
    config = options.config.resolve()
    return config.parent == folder.resolve() and bool(_SUPERVISED_OPTIONS.fullmatch(config.name))


def claim_folder(options: TrainerOptions) -> Path:
    """Makes the run folder, an empty one or the one that `run` made for this trainer, and returns its absolute path.

    With `resume` it may also be the folder of a run with the same options that was interrupted.

    Raises:
        ConfigError: it holds files already, and is not to be resumed; the message names the ways out.
    """
    if options.out is None:
        return _claim_default(default_out(options))
    folder = options.out.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ConfigError(f"--out: cannot use {options.out} as a folder: {error.strerror}") from error
    if options.resume and OPTIONS in present:
        _check_resumable(folder, options)
        return folder
    used = [name for name in (METRICS, SUMMARY, GENERATION) if name in present]
    if used or (present and not is_supervised(options, folder)):
        raise ConfigError(
            f"--out: {options.out} holds files already ({(used or present)[0]}); "
            f"choose another folder, {_going_on(present, options)}remove this one (rm -r {options.out}), "
            "or leave --out out for a new one"
        )
    return folder


def _going_on(present: list[str], options: TrainerOptions) -> str:
    return "go on with its run (--resume), " if OPTIONS in present and not options.resume else ""


def _check_resumable(folder: Path, options: TrainerOptions) -> None:
    """Raises ConfigError for a run that has ended, or had options of which another course would have followed."""
    before = folder / OPTIONS
    if has_ended(folder):
        raise ConfigError(
            f"--resume: the run in {options.out} has ended; see {folder / SUMMARY}, or choose another --out"
        )
    was = _course(tomllib.loads(before.read_text(encoding="utf-8")))
    now = _course(options.dump())
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            raise ConfigError(
                f"--resume: --{name.replace('_', '-')} was {was.get(name, 'not given')} in the run in {options.out} "
                f"and is {now.get(name, 'not given')} now; give the same options (they are in {before}), "
                "or start a new run with another --out"
            )


def has_ended(folder: Path) -> bool:
    """Whether the folder holds a run that came to its end; not if it was stopped, or what it ends with did not fit."""
    summary = folder / SUMMARY
    return summary.exists() and is_complete(json.loads(summary.read_text(encoding="utf-8")))


def is_complete(summary: Mapping[str, Any]) -> bool:
    """Whether a summary is of a run that came to its end and left all that it should."""
    return "stopped_by" not in summary and UNWRITTEN not in summary


def of_rank(name: str, rank: int) -> str:
    """`trace.jsonl`, or `trace-rank-1.jsonl`: what a rank writes beside rank 0."""
    stem, suffix = os.path.splitext(name)
    return f"{stem}-rank-{rank}{suffix}" if rank else name


def _course(options: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's options that say what a run computes, by dotted name."""
    flat: dict[str, Any] = {}
    for name in TrainerOptions.model_fields:
        value = options.get(name)
        for inner, one in value.items() if isinstance(value, Mapping) else [("", value)]:
            if one is not None and (name not in _MAY_CHANGE or (name, inner) == _STAYS):
                flat[f"{name}.{inner}" if inner else name] = one
    return flat


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Raises ConfigError while another trainer holds the folder; a killed one holds nothing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # of a file system without locks
            if not try_lock(descriptor):
                raise ConfigError(f"--out: a trainer is still at work in {folder}; end it, or choose another folder")
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def begun(folder: Path, *, is_new: bool) -> Iterator[None]:
    """Around the first that is written to a run folder; a new one that cannot be written to is taken back.

    Raises:
        ConfigError: the system refuses, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        if is_new:
            discard_folder(folder)
        said = f"--out: cannot write to {folder}: {error.strerror}; free space there, or choose another folder"
        raise ConfigError(said) from error


def _claim_default(wanted: Path) -> Path:
    """Two runs that start within one second get two folders."""
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {folder}: {error.strerror}; name one with --out") from error
        else:
            return folder.absolute()


def discard_folder(folder: Path) -> None:
    """Takes back the folder of a run that never trained, so that the corrected command may name it again."""
    for pattern in ("options*.toml", "*.log", ENVIRONMENT, GENERATION, METRICS, SUMMARY, MODEL, "trace*.jsonl"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless it holds something that is not ours


def drop_lines_after(path: Path, step: int) -> None:
    """Takes lines of later steps out of a JSON Lines file: a resumed run writes them again."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return
    replace_file(path, "".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """Infinity for half a line, at which a killed process stopped writing."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def next_generation(folder: Path) -> int:
    """Raises the run's generation by one and returns it, once it is on disk; 1 for a new run.

    Results of an earlier life of the trainer carry a lower one, so this comes before any socket opens.
    """
    path = folder / GENERATION
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        text = "0"
    if not text.strip().isdecimal():
        raise ConfigError(f"{path} must hold a number, got {text!r}; the run folder is damaged")
    generation = int(text) + 1
    replace_file(path, f"{generation}\n")
    return generation


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text that every reader takes: NaN and infinities become null; zero-dimensional arrays become numbers."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
