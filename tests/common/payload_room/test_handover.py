"""What the trainer takes for a room, and what it refuses."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from common.payload_room import Rooms, area, handover
from common.payload_room.area import PAGE_BYTES, Layout
from tests.common.payload_room.ends import Ends, answer, open_rooms, pattern
from tests.common.payload_room.samples import SESSION, WELCOME

LAYOUT = Layout(2, PAGE_BYTES)


def shrinkable() -> int:
    descriptor = os.memfd_create("marginstream-test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, LAYOUT.total_bytes)
    return descriptor


def regular_file() -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(LAYOUT.total_bytes)
        return os.dup(file.fileno())


def pipe() -> int:
    out, into = os.pipe()
    os.close(into)
    return out


def send(ends: Ends, make: Callable[[], int], layout: Layout = LAYOUT, session: int = SESSION) -> None:
    descriptor = make()
    handover.send(ends.endpoint.removeprefix("ipc://") + handover.SUFFIX, session, layout, descriptor)
    os.close(descriptor)


def test_nobody_can_shrink_a_room_that_the_trainer_has_mapped(ends: Ends) -> None:
    _, inputs = ends.ship(1)
    with pytest.raises(PermissionError):
        os.ftruncate(ends.room._descriptor, PAGE_BYTES)
    assert torch.equal(inputs, pattern(1))


@pytest.mark.parametrize(
    ("make", "layout", "says"),
    [
        (shrinkable, LAYOUT, "sealed against shrinking"),
        (regular_file, LAYOUT, "without seals"),
        (pipe, LAYOUT, "without seals"),
        (lambda: area.create(LAYOUT), Layout(3, PAGE_BYTES), "has 16384 bytes, got 12288"),
        (lambda: area.create(LAYOUT), Layout(1, PAGE_BYTES), "has 8192 bytes, got 12288"),
        (lambda: area.create(LAYOUT), Layout(2, PAGE_BYTES + 1), "whole pages"),
        (lambda: area.create(LAYOUT), Layout(0, PAGE_BYTES), "at most 64 slots"),
        (lambda: area.create(LAYOUT), Layout(65, PAGE_BYTES), "at most 64 slots"),
        (lambda: area.create(LAYOUT), Layout(1, 1 << 40), "at most 64 slots"),
    ],
)
def test_what_is_no_room_is_refused_in_words_and_closed(
    apart: Ends, caplog: pytest.LogCaptureFixture, make: Callable[[], int], layout: Layout, says: str
) -> None:
    before = open_rooms()
    send(apart, make, layout)
    apart.rooms.tick({SESSION})
    assert says in caplog.text
    assert apart.events == {"shared memory refused": 1}
    assert open_rooms() == before


def test_datagrams_of_another_form_and_rooms_of_nobody_are_closed(apart: Ends) -> None:
    before = open_rooms()
    path = apart.endpoint.removeprefix("ipc://") + handover.SUFFIX
    descriptor = area.create(LAYOUT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(path)
        for data, descriptors in ((b"", []), (b"x" * 28, [descriptor]), (b"x" * 5000, [descriptor] * 3)):
            socket.send_fds(sender, [data], descriptors)
    os.close(descriptor)
    send(apart, lambda: area.create(LAYOUT), session=SESSION + 1)
    apart.rooms.tick({SESSION})
    assert open_rooms() == before
    apart.join()
    assert apart.ship(1)[0]


def test_nothing_is_placed_before_the_trainer_has_taken_the_room(apart: Ends) -> None:
    apart.room.begin(WELCOME)
    for number in range(3):
        assert not apart.ship(number)[0]
    apart.rooms.tick({SESSION})
    assert apart.ship(3)[0]


def test_more_rooms_than_are_taken_at_once_wait_for_nobody(apart: Ends) -> None:
    before = open_rooms()
    path = apart.endpoint.removeprefix("ipc://") + handover.SUFFIX
    descriptor = area.create(LAYOUT)
    with contextlib.suppress(BlockingIOError):
        for _ in range(10_000):
            handover.send(path, SESSION, LAYOUT, descriptor)
        pytest.fail("the queue is never full")
    os.close(descriptor)
    apart.room.begin(WELCOME)
    assert not apart.ship(1)[0], "through the socket, as the queue is full"
    assert open_rooms()[0] == before[0]
    for _ in range(1000):
        apart.rooms.tick(set())
    assert open_rooms() == before


def test_a_scorer_that_joins_again_gets_a_room_of_its_new_session(ends: Ends) -> None:
    _, held = ends.ship(1)
    ends.join(replace(WELCOME, session=SESSION + 1))
    was_placed, inputs = ends.ship(3, SESSION + 1)
    assert was_placed
    assert torch.equal(held, pattern(1))
    assert torch.equal(inputs, pattern(3))


def test_a_session_that_ends_takes_its_room_along_once_its_tensors_are_gone(apart: Ends) -> None:
    before = open_rooms()
    apart.join()
    _, inputs = apart.ship(1)
    apart.rooms.tick(set())
    apart.room.forget()
    assert open_rooms()[0] == before[0] + 1, "the trainer's, under the tensor"
    assert torch.equal(inputs, pattern(1))
    del inputs
    assert open_rooms() == before


def test_the_next_trainer_at_an_endpoint_keeps_its_own_socket(apart: Ends) -> None:
    path = Path(apart.endpoint.removeprefix("ipc://") + handover.SUFFIX)
    following = Rooms(apart.events)
    following.open(apart.endpoint)
    apart.rooms.close()
    assert path.is_socket()
    following.close()
    assert not path.exists()


def test_an_answer_goes_through_the_socket_where_the_trainer_takes_no_rooms(
    apart: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    apart.rooms.close()
    caplog.set_level("INFO")
    apart.room.begin(WELCOME)
    message = answer(1, pattern(1))
    assert apart.room.placed(message) is message
    assert "no shared memory for it: [Errno 2]" in caplog.text
