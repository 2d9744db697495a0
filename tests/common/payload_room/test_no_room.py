"""Where there is no room, the message goes as it is."""

import errno
import os
from collections import Counter

import pytest
import torch
from msgspec.structs import replace

from common.payload_room import PayloadRoom, Rooms
from common.payload_room import area as area_of
from common.payload_room.area import Layout
from tests.common.payload_room.ends import Ends, answer, open_rooms, pattern
from tests.common.payload_room.samples import NUM, SHAPE, WELCOME


def fails(*args: object) -> int:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5555", "ipc:///nowhere/t"])
def test_without_an_ipc_endpoint_of_a_trainer_there_is_no_room(endpoint: str) -> None:
    before = open_rooms()
    room, message = PayloadRoom(endpoint), answer(1, pattern(1))
    room.begin(WELCOME)
    assert room.placed(message) is message
    assert open_rooms() == before


def test_a_trainer_on_tcp_opens_nothing() -> None:
    before = open_rooms()
    rooms = Rooms(Counter())
    rooms.open("tcp://127.0.0.1:5555")
    rooms.tick({1})
    rooms.close()
    assert open_rooms() == before


def test_a_trainer_that_cannot_take_rooms_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    rooms = Rooms(Counter())
    rooms.open("ipc:///nowhere/t")
    rooms.tick({1})
    rooms.close()
    assert "payload travels through the socket: cannot take shared memory at /nowhere/t.m" in caplog.text


@pytest.mark.parametrize("name", ["memfd_create", "ftruncate", "posix_fallocate"])
def test_without_memory_for_a_room_payload_travels_by_the_socket(
    apart: Ends, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level("INFO")
    before = open_rooms()
    monkeypatch.setattr(os, name, fails)
    apart.room.begin(WELCOME)
    for number in (1, 2):
        was_placed, inputs = apart.ship(number)
        assert not was_placed
        assert torch.equal(inputs, pattern(number))
    assert caplog.text.count("Cannot allocate memory") == 1, "said once in a session"
    assert open_rooms() == before


def test_a_room_is_as_large_as_memory_allows(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = [ends.ship(1), ends.ship(2)]
    monkeypatch.setattr(os, "posix_fallocate", fails)
    assert not ends.ship(3)[0]
    assert not ends.ship(4)[0]
    assert caplog.text.count("no memory for slot 2 of the payload's room") == 1
    held.clear()
    assert ends.ship(5)[0], "what there is, is used"


def test_without_a_free_slot_an_answer_waits_for_nothing(ends: Ends) -> None:
    held = [ends.ship(number)[1] for number in range(1, 70)]
    assert ends.events["chunks through shared memory"] == area_of.MAX_SLOTS
    assert all(torch.equal(inputs, pattern(number)) for number, inputs in enumerate(held, start=1))


def test_pages_are_taken_as_slots_are_used(ends: Ends) -> None:
    def pages() -> int:
        return os.fstat(ends.room._descriptor).st_blocks * 512 // area_of.PAGE_BYTES

    per_slot = -(-pattern(0).nbytes // area_of.PAGE_BYTES)
    for number in range(1, 20):
        ends.ship(number)
    assert pages() == 1 + per_slot
    held = [ends.ship(number) for number in range(20, 23)]
    assert pages() == 1 + len(held) * per_slot


@pytest.mark.parametrize(
    "changes", [{"transfer": "reference"}, {"chunk_size": 1 << 14}], ids=["by reference", "chunks of half a room"]
)
def test_other_sessions_have_no_room(apart: Ends, changes: dict[str, object]) -> None:
    apart.join(replace(WELCOME, **changes))
    assert not apart.ship(1)[0]


def test_small_inputs_and_audits_stay_in_the_message(ends: Ends) -> None:
    small = answer(1, pattern(1)[:5])
    assert ends.room.placed(small) is small
    audit = replace(answer(1, pattern(1)), inputs=None, targets=None)
    assert ends.room.placed(audit) is audit


@pytest.mark.parametrize("chunk_bytes", [1, 2_000_000, 19_000_000, 127 << 20])
def test_slots_are_whole_pages_within_the_bounds_of_a_room(chunk_bytes: int) -> None:
    layout = Layout.of(chunk_bytes)
    assert layout is not None
    assert layout.is_possible
    assert layout.slot_bytes >= chunk_bytes
    assert layout.num_slots == min(64, (area_of.ROOM_BYTES - area_of.PAGE_BYTES) // layout.slot_bytes)


def test_chunks_of_more_than_half_a_room_have_none() -> None:
    assert Layout.of(128 << 20) is None
    assert SHAPE[0] * NUM * 64 * 64 > area_of.SOCKET_BYTES
