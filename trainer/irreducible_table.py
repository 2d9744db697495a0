"""The table of irreducible losses as a file: written whole or not at all, and read with care."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import ConfigError, NotWritten
from common.whole_files import replacing, said_by_system


def load_irreducible(path: Path, *, num_samples: int, data_fingerprint: str) -> Tensor:
    """The irreducible loss of every training sample, from a table that `marginstream irreducible` wrote.

    Args:
        num_samples: N of this run.
        data_fingerprint: "data" of `common.data.fingerprint.data_fingerprint` of this run.

    Returns:
        (N,) float32 on the CPU, finite, in nats where the loss is the cross-entropy; the index is the sample id.

    Raises:
        ConfigError: the file is missing or is no such table, it is of other data, or a loss is not finite.
    """
    option = f"--irreducible {path}"
    remedy = "make one with marginstream irreducible and this run's --data and data options"
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{option}: no such file; {remedy}") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors alike for files that are not its own
        reason = f"it is no file of tensors ({type(error).__name__})"
        raise ConfigError(f"{option} is not a table of irreducible losses: {reason}; {remedy}") from error
    if wrong := _what_is_wrong(table):
        raise ConfigError(f"{option} is not a table of irreducible losses: {wrong}; {remedy}")
    losses: Tensor = table["losses"]
    if len(losses) != num_samples:
        raise ConfigError(f"{option} is of {len(losses)} training samples, but this run has {num_samples}; {remedy}")
    if table["data"] != data_fingerprint:
        raise ConfigError(
            f"{option} is of other training data (fingerprint {table['data'][:8]}, this run's is "
            f"{data_fingerprint[:8]}): samples, labels, --label-noise or --image-size differ; {remedy}"
        )
    if num_wrong := int((~losses.isfinite()).sum()):
        raise ConfigError(
            f"{option}: {num_wrong} of {num_samples} losses are not finite; make it again with a lower --lr"
        )
    return losses


def _what_is_wrong(table: Any) -> str | None:
    """Why a loaded object is no table; None if it is one."""
    if not isinstance(table, dict):
        return f"it holds a {type(table).__name__}"
    if missing := [key for key in ("losses", "data", "num_samples") if key not in table]:
        return f"it has no {missing[0]}"
    losses = table["losses"]
    if not isinstance(losses, Tensor) or losses.dtype != torch.float32 or losses.shape != (table["num_samples"],):
        return f"its losses must be {table['num_samples']} float32 numbers"
    return None if isinstance(table["data"], str) else "its data fingerprint must be text"


def check_out(path: Path) -> None:
    """Before any work: the table can be written, and overwrites nothing."""
    if path.exists():
        raise ConfigError(f"--out: {path} exists already; name another file, or remove this one (rm {path})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: cannot make the folder of {path}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--out: cannot write to the folder {path.parent.absolute()}; name a file in another one")


def write_table(path: Path, table: dict[str, Any]) -> None:
    """Whole or not at all.

    Raises:
        ConfigError: the file has come to be meanwhile.
        NotWritten: the disk is full or the like.
    """
    try:
        with replacing(path) as file:
            torch.save(table, file)
            check_out(path)
    except Exception as error:  # torch wraps what the disk says into errors of its own
        said = None if isinstance(error, ConfigError) else said_by_system(error)
        if said is None:
            raise
        raise NotWritten(
            f"--out: the table cannot be written to {path}: {said}; free space there, or name another file"
        ) from error
