"""Versions that are fetched slowly, or not to their end, give way to new ones before these fail to be pushed."""

import threading
import time

import pytest
import zmq
from torch import nn

from common.protocol import Version
from trainer.publisher import NUM_SLOTS, Publisher
from trainer.slot import Slot
from trainer.slots import FEW, MAX_LEFT

GENERATION = 7
SILENCE_S = 10.0
WITHIN_S = 20.0


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def publisher_of(model: nn.Module | None = None) -> Publisher:
    return Publisher(nn.Linear(4, 4) if model is None else model, None, GENERATION, silence_s=SILENCE_S)


def version(step: int) -> Version:
    return Version(GENERATION, step)


def push(publisher: Publisher, step: int) -> Slot | None:
    """A push and what the I/O thread does at its next tick."""
    slot = publisher.push(step)
    if slot is not None:
        publisher.announce(slot)
    publisher.slots.make_room()
    return slot


def queue_frame(publisher: Publisher, slot: Slot, session: int, peer: bytes = b"") -> threading.Event:
    """A frame that waits in a queue until the event is set."""
    left = threading.Event()
    publisher.slots.sent(slot, session, zmq.MessageTracker(left), last=False, peer=peer)
    return left


def begin_slowly(publisher: Publisher, num: int) -> list[Slot]:
    """Session i fetches version i of `num`; the last is the newest then."""
    slots = []
    for session in range(num):
        assert push(publisher, session) is not None
        slot = publisher.slots.open(version(session), session)
        assert slot is not None
        slots.append(slot)
    return slots


def test_pushes_go_on_while_two_scorers_fetch_different_versions() -> None:
    publisher = publisher_of()
    begin_slowly(publisher, 2)
    pushed = [push(publisher, step) is not None for step in range(2, 12)]
    assert pushed == [True, False] + [True] * 8, "one finds no room, before the next there is"
    assert publisher.slots.open(version(0), 0) is not None
    assert publisher.slots.open(version(1), 1) is not None
    assert len(publisher.slots._slots) == NUM_SLOTS + 1


def test_of_many_slow_versions_the_youngest_gives_way_and_the_oldest_is_fetched_to_its_end(clock: Clock) -> None:
    publisher = publisher_of()
    begin_slowly(publisher, 3)
    late = version(2)
    for step in range(3, 30):
        clock.now += 1.0
        push(publisher, step)
        for session in (0, 1):
            assert publisher.slots.open(version(session), session) is not None, "it moves, and began earlier"
        if publisher.slots.open(late, 2) is None:
            late = publisher.slots.newest.version
            assert publisher.slots.open(late, 2) is not None
    assert late.step > 20
    assert publisher.skipped <= 14
    assert len(publisher.slots._slots) == NUM_SLOTS + 1


def test_a_version_of_which_nothing_moves_is_the_first_to_give_way(clock: Clock) -> None:
    publisher = publisher_of()
    begin_slowly(publisher, 2)
    push(publisher, 2)
    clock.now += SILENCE_S + 1
    publisher.slots.open(version(1), 1)
    assert push(publisher, 3) is None
    assert push(publisher, 4) is not None
    assert publisher.slots.open(version(0), 0) is None
    assert publisher.slots.open(version(1), 1) is not None
    assert len(publisher.slots._slots) == NUM_SLOTS


def test_a_version_moves_while_its_frames_leave_also_past_one_that_stays(clock: Clock) -> None:
    publisher = publisher_of()
    slots = begin_slowly(publisher, 2)
    queue_frame(publisher, slots[1], 5)
    moving = queue_frame(publisher, slots[1], 1)
    push(publisher, 2)
    clock.now += SILENCE_S + 1
    moving.set()
    for step in (3, 4):
        push(publisher, step)
    assert publisher.slots.open(version(0), 0) is None, "it stood still"
    assert publisher.slots.open(version(1), 1) is not None


def test_what_gives_way_with_frames_in_a_queue_keeps_their_bytes() -> None:
    publisher = publisher_of()
    slots = begin_slowly(publisher, 3)
    for session, slot in enumerate(slots):
        queue_frame(publisher, slot, session)
    before = [bytes(slot.host.numpy()) for slot in slots]
    given_way = {slot.host.data_ptr() for slot in (push(publisher, step) for step in range(3, 30)) if slot}
    assert len(given_way) >= 2
    assert not given_way & {slot.host.data_ptr() for slot in slots}
    assert [bytes(slot.host.numpy()) for slot in slots] == before


def test_memory_is_bounded_whoever_stops_reading() -> None:
    publisher, left = publisher_of(), []
    for step in range(50):
        slot = push(publisher, step)
        if slot is not None:
            publisher.slots.open(version(step), step)
            left.append(queue_frame(publisher, slot, step, peer=bytes([step])))
    assert len(publisher.slots._left) == MAX_LEFT
    assert len(publisher.slots._slots) == NUM_SLOTS + 1
    assert push(publisher, 50) is None
    for event in left:
        event.set()
    push(publisher, 51)
    assert push(publisher, 52) is not None
    assert publisher.slots._left == []


def test_a_connection_that_has_not_read_what_gave_way_gets_nothing_more() -> None:
    publisher = publisher_of()
    slots = begin_slowly(publisher, 3)
    frames = [
        [queue_frame(publisher, slot, session, peer=b"%d" % session) for _ in range(FEW + 1)]
        for session, slot in enumerate(slots)
    ]
    for step in (3, 4, 5):
        push(publisher, step)
    assert [publisher.slots.is_behind(b"%d" % session) for session in range(3)] == [False, False, True]
    assert [publisher.slots.holds(version(step)) for step in range(3)] == [True, True, False]
    frames[2][0].set()
    assert not publisher.slots.is_behind(b"2"), "the others may have been read by now"


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError()])
def test_without_memory_for_one_more_a_version_gives_way(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = publisher_of()
    begin_slowly(publisher, 2)
    refuse_memory(monkeypatch, error)
    pushed = [push(publisher, step) is not None for step in range(2, 8)]
    assert pushed == [True, False, False, True, True, True]
    assert publisher.slots.open(version(0), 0) is not None, "the older one"
    assert publisher.slots.open(version(1), 1) is None
    assert len(publisher.slots._slots) == NUM_SLOTS


def test_without_memory_a_version_that_gave_way_is_free_again_when_its_frames_have_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher = publisher_of()
    slots = begin_slowly(publisher, 2)
    frames = [queue_frame(publisher, slot, session) for session, slot in enumerate(slots)]
    refuse_memory(monkeypatch, RuntimeError("no memory"))
    assert [push(publisher, step) is not None for step in range(2, 8)] == [True] + [False] * 5
    assert publisher.slots._left == []
    for frame in frames:
        frame.set()
    assert push(publisher, 8) is not None


def test_a_version_without_frames_gives_way_where_those_with_frames_cannot(clock: Clock) -> None:
    publisher = publisher_of()
    slots = begin_slowly(publisher, 3)
    queue_frame(publisher, slots[0], 0)
    for step in (3, 4):
        push(publisher, step)
    publisher.slots._left = [waiting_slot(publisher) for _ in range(MAX_LEFT)]
    clock.now += SILENCE_S + 1
    publisher.slots.open(version(1), 1)
    publisher.slots.open(version(2), 2)
    assert any(push(publisher, step) is not None for step in range(5, 8))


def refuse_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object, **__: object) -> Slot:
        raise error

    monkeypatch.setattr("trainer.publisher.new_slot", refuse)


def waiting_slot(publisher: Publisher) -> Slot:
    slot = publisher.slots._new_slot(None)
    queue_frame(publisher, slot, 0)
    return slot


def test_a_push_that_must_not_be_skipped_waits_for_room_and_not_for_a_scorer() -> None:
    publisher = publisher_of()
    begin_slowly(publisher, 2)
    push(publisher, 2)
    pushed: list[Slot | None] = []
    thread = threading.Thread(target=lambda: pushed.append(publisher.push(3, wait_s=WITHIN_S)))
    thread.start()
    deadline = time.monotonic() + WITHIN_S
    while not pushed and time.monotonic() < deadline:
        publisher.slots.make_room()
        thread.join(0.001)
    thread.join(WITHIN_S)
    assert pushed[0] is not None
    assert publisher.skipped == 0


def test_a_push_does_not_wait_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = publisher_of()
    begin_slowly(publisher, 2)
    push(publisher, 2)
    new_slot, pushed = publisher.slots._new_slot, []

    def slow(old: Slot | None) -> Slot:
        thread = threading.Thread(target=lambda: pushed.append(publisher.push(4)), daemon=True)
        thread.start()
        thread.join(WITHIN_S / 10)
        assert not thread.is_alive(), "the training thread stands still"
        return new_slot(old)

    monkeypatch.setattr(publisher.slots, "_new_slot", slow)
    push(publisher, 3)
    assert pushed == [None]
