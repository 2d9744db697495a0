"""Keys that change while both sides run: added, removed, replaced, damaged. Nothing is started again."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from common.security.credentials import Credentials
from common.security.keygen import new_pair
from common.security.keys import read_pair
from common.transport import CONTROL, WEIGHTS, Channel
from tests.common.security.guarded import Trainer, knows, scorer
from tests.common.transport.sides import WITHIN_S, Side, call, until

pytestmark = pytest.mark.usefixtures("_looks_often")


def write_pair(key: Path, public: Path) -> None:
    """Puts a new pair in place, as an operator would: a private file that takes the name of the old one."""
    pair = new_pair()
    for path, halves in ((key, ("public", "secret")), (public, ("public",))):
        fresh = path.with_name("fresh")
        fresh.touch(0o600)
        fresh.write_text("".join(f'{half} = "{getattr(pair, half).decode()}"\n' for half in halves))
        fresh.replace(path)


def says(side: Side, channel: Channel, text: bytes) -> None:
    """Have it say this with every tick, as a scorer says HELLO."""
    side.recorder.tick = lambda: side.io.send(channel, [text])


def heard_on(trainer: Trainer, channel: Channel, text: bytes) -> bytes:
    """Who says this, whatever else is said."""
    deadline = time.monotonic() + WITHIN_S
    while (message := trainer.side.recorder.next())[0] != channel or message[2] != [text]:
        assert time.monotonic() < deadline, f"{text!r} was not heard"
    return message[1]


@pytest.mark.parametrize("channel", [CONTROL, WEIGHTS])
def test_a_key_that_is_added_is_let_in(
    channel: Channel, opened: contextlib.ExitStack, trainer: Trainer, keys: Path, stranger: Path
) -> None:
    knows(stranger, keys)
    own = scorer(opened, trainer, Credentials(stranger), channel)
    says(own, channel, b"let me in")
    until(lambda: trainer.gate.events["peers kept out"] >= 2)
    assert trainer.side.recorder.messages.empty()
    (stranger / "allowed" / "scorer.pub").rename(keys / "allowed" / "late.pub")
    assert trainer.side.recorder.next()[2] == [b"let me in"]


@pytest.mark.parametrize("channel", [CONTROL, WEIGHTS])
def test_a_key_that_is_removed_is_not_heard_or_answered_any_more_nor_let_in_again(
    channel: Channel, opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    own = scorer(opened, trainer, Credentials(keys), channel)
    peer = trainer.hears(own, channel, b"hello")
    listed = keys / "allowed" / "scorer.pub"
    listed.rename(keys / "away")
    until(lambda: trainer.side.send(channel, [b"back"], peer) is False)
    says(own, channel, b"still here")
    asked = trainer.gate.events["peers kept out"]
    again = scorer(opened, trainer, Credentials(keys), channel)
    says(again, channel, b"here again")
    until(lambda: trainer.gate.events["peers kept out"] > asked)
    assert own.send(channel, [b"still here"]) is not False, "it is still connected"
    assert trainer.side.recorder.messages.empty()
    assert trainer.side.io.alive
    (keys / "away").rename(listed)
    until(lambda: {b"still here", b"here again"} <= {entry[2][0] for entry in trainer.side.recorder.messages.queue})


def test_a_key_that_is_removed_beside_a_link_to_nothing_is_not_heard_any_more(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    (keys / "allowed" / ".#scorer.pub").symlink_to("me@here.1234:5678")
    looks = trainer.gate._looked_at
    peer = trainer.hears(scorer(opened, trainer, Credentials(keys), CONTROL), CONTROL, b"hello")
    until(lambda: trainer.gate._looked_at > looks)
    (keys / "allowed" / "scorer.pub").unlink()
    until(lambda: trainer.side.send(CONTROL, [b"back"], peer) is False)


@pytest.mark.parametrize(
    "wrong", ["mode of the keys", "mode of the folder", "mode of the file", "damaged", "no folder"]
)
def test_a_list_that_cannot_be_trusted_lets_nobody_in_until_it_is_right_again(
    wrong: str, opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    folder, file = keys / "allowed", keys / "allowed" / "scorer.pub"
    content = file.read_bytes()
    peer = trainer.hears(scorer(opened, trainer, Credentials(keys), CONTROL), CONTROL, b"hello")
    if wrong == "mode of the keys":
        keys.chmod(0o770)
    elif wrong == "mode of the folder":
        folder.chmod(0o755)
    elif wrong == "mode of the file":
        file.chmod(0o644)
    elif wrong == "damaged":
        file.write_bytes(b"public = ")
    else:
        folder.rename(keys / "away")
    until(lambda: trainer.side.send(CONTROL, [b"back"], peer) is False)
    if wrong == "no folder":
        (keys / "away").rename(folder)
    keys.chmod(0o700)
    folder.chmod(0o700)
    file.chmod(0o600)
    file.write_bytes(content)
    until(lambda: trainer.side.send(CONTROL, [b"back"], peer) is not False)


def test_looking_at_the_files_may_fail_and_only_closes_the_door(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = trainer.hears(scorer(opened, trainer, Credentials(keys), CONTROL), CONTROL, b"hello")

    def fail(stamp: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(trainer.gate, "_change_list", fail)
    (keys / "allowed" / "scorer.pub").unlink()
    until(lambda: trainer.side.send(CONTROL, [b"back"], peer) is False)
    assert trainer.side.io.alive


def test_a_new_key_of_the_trainer_is_used_at_once_and_by_scorers_when_they_have_it(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir(mode=0o700)
    for name in ("scorer.key", "trainer.pub"):
        (old / name).touch(0o600)
        (old / name).write_bytes((keys / name).read_bytes())
    behind = Credentials(old)
    sides = [scorer(opened, trainer, Credentials(keys), channel) for channel in (CONTROL, WEIGHTS)]
    sides.append(scorer(opened, trainer, behind, CONTROL))
    for side, channel in zip(sides, (CONTROL, WEIGHTS, CONTROL), strict=True):
        trainer.hears(side, channel, b"before")
    write_pair(keys / "trainer.key", keys / "trainer.pub")
    until(lambda: behind.trouble)
    for side, channel in zip(sides[:2], (CONTROL, WEIGHTS), strict=True):
        says(side, channel, b"after")
        heard_on(trainer, channel, b"after")
    assert call(sides[2].io, lambda: sides[2].io.send(CONTROL, [b"after"])) is False
    (old / "trainer.pub").write_bytes((keys / "trainer.pub").read_bytes())
    says(sides[2], CONTROL, b"at last")
    heard_on(trainer, CONTROL, b"at last")


def test_a_new_key_of_a_scorer_is_used_at_once(opened: contextlib.ExitStack, trainer: Trainer, keys: Path) -> None:
    own = scorer(opened, trainer, Credentials(keys), CONTROL)
    before = trainer.hears(own, CONTROL, b"before")
    write_pair(keys / "scorer.key", keys / "allowed" / "scorer.pub")
    until(lambda: trainer.side.send(CONTROL, [b"back"], before) is False)
    says(own, CONTROL, b"after")
    assert heard_on(trainer, CONTROL, b"after") != before


def test_a_damaged_key_leaves_the_ones_in_use(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = scorer(opened, trainer, Credentials(keys), CONTROL)
    trainer.hears(own, CONTROL, b"before")
    for name in ("trainer.key", "scorer.key"):
        (keys / name).write_text("public = ")
    until(lambda: "the key in use stays" in caplog.text and "the keys in use stay" in caplog.text)
    trainer.hears(own, CONTROL, b"after")


@pytest.mark.parametrize("fails", ["unbind", "setsockopt"])
def test_a_new_key_that_cannot_be_put_in_place_at_once_is_tried_again(
    fails: str, opened: contextlib.ExitStack, trainer: Trainer, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {channel: scorer(opened, trainer, Credentials(keys), channel) for channel in (CONTROL, WEIGHTS)}
    for channel, side in sides.items():
        trainer.hears(side, channel, b"before")
        says(side, channel, b"after")
    done, failed, weights = getattr(zmq.Socket, fails), threading.Event(), trainer.side.io._sockets[WEIGHTS]

    def fail_once(own: "zmq.Socket[bytes]", *args: Any) -> None:
        if own is weights and not failed.is_set():
            failed.set()
            raise zmq.ZMQError(zmq.ENOENT)
        done(own, *args)

    monkeypatch.setattr(zmq.Socket, fails, fail_once)
    write_pair(keys / "trainer.key", keys / "trainer.pub")
    assert failed.wait(WITHIN_S)
    until(lambda: trainer.gate._stamp is not None and trainer.gate._allowed)
    trainer.side.recorder.messages.queue.clear()
    assert trainer.gate._pair == read_pair(keys / "trainer.key")
    for channel in sides:
        heard_on(trainer, channel, b"after")


def test_a_port_that_is_taken_while_the_key_changes_is_named_in_the_log_and_opened_when_it_is_free(
    opened: contextlib.ExitStack,
    trainer: Trainer,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("common.security.gate.DEAF_S", 0.05)
    own = scorer(opened, trainer, Credentials(keys), CONTROL)
    trainer.hears(own, CONTROL, b"before")
    bind, is_taken = zmq.Socket.bind, threading.Event()
    is_taken.set()

    def refuse(own: "zmq.Socket[bytes]", endpoint: str) -> Any:
        if is_taken.is_set() and endpoint == trainer.endpoints[CONTROL]:
            raise zmq.ZMQError(zmq.EADDRINUSE)
        return bind(own, endpoint)

    monkeypatch.setattr(zmq.Socket, "bind", refuse)
    write_pair(keys / "trainer.key", keys / "trainer.pub")
    until(lambda: "free the port, or start again with another --listen" in caplog.text)
    is_taken.clear()
    says(own, CONTROL, b"after")
    heard_on(trainer, CONTROL, b"after")
    complaints = [record for record in caplog.messages if "nobody is heard on" in record]
    assert len(complaints) == 1
    assert f"{trainer.endpoints[CONTROL]}: the key has changed" in complaints[0]
    assert "Address already in use" in complaints[0]


def test_a_scorers_folder_that_others_may_use_leaves_the_keys_in_use(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path, stranger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    knows(stranger, keys)
    (stranger / "allowed" / "scorer.pub").rename(keys / "allowed" / "late.pub")
    own = scorer(opened, trainer, Credentials(stranger), CONTROL)
    trainer.hears(own, CONTROL, b"before")
    stranger.chmod(0o755)
    until(lambda: f"the keys in use stay: {stranger} may be used by others (mode 0755)" in caplog.text)
    trainer.hears(own, CONTROL, b"after")
