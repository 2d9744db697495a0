"""Waits that end, and what is left in the log when they do in vain."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from common.waiting import Wait, joined, stacks


@pytest.fixture
def stuck() -> Iterator[threading.Thread]:
    """A thread that hangs until the test is over."""
    go_on = threading.Event()
    thread = threading.Thread(target=lambda: go_on.wait(60), name="stuck-one")
    thread.start()
    yield thread
    go_on.set()
    thread.join(10)


def test_a_wait_says_for_what_how_long_and_what_would_end_it() -> None:
    wait = Wait("a scorer", 0.0, "is it running?")
    assert wait.is_over
    assert wait.left_s() == 0
    assert re.fullmatch(r"waited \S+ s for a scorer; is it running\?", wait.words())


def test_what_is_left_of_a_wait_is_no_more_than_a_look_takes() -> None:
    wait = Wait("a scorer", 60.0)
    assert not wait.is_over
    assert wait.left_s(0.5) == 0.5
    assert 59 < wait.left_s() <= 60


def test_a_thread_that_does_not_end_leaves_the_stacks_of_all_threads_in_the_log(
    stuck: threading.Thread, caplog: pytest.LogCaptureFixture
) -> None:
    wait = Wait("the stuck one to end", 0.01, "let it go")
    assert not joined(stuck, wait)
    assert "s for the stuck one to end; let it go\nwhat the threads do:" in caplog.text
    line = next(line for line in caplog.text.splitlines() if line.startswith("  stuck-one: "))
    assert "wait < " in line
    assert "test_waiting.py" in line
    assert any(line.startswith("  MainThread: ") for line in caplog.text.splitlines())


def test_a_wait_in_vain_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    wait = Wait("nothing", 0.0)
    for _ in range(3):
        wait.report()
    assert len(caplog.records) == 1


def test_a_thread_that_ends_in_time_leaves_no_word(caplog: pytest.LogCaptureFixture) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    assert joined(thread, Wait("it to end", 10.0))
    assert caplog.records == []


def test_a_deep_stack_is_cut_to_its_innermost_calls() -> None:
    def deeper(levels: int) -> str:
        return stacks() if levels == 0 else deeper(levels - 1)

    line = next(line for line in deeper(40).splitlines() if line.startswith("  MainThread: "))
    assert line.endswith(" < …")
    assert line.count(" < ") == 12


def test_two_threads_of_one_name_have_a_line_each() -> None:
    over = threading.Event()
    threads = [threading.Thread(target=over.wait, args=(60,), name="a twin") for _ in range(2)]
    for thread in threads:
        thread.start()
    found = [line for line in stacks().splitlines() if line.startswith("  a twin: ")]
    over.set()
    for thread in threads:
        thread.join()
    assert len(found) == 2


def test_sigusr1_writes_the_stacks_while_the_interpreter_is_held() -> None:
    code = """
import ctypes, signal
from common.waiting import stacks_on_signal
stacks_on_signal()
ctypes.PyDLL(None)["raise"](signal.SIGUSR1)  # in native code, with the interpreter's lock
print("goes on")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "most recent call first" in ended.stderr
    assert 'File "<string>", line 5' in ended.stderr
    assert ended.stdout == "goes on\n"
