"""`marginstream keygen DIR`: key pairs and the list of keys that may connect, written once and never over another."""

import os
import sys
from pathlib import Path

import zmq

from common.config.keygen import KeygenOptions
from common.errors import ConfigError
from common.security.keys import (
    ALLOWED,
    PUBLIC_SUFFIX,
    SCORER_KEY,
    TRAINER_KEY,
    TRAINER_PUBLIC,
    KeyPair,
    check_private,
    read_pair,
)

LOCAL = "scorer"  # the name of the key that stays beside the trainer's


def main(options: KeygenOptions) -> int:
    """Writes the files and says what they are for. Returns the exit code."""
    if len(options.dir) != 1:
        raise ConfigError(f"marginstream keygen takes one folder, got {len(options.dir)}: marginstream keygen keys")
    folder = options.dir[0]
    if options.names:
        add_scorers(folder, options.names)
    else:
        make_folder(folder)
    sys.stdout.write(_words(folder, options.names))
    return 0


def make_folder(folder: Path) -> None:
    """A folder for a trainer and scorers on one machine.

    Raises:
        ConfigError: it holds keys already, or cannot be made.
    """
    _make_private(folder)
    _make_private(folder / ALLOWED)
    _refuse_to_overwrite([folder / name for name in (TRAINER_KEY, TRAINER_PUBLIC, SCORER_KEY)])
    _refuse_to_overwrite([folder / ALLOWED / f"{LOCAL}{PUBLIC_SUFFIX}"])
    trainer = new_pair()
    _write_pair(folder / TRAINER_KEY, trainer)
    _write_public(folder / TRAINER_PUBLIC, trainer.public)
    _add(folder, LOCAL, folder)


def add_scorers(folder: Path, names: tuple[str, ...]) -> None:
    """A key of its own for each name, in a folder to take to the scorer's machine, and on the list. Makes a trainer's
    key first if there is none.

    Raises:
        ConfigError: a name is taken, or the folder cannot be used.
    """
    if not (folder / TRAINER_KEY).exists():
        make_folder(folder)
    check_private(folder, is_folder=True)
    trainer = read_pair(folder / TRAINER_KEY)
    _refuse_to_overwrite(
        [path for name in names for path in (folder / name, folder / ALLOWED / f"{name}{PUBLIC_SUFFIX}")]
    )
    for name in names:
        _make_private(folder / name)
        _write_public(folder / name / TRAINER_PUBLIC, trainer.public)
        _add(folder, name, folder / name)


def new_pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


def _add(folder: Path, name: str, at: Path) -> None:
    pair = new_pair()
    _write_pair(at / SCORER_KEY, pair)
    _write_public(folder / ALLOWED / f"{name}{PUBLIC_SUFFIX}", pair.public)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make folder {folder}: {error.strerror}") from error
    check_private(folder, is_folder=True)


def _refuse_to_overwrite(paths: list[Path]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise ConfigError(
                f"{path} is there already and keys are never overwritten; choose another folder or name, "
                "or remove it first"
            )


def _write_pair(path: Path, pair: KeyPair) -> None:
    head = "# A secret key: keep it to yourself."
    _write(path, f'{head}\npublic = "{pair.public.decode()}"\nsecret = "{pair.secret.decode()}"\n')


def _write_public(path: Path, public: bytes) -> None:
    _write(path, f'public = "{public.decode()}"\n')


def _write(path: Path, text: str) -> None:
    """0600 from its first moment; never through a link, never over a file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _words(folder: Path, names: tuple[str, ...]) -> str:
    lines = [f"{folder}: for `marginstream trainer --keys {folder}` (and `run`, and scorers on this machine)"]
    lines += [f"{folder / name}: take it to its machine, for `marginstream scorer --keys {name}`" for name in names]
    lines.append(f"{folder / ALLOWED}: who may connect; a running trainer notices files added and removed")
    return "\n".join(lines) + "\n"
