"""The thread that owns the sockets: fairness, posted tasks, its end."""

import contextlib
import itertools
import os
import queue
import threading
import time
from pathlib import Path

import pytest

from common.endpoints import weights_endpoint
from common.portions import PORTION_S
from common.transport import CONTROL, IDLE_S, WEIGHTS, Channel, IOThread
from tests.common.transport.sides import (
    MIB,
    TCP,
    WITHIN_S,
    Recorder,
    Side,
    call,
    introduced,
    raw_dealer,
    scorer,
    trainer,
    until,
)


def test_a_flood_on_one_channel_does_not_starve_the_other(folder: Path, opened: contextlib.ExitStack) -> None:
    server, control, num = Side(), f"ipc://{folder}/t", 900
    opened.callback(server.io.stop)
    server.io.bind(CONTROL, control)
    server.io.bind(WEIGHTS, weights_endpoint(control, 0))
    sockets = server.io._sockets
    came = threading.Event()

    def hold(channel: Channel, peer: bytes) -> None:
        """The handler stands still in its first message until the flood and the other message have arrived."""
        if not came.is_set():
            came.set()
            assert sockets[WEIGHTS].poll(WITHIN_S * 1000)
            assert sockets[CONTROL].poll(WITHIN_S * 1000)

    server.recorder.reply = hold
    server.io.start()
    flood, other = raw_dealer(opened, control, SNDHWM=0), raw_dealer(opened, weights_endpoint(control, 0))
    flood.send(b"first")
    assert came.wait(WITHIN_S)
    for _ in range(num):
        flood.send(b"nonsense")
    other.send(b"weights")
    order = [server.recorder.next()[0] for _ in range(num + 2)]
    assert order.index(WEIGHTS) <= 200


def test_ticks_go_on_through_a_flood(folder: Path, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, f"ipc://{folder}/t", tick_s=0.001)
    dealer, ended = raw_dealer(opened, bound), threading.Event()

    def flood() -> None:
        while not ended.is_set():
            dealer.send(b"nonsense")

    thread = threading.Thread(target=flood)
    thread.start()
    server.recorder.next()
    for _ in range(10):
        server.recorder.ticks.get(timeout=WITHIN_S)
    ended.set()
    thread.join()


def test_a_tick_comes_sooner_where_that_is_asked_for_and_later_ones_as_ever(
    folder: Path, opened: contextlib.ExitStack
) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t", tick_s=600.0)
    server.recorder.ticks.get(timeout=WITHIN_S)  # at the start
    server.io.post(lambda: server.io.tick_within(0.001))
    server.recorder.ticks.get(timeout=WITHIN_S)
    assert server.io._next_tick > time.monotonic() + 500
    server.recorder.tick = lambda: server.io.tick_within(0.001)
    server.io.post(lambda: server.io.tick_within(0.001))
    for _ in range(3):  # asked for in each
        server.recorder.ticks.get(timeout=WITHIN_S)


def test_posted_tasks_run_at_once_in_order_and_on_the_io_thread(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t", tick_s=600.0)
    ran: queue.Queue[tuple[int, str]] = queue.Queue()
    for number in range(1000):
        server.io.post(lambda number=number: ran.put((number, threading.current_thread().name)))
    assert [ran.get(timeout=WITHIN_S) for _ in range(1000)] == [(number, "test-io") for number in range(1000)]


def test_tasks_posted_from_many_threads_all_run(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t", tick_s=600.0)
    ran: queue.Queue[int] = queue.Queue()

    def post_each_after_the_last(first: int) -> None:
        for number in range(first, first + 200):
            server.io.post(lambda number=number: ran.put(number))

    threads = [threading.Thread(target=post_each_after_the_last, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    got = [ran.get(timeout=WITHIN_S) for _ in range(800)]
    for thread in threads:
        thread.join()
    assert len(set(got)) == 800


def test_last_words_that_are_answered_have_been_delivered(endpoint: str, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, endpoint)
    client = scorer(opened, bound)
    until(lambda: client.send(CONTROL, [b"hello"]) is not False)
    peer = server.recorder.next()[1]
    client.recorder.reply = lambda channel, peer: client.io.send(CONTROL, [b"heard"])

    def farewell() -> None:
        server.io.send(CONTROL, [b"goodbye"], peer)
        server.io.receive_until(lambda: not server.recorder.messages.empty(), WITHIN_S)

    server.recorder.farewell = farewell
    server.io.stop()
    assert not server.io.alive
    assert client.recorder.next()[2] == [b"goodbye"]
    assert server.recorder.next()[2] == [b"heard"]


def test_what_is_posted_while_the_last_words_are_answered_is_done_too(
    folder: Path, opened: contextlib.ExitStack
) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t")
    came = threading.Event()

    def farewell() -> None:
        server.io.post(came.set)
        server.io.receive_until(came.is_set, WITHIN_S)

    server.recorder.farewell = farewell
    server.io.stop()
    assert came.is_set()


def test_the_wait_for_an_answer_is_bounded(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t")
    server.recorder.farewell = lambda: server.io.receive_until(lambda: False, 0.05)
    server.io.stop()
    assert not server.io.alive


def test_stop_is_bounded_by_a_peer_that_does_not_read(opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, TCP)
    dealer = raw_dealer(opened, bound, RCVHWM=1, RCVBUF=64 << 10)
    peer = introduced(server, dealer)
    for _ in range(16):
        server.send(CONTROL, [bytes(4 * MIB)], peer)
    started = time.monotonic()
    server.io.stop()
    assert time.monotonic() - started < 3.0
    assert not server.io.alive


def test_stop_is_bounded_by_a_handler_that_hangs(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t")
    hangs, goes_on = threading.Event(), threading.Event()
    server.io.post(lambda: (hangs.set(), goes_on.wait(WITHIN_S)))
    assert hangs.wait(WITHIN_S)
    server.io.stop(timeout_s=0.05)
    assert server.io.alive
    goes_on.set()
    server.io.stop()
    assert not server.io.alive


def test_a_thread_that_was_never_started_closes_what_it_opened(endpoint: str) -> None:
    for _ in range(2):
        side = Side()
        side.io.bind(CONTROL, endpoint)
        side.io.stop()


def test_posting_to_a_thread_that_has_ended_does_nothing(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t")
    server.io.stop()
    server.io.post(lambda: pytest.fail("it ran"))
    server.io.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_in_the_handler_ends_the_thread_and_is_kept(folder: Path, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, f"ipc://{folder}/t")

    def fail() -> None:
        raise KeyError("bug")

    server.io.post(fail)
    until(lambda: not server.io.alive)
    assert isinstance(server.io.error, KeyError)
    trainer(opened, bound)  # the endpoint is free again


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="policies are Linux's")
@pytest.mark.parametrize("gives_way", [True, False])
def test_a_thread_that_gives_way_does_not_interrupt_who_computes_and_nobody_else_changes(
    gives_way: bool, opened: contextlib.ExitStack
) -> None:
    io = IOThread("giving", Recorder(), max_frame_bytes=MIB, gives_way=gives_way)
    opened.callback(io.stop)
    io.start()
    assert call(io, lambda: os.sched_getscheduler(0)) == (os.SCHED_BATCH if gives_way else os.SCHED_OTHER)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_long_piece_of_work_is_done_in_portions_and_others_are_served_between_them(
    folder: Path, opened: contextlib.ExitStack
) -> None:
    server, bound = trainer(opened, f"ipc://{folder}/t", tick_s=10.0)
    dealer = raw_dealer(opened, bound)
    began, served = [], []
    server.recorder.reply = lambda channel, peer: served.append(len(began))

    def portion() -> bool:
        began.append(time.monotonic())
        return len(began) < 20

    dealer.send(b"the connection is there")
    server.recorder.next()
    call(server.io, lambda: server.io.spread(portion))
    assert began, "the first at once"
    while len(began) < 20 and len(served) < 1000:
        dealer.send(b"a message")
        server.recorder.next()
    until(lambda: len(began) == 20)
    assert min(later - earlier for earlier, later in itertools.pairwise(began)) > 0.5 * PORTION_S
    assert len(set(served)) > 2, "messages were not served between portions"
    time.sleep(5 * PORTION_S)
    assert len(began) == 20, "it goes on after its end"


def test_portions_need_no_messages_to_go_on_and_new_work_replaces_the_old(
    folder: Path, opened: contextlib.ExitStack
) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t", tick_s=10.0)
    old, new = [], []
    call(server.io, lambda: server.io.spread(lambda: bool(old.append(1)) or True))
    until(lambda: len(old) > 3)
    call(server.io, lambda: server.io.spread(lambda: bool(new.append(1)) or len(new) < 4))
    num = len(old)
    until(lambda: len(new) == 4)
    assert len(old) == num


def test_work_that_comes_after_a_quiet_while_is_held_and_a_backlog_is_not(
    folder: Path, opened: contextlib.ExitStack
) -> None:
    held: list[bool] = []
    free = threading.Event()

    def hold() -> None:
        held.append(True)
        free.wait(WITHIN_S)

    server, bound = trainer(opened, f"ipc://{folder}/t", tick_s=600.0, hold=hold)
    opened.callback(free.set)
    dealer = raw_dealer(opened, bound)
    until(lambda: bool(held))
    for _ in range(50):
        dealer.send(b"a message")
    time.sleep(0.05)
    assert server.recorder.messages.empty(), "something was done while it was held"
    assert server.recorder.ticks.empty()
    free.set()
    for _ in range(50):
        server.recorder.next()
    assert len(held) < 20, "each message of a backlog was held"
    time.sleep(10 * IDLE_S)
    held.clear()
    dealer.send(b"after a quiet while")
    server.recorder.next()
    assert held
