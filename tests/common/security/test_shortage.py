"""A trainer or scorer that has no descriptor left to read its keys with: whoever is inside stays, and nobody else."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, EndpointError
from common.security.credentials import Credentials
from common.security.keys import read_allowed
from common.sockets import Sockets
from common.transport import CONTROL
from tests.common.security.guarded import Trainer, scorer
from tests.common.security.test_changes import heard_on, says, write_pair
from tests.common.shortage import no_descriptor_left
from tests.common.transport.sides import until

pytestmark = pytest.mark.usefixtures("_looks_often")


def test_whose_file_is_unchanged_is_heard_through_a_shortage_of_descriptors(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = scorer(opened, trainer, Credentials(keys), CONTROL)
    peer = trainer.hears(own, CONTROL, b"before")
    with no_descriptor_left():
        until(lambda: "nobody but whose file is unchanged is let in until the list of keys can be read" in caplog.text)
        for _ in range(3):
            assert trainer.hears(own, CONTROL, b"meanwhile") == peer
            assert trainer.side.send(CONTROL, [b"back"], peer) is None
    assert trainer.hears(own, CONTROL, b"after") == peer
    assert "removed scorer" not in caplog.text


@pytest.mark.parametrize("change", ["removed", "replaced", "mode of the file", "mode of the folder", "no folder"])
def test_a_key_that_is_taken_off_the_list_meanwhile_is_not_heard(
    change: str, opened: contextlib.ExitStack, trainer: Trainer, keys: Path, stranger: Path
) -> None:
    peer = trainer.hears(scorer(opened, trainer, Credentials(keys), CONTROL), CONTROL, b"before")
    folder, file = keys / "allowed", keys / "allowed" / "scorer.pub"
    with no_descriptor_left():
        if change == "removed":
            file.unlink()
        elif change == "replaced":
            (stranger / "allowed" / "scorer.pub").replace(file)
        elif change == "mode of the file":
            file.chmod(0o644)
        elif change == "mode of the folder":
            folder.chmod(0o755)
        else:
            folder.rename(keys / "away")
        until(lambda: trainer.side.send(CONTROL, [b"back"], peer) is False)


def test_a_key_file_that_no_descriptor_is_left_for_is_not_one_that_is_wrong(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"scorer\.pub: Too many open files"):
        read_allowed(keys / "allowed")


def test_a_new_key_that_no_socket_is_left_for_is_used_as_soon_as_there_is_one(
    opened: contextlib.ExitStack,
    trainer: Trainer,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = scorer(opened, trainer, Credentials(keys), CONTROL)
    trainer.hears(own, CONTROL, b"before")

    def refuse(*args: Any) -> None:
        raise EndpointError("no socket")

    with monkeypatch.context() as short:
        short.setattr(Sockets, "connect", refuse)
        write_pair(keys / "scorer.key", keys / "allowed" / "scorer.pub")
        until(lambda: "the connection that there was stays: no socket; this is tried again" in caplog.text)
    says(own, CONTROL, b"after")
    heard_on(trainer, CONTROL, b"after")
