"""Key files: private, small TOML, read afresh whenever they change. Keys are never arguments and never logged.

A trainer's folder holds `trainer.key` and `allowed/NAME.pub`, one for each key that may connect; a scorer's holds
`scorer.key` and `trainer.pub`. One folder may be both. Keys are CURVE's, 32 bytes as 40 characters of Z85.
"""

import os
import stat
import struct
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from common.errors import ConfigError
from common.open_files import is_shortage

TRAINER_KEY, TRAINER_PUBLIC, SCORER_KEY, ALLOWED = "trainer.key", "trainer.pub", "scorer.key", "allowed"
PUBLIC_SUFFIX = ".pub"
LOOK_EVERY_S = 1.0  # at the files, for changes
MAX_FILE_BYTES = 4096
MAX_ALLOWED = 4096  # keys of one list

Stamp = tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair in Z85. The secret half is left out of its representation."""

    public: bytes
    secret: bytes = field(repr=False)


def read_pair(path: Path) -> KeyPair:
    """The key pair in a file.

    Raises:
        ConfigError: no such file, a file that others may use, or no key pair in it.
    """
    table = _read(path)
    pair = KeyPair(_key(path, table, "public"), _key(path, table, "secret"))
    if zmq.curve_public(pair.secret) != pair.public:
        raise ConfigError(f"{path} holds two halves of different pairs; make one with: marginstream keygen DIR")
    return pair


def read_public(path: Path) -> bytes:
    """The public key in a file, in Z85. Raises ConfigError like `read_pair`, and for a file with a secret key in it."""
    table = _read(path)
    if "secret" in table:
        raise ConfigError(f"{path} holds a secret key where a public one belongs; put the .pub file of it there")
    return _key(path, table, "public")


def read_allowed(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The keys that may connect, public key in Z85 to the name of its file, and what is wrong with files left out.

    Raises:
        ConfigError: no such folder, one that others may use, or one with too many files; or, with an OSError as its
            cause, no descriptor to read one of them with.
    """
    check_private(folder, is_folder=True)
    try:
        present = os.listdir(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    names = sorted(name for name in present if name.endswith(PUBLIC_SUFFIX) and not name.startswith("."))
    if len(names) > MAX_ALLOWED:
        raise ConfigError(f"{folder} lists {len(names)} keys; at most {MAX_ALLOWED} are read")
    allowed, wrong = {}, []
    for name in names:
        try:
            allowed[read_public(folder / name).decode("ascii")] = name.removesuffix(PUBLIC_SUFFIX)
        except ConfigError as error:
            if is_shortage(error.__cause__):
                raise
            wrong.append(str(error))
    return allowed, wrong


def check_private(path: Path, *, is_folder: bool) -> None:
    """Raises ConfigError, with the remedy, unless the path is there, this user's (or root's), and nobody else's."""
    try:
        _judge(path, os.stat(path), is_folder=is_folder)
    except OSError as error:
        raise _unreadable(path, error) from error


def stamp_of(*paths: Path) -> Stamp:
    """What changes when a file, or an entry of a folder, is written, replaced, added, removed or given another mode.

    Of a path that cannot be looked at it equals no other: whoever compares reads again.
    """
    return tuple(mark for path in paths for mark in _marks(path))


def same_since(stamp: Stamp) -> set[str]:
    """The paths of a stamp whose own mark is what it was. Opens nothing, and so needs no descriptor."""
    return {str(path) for path, *figures in stamp if _mark(Path(str(path)))[1:] == tuple(figures)}


def _marks(path: Path) -> list[tuple[object, ...]]:
    try:
        entries = sorted(os.listdir(path)) if stat.S_ISDIR(os.stat(path).st_mode) else []
    except OSError:
        return [(str(path), object())]
    return [_mark(path), *(_mark(path / name) for name in entries)]


def _mark(path: Path) -> tuple[object, ...]:
    """Of a link and of what it points at; a link that points at nothing hides no other entry."""
    return (str(path), _figures(os.lstat, path), _figures(os.stat, path))


def _figures(look: Callable[[Path], os.stat_result], path: Path) -> tuple[object, ...]:
    try:
        own = look(path)
    except OSError as error:
        return (error.errno,)
    return (own.st_dev, own.st_ino, own.st_mode, own.st_uid, own.st_size, own.st_mtime_ns, own.st_ctime_ns)


def _read(path: Path) -> dict[str, object]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe in its place must not hang
        with open(descriptor, "rb") as file:
            _judge(path, os.fstat(descriptor), is_folder=False)
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if len(content) <= MAX_FILE_BYTES:
            return tomllib.loads(content.decode("ascii"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        pass  # its text is no part of the message: it may hold half a key
    raise ConfigError(f"{path} is not a key file; make one with: marginstream keygen DIR")


def _judge(path: Path, own: os.stat_result, *, is_folder: bool) -> None:
    mode = stat.S_IMODE(own.st_mode)
    if is_folder != stat.S_ISDIR(own.st_mode) or not (is_folder or stat.S_ISREG(own.st_mode)):
        raise ConfigError(f"{path} must be a {'folder' if is_folder else 'file'}; see marginstream keygen --help")
    if own.st_uid not in (os.getuid(), 0):
        raise ConfigError(f"{path} belongs to another user (uid {own.st_uid}); keys must be yours: chown it")
    if mode & 0o077:
        remedy = f"chmod {700 if is_folder else 600} {path}"
        raise ConfigError(f"{path} may be used by others (mode {mode:04o}); keys must be yours alone: {remedy}")


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot read {path}: {error.strerror}; --keys names a folder that `marginstream keygen` has made"
    )


def _key(path: Path, table: dict[str, object], name: str) -> bytes:
    value = table.get(name)
    if isinstance(value, str) and len(value) == 40 and value.isascii():
        key = value.encode("ascii")
        try:
            if len(z85.decode(key)) == 32:
                return key
        except (KeyError, ValueError, struct.error):
            pass  # other characters, or a number that is too large
    raise ConfigError(f"{path} holds no {name} key of 40 characters; make one with: marginstream keygen DIR")
