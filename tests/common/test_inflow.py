"""Whoever counts what connections bring goes on where this process has no descriptor to look with."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from common import inflow
from tests.common.shortage import no_descriptor_left
from tests.common.transport.sides import MIB, TCP, introduced, raw_dealer, trainer, until

pytestmark = pytest.mark.skipif(not inflow.OPEN_FILES.is_dir(), reason="nothing is counted on this system")


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflow, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(inflow, "SLACK_BYTES", 4 * MIB)
    monkeypatch.setattr(inflow, "FRAMES", 0)


def test_a_shortage_of_descriptors_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.ExitStack() as opened:
        side, bound = trainer(opened, TCP, max_frame_bytes=MIB)
        honest = raw_dealer(opened, bound)
        introduced(side, honest)
        with no_descriptor_left():
            until(lambda: "no connection can be looked at: Too many open files" in caplog.text)
            honest.send(b"still here")
            assert side.recorder.next()[2] == [b"still here"]


def test_whoever_was_not_looked_at_for_a_while_is_not_charged_for_what_was_read_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_looks, listdir = 0, os.listdir

    def every_third(folder: Path) -> list[str]:
        nonlocal num_looks
        num_looks += 1
        if num_looks % 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return listdir(folder)

    with contextlib.ExitStack() as opened:
        side, bound = trainer(opened, TCP, max_frame_bytes=MIB)
        honest = raw_dealer(opened, bound)
        for _ in range(10):
            honest.send(bytes(MIB))
            side.recorder.next()
        until(lambda: side.io._own.inflow._brought and not side.io._own.inflow._read)
        monkeypatch.setattr(os, "listdir", every_third)
        until(lambda: num_looks >= 9)
        honest.send(b"still here")
        assert side.recorder.next()[2] == [b"still here"]
        assert side.io.events["connections closed"] == 0
        assert side.io.alive
