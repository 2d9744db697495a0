"""Folders of keys, the files looked at with every tick, and a stack that closes what a test opens."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.security.keygen import make_folder
from tests.common.security.guarded import Trainer


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Keys of a trainer and a scorer that it lets in."""
    make_folder(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gate.LOOK_EVERY_S", "credentials.LOOK_EVERY_S", "handshakes.RETRY_S"):
        monkeypatch.setattr(f"common.security.{name}", 0.02)


@pytest.fixture
def trainer(opened: contextlib.ExitStack, keys: Path) -> Trainer:
    return Trainer(opened, keys)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """Keys of somebody else who knows the trainer's public key."""
    make_folder(tmp_path / "stranger")
    return tmp_path / "stranger"
