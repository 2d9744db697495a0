"""The queue of tasks for a thread that polls, without the thread."""

import select
import threading
from collections.abc import Iterator

import pytest

from common.mailbox import Mailbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
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


def test_closing_waits_for_a_wake_up_that_is_being_written() -> None:
    mailbox, closers = Mailbox(), [threading.Thread()]

    class Pipe:
        closed = False

        def write(self, data: bytes) -> None:
            closers[0] = threading.Thread(target=mailbox.close)
            closers[0].start()
            closers[0].join(0.05)
            assert not self.closed, "the byte goes to whoever has the number of the pipe now"

        def close(self) -> None:
            self.closed = True

    mailbox._in.close()
    mailbox._in = Pipe()  # type: ignore[assignment]
    mailbox.wake()
    closers[0].join()


def test_a_signal_handler_may_post_while_the_thread_that_it_interrupts_is_posting(mailbox: Mailbox) -> None:
    real, ran = mailbox._in, []

    class Pipe:
        closed = False

        def write(self, data: bytes) -> None:
            mailbox._in = real
            mailbox.run(woken=False)  # the thread that polls was faster
            mailbox.post(lambda: ran.append("handler"))  # as a handler would, with the lock held further down the stack

    mailbox._in = Pipe()  # type: ignore[assignment]
    posting = threading.Thread(target=mailbox.post, args=[lambda: ran.append("interrupted")], daemon=True)
    posting.start()
    posting.join(10.0)
    assert not posting.is_alive(), "it waits for itself"
    mailbox.run(woken=True)
    assert ran == ["interrupted", "handler"]
