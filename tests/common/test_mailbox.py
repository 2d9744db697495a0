"""The queue of tasks for a thread that polls, without the thread."""

import os
import select
import threading
from collections.abc import Iterator

import pytest

from common.mailbox import Mailbox


@pytest.fixture(params=["eventfd", "pipe"])
def mailbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("Linux has it")
    made = Mailbox()
    yield made
    made.close()


def is_readable(mailbox: Mailbox) -> bool:
    return bool(select.select([mailbox.wake_fd], [], [], 0)[0])


def test_posted_tasks_end_a_poll_once_however_many_they_are(mailbox: Mailbox) -> None:
    ran: list[int] = []
    assert not is_readable(mailbox)
    for number in range(100_000):
        mailbox.post(lambda number=number: ran.append(number))
    assert is_readable(mailbox)
    mailbox.run(woken=True)
    assert ran == list(range(100_000))
    assert not is_readable(mailbox)


def test_tasks_posted_by_a_task_run_with_it_and_later_ones_wake_again(mailbox: Mailbox) -> None:
    ran: list[str] = []
    mailbox.post(lambda: mailbox.post(lambda: ran.append("inner")))
    mailbox.run(woken=True)
    assert ran == ["inner"]
    mailbox.run(woken=is_readable(mailbox))
    mailbox.post(lambda: ran.append("later"))
    assert is_readable(mailbox)


def test_posting_to_a_closed_mailbox_does_nothing() -> None:
    mailbox = Mailbox()
    mailbox.close()
    mailbox.post(lambda: pytest.fail("it ran"))


def test_the_bell_outlives_a_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox, write, close = Mailbox(), os.write, os.close
    closed: list[int] = []

    def slow(number: int, data: bytes) -> int:
        closing = threading.Thread(target=mailbox.close)
        closing.start()
        closing.join(10.0)
        assert not closed, "the number may be somebody else's now"
        return write(number, data)

    monkeypatch.setattr(os, "write", slow)
    monkeypatch.setattr(os, "close", lambda number: (closed.append(number), close(number)))
    mailbox.post(lambda: None)
    assert mailbox.wake_fd in closed


def test_more_rings_than_a_pipe_holds_are_no_error(mailbox: Mailbox) -> None:
    for _ in range(70_000):
        mailbox._awake = False  # as when the thread that polls has just looked
        mailbox.post(lambda: None)
    assert is_readable(mailbox)


def test_a_signal_handler_may_post_while_the_thread_that_it_interrupts_is_posting(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    write = os.write

    def interrupted(number: int, data: bytes) -> int:
        monkeypatch.undo()
        mailbox.run(woken=False)  # the thread that polls was faster
        mailbox.post(lambda: ran.append("handler"))
        return write(number, data)

    monkeypatch.setattr(os, "write", interrupted)
    mailbox.post(lambda: ran.append("interrupted"))
    assert is_readable(mailbox)
    mailbox.run(woken=True)
    assert ran == ["interrupted", "handler"]
    assert not is_readable(mailbox)
