"""The folder of one run: who may use it, and files in it that are whole or absent."""

import contextlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.config import TrainerOptions, to_toml
from common.errors import ConfigError

METRICS, SUMMARY, GENERATION = "metrics.jsonl", "summary.json", "generation"
OPTIONS, ENVIRONMENT = "options.toml", "environment.json"
SUPERVISED_OPTIONS = "options-trainer.toml"


def default_out(options: TrainerOptions) -> Path:
    """`runs/DATA-METHOD-TIME`, with the mode beside the method where there is a choice."""
    method = options.method if options.mode == "uniform" else f"{options.method}-{options.mode}"
    data = re.sub(r"[^A-Za-z0-9_.-]+", "-", options.data).strip("-.") or "data"
    return Path("runs") / f"{data}-{method}-{time.strftime('%Y%m%d-%H%M%S')}"


def write_options(folder: Path, options: TrainerOptions) -> Path:
    """Writes the resolved options of the run, its folder among them; with another --out they repeat the run."""
    path = folder / OPTIONS
    replace_file(path, to_toml(options.model_copy(update={"out": folder}).dump()))
    return path


def is_supervised(options: TrainerOptions, folder: Path) -> bool:
    """Whether `run` made the folder and started this trainer: with the options file that it wrote there."""
    return options.config is not None and options.config.resolve() == folder.resolve() / SUPERVISED_OPTIONS


def claim_folder(options: TrainerOptions) -> Path:
    """Makes the run folder, an empty one or the one that `run` made for this trainer, and returns its absolute path.

    Raises:
        ConfigError: it holds files already; the message names the ways out.
    """
    if options.out is None:
        return _claim_default(default_out(options))
    folder = options.out.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ConfigError(f"--out: cannot use {options.out} as a folder: {error.strerror}") from error
    used = [name for name in (METRICS, SUMMARY, GENERATION) if name in present]
    if used or (present and not is_supervised(options, folder)):
        raise ConfigError(
            f"--out: {options.out} holds files already ({(used or present)[0]}); "
            f"choose another folder, remove this one (rm -r {options.out}), or leave --out out for a new one"
        )
    return folder


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
    for pattern in ("options*.toml", "*.log", ENVIRONMENT, GENERATION, METRICS, SUMMARY, "model.pt", "trace.jsonl"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless it holds something that is not ours


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


def replace_file(path: Path, text: str) -> None:
    """Writes a file so that a reader, and a crash at any moment, finds the old text or the new one, whole."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` when the block ends, and leaves it as it is if that raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
