"""Waits for other processes and threads end too."""

import fcntl
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from common import transport
from common.data import cache
from common.processes import end
from common.transport import IOThread

WITHIN_S = 20.0


def test_a_lock_that_is_never_given_back_ends_the_wait_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "LOCK_S", 0.02)
    monkeypatch.setattr(cache, "LOCK_POLL_S", 0.001)
    path = tmp_path / "a.lock"
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(TimeoutError, match=r"a\.lock; it is decoded: end that process"),
            cache.exclusive(path, "it is decoded"),
        ):
            pass
    with cache.exclusive(path, "it is decoded"):  # now it is free
        pass
    assert "what the threads do:" in caplog.text


class Unkillable:
    """A process that the kernel holds."""

    pid = 4242
    returncode = None

    def poll(self) -> None:
        pass

    def send_signal(self, number: int) -> None:
        pass

    def kill(self) -> None:
        pass

    def wait(self, timeout_s: float) -> None:
        raise subprocess.TimeoutExpired("it", timeout_s)


def test_a_process_that_survives_sigkill_is_left_to_the_kernel(caplog: pytest.LogCaptureFixture) -> None:
    process: Any = Unkillable()
    assert end(process, term_s=0.01) == -signal.SIGKILL
    assert "for process 4242 to end, which was killed; the kernel holds it" in caplog.text


class Handler:
    """Hangs in what a test chooses."""

    def __init__(self) -> None:
        self.entered, self.over = threading.Event(), threading.Event()
        self.hangs_in = ""

    def _in(self, name: str) -> None:
        if self.hangs_in == name:
            self.entered.set()
            self.over.wait(WITHIN_S)

    def on_start(self, io: IOThread) -> None:
        pass

    def on_message(self, *_: Any) -> None:
        pass

    def on_tick(self, now: float) -> None:
        self._in("tick")

    def on_stop(self) -> None:
        self._in("stop")


@pytest.mark.parametrize("where", ["tick", "stop"])
def test_an_io_thread_that_hangs_is_reported_and_nobody_waits_for_ever(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport, "STUCK_S", 0.0)
    handler = Handler()
    handler.hangs_in = where
    io = IOThread("some-io", handler, max_frame_bytes=1 << 20)
    io.start()
    if where == "tick":
        assert handler.entered.wait(WITHIN_S)
        for _ in range(3):
            io.check()
        assert sum("the thread some-io has not come round for" in message for message in caplog.messages) == 1
    io.stop(0.02)
    assert "for the thread some-io to close its sockets" in caplog.text
    assert any(line.startswith("  some-io: ") for line in caplog.text.splitlines())
    handler.over.set()
    io.stop()
    assert not io.alive
