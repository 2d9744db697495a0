"""A scorer's connections to several ranks of a trainer, when its keys change."""

import contextlib
from pathlib import Path

import pytest

from common.security.credentials import Credentials
from common.sockets import control_of
from common.transport import CONTROL, WEIGHTS
from tests.common.security.guarded import Trainer, scorer
from tests.common.security.test_changes import heard_on, write_pair
from tests.common.transport.sides import call, until

pytestmark = pytest.mark.usefixtures("_looks_often")


def test_with_new_keys_a_scorer_connects_again_to_all_ranks_but_those_that_it_left(
    opened: contextlib.ExitStack, trainer: Trainer, keys: Path
) -> None:
    own = scorer(opened, trainer, Credentials(keys), CONTROL)
    other, left = control_of(1), control_of(2)
    for channel in (other, left):
        call(own.io, lambda channel=channel: own.io.connect(channel, trainer.endpoints[WEIGHTS]))
    call(own.io, lambda: own.io.disconnect(left))

    def say(text: bytes) -> None:
        own.recorder.tick = lambda: [own.io.send(channel, [text]) for channel in (CONTROL, other)]

    say(b"before")
    before = {channel: heard_on(trainer, channel, b"before") for channel in (CONTROL, WEIGHTS)}
    write_pair(keys / "scorer.key", keys / "allowed" / "scorer.pub")
    for channel, peer in before.items():
        until(lambda channel=channel, peer=peer: trainer.side.send(channel, [b"back"], peer) is False)
    say(b"after")
    assert {heard_on(trainer, channel, b"after") for channel in before}.isdisjoint(before.values())
    assert own.io.alive
    assert set(own.io._sockets) == {CONTROL, other}
