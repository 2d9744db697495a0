"""Whose a slot is: nothing is written where the trainer may still read, and everything comes back."""

import random

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from common.errors import ProtocolError
from tests.common.payload_room.ends import Ends, answer, pattern
from tests.common.payload_room.samples import NUM, SESSION, SHAPE, WELCOME


def test_inputs_cross_whole_and_share_the_memory_of_the_room(ends: Ends) -> None:
    was_placed, inputs = ends.ship(1)
    assert was_placed
    assert torch.equal(inputs, pattern(1))
    assert (inputs.dtype, inputs.shape) == (torch.uint8, (NUM, *SHAPE))
    assert ends.room._area is not None
    ends.room._area.bytes_of(0, 1)[0] = 255 - pattern(1).flatten()[0].item()
    assert inputs.flatten()[0] == 255 - pattern(1).flatten()[0]
    assert ends.events == {"chunks through shared memory": 1}


@pytest.mark.parametrize("seed", range(3))
def test_what_the_trainer_holds_never_changes_while_slots_are_used_again(ends: Ends, seed: int) -> None:
    draws = random.Random(seed)
    held: list[tuple[int, Tensor]] = []
    ways = {True: 0, False: 0}
    for number in range(1, 400):
        was_placed, inputs = ends.ship(number)
        ways[was_placed] += 1
        views = [inputs, inputs[2:], inputs.view(NUM, -1)[:, 5:], inputs.numpy()[1:3]]
        held.append((number, torch.as_tensor(views[number % 4])))
        del inputs, views
        most = 80 if number % 200 > 100 else 5  # more than there are slots, now and then
        while len(held) > most:
            del held[draws.randrange(len(held))]
        for kept, view in draws.sample(held, min(4, len(held))):
            whole = pattern(kept)
            assert torch.equal(view, [whole, whole[2:], whole.view(NUM, -1)[:, 5:], whole[1:3]][kept % 4]), kept
    assert ways[True] > 200
    assert ways[False] > 0, "no slot was free at times"


def test_a_slot_is_free_once_the_last_view_of_it_is_gone(ends: Ends) -> None:
    _, inputs = ends.ship(1)
    part = inputs[3:, 1]
    slot = ends.placed(2).placed.slot
    del inputs
    assert ends.placed(3).placed.slot not in (0, slot)
    del part
    assert ends.placed(4).placed.slot == 0


def test_an_answer_that_is_refused_frees_its_slot(ends: Ends) -> None:
    for number in range(1, 200):
        message = ends.placed(number)
        assert message.placed.slot == 0
        ends.rooms.filled(SESSION, message)


def test_an_answer_that_did_not_leave_gives_its_slot_back(ends: Ends) -> None:
    first = ends.placed(1)
    ends.room.take_back(first)
    second = ends.placed(2)
    assert (first.placed.slot, second.placed.slot) == (0, 0)
    assert second.placed.use > first.placed.use
    ends.room.take_back(first)  # long over
    assert ends.placed(3).placed.slot == 1


def test_a_late_release_of_an_earlier_use_frees_nothing(ends: Ends) -> None:
    """A message of this scorer's earlier session comes while the next one has placed something in the same slot."""
    first, session = ends.placed(1), SESSION + 1
    ends.join(replace(WELCOME, session=session))
    second = ends.placed(2)
    assert first.placed.slot == second.placed.slot == 0
    late = ends.deliver(first, session)
    del late
    assert ends.placed(3).placed.slot == 1, "what is in slot 0 has not arrived yet"
    assert torch.equal(ends.deliver(second, session), pattern(2))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"slot": 64}, "slot 64 of 64"),
        ({"slot": 1 << 40}, "slot"),
        ({"shape": (NUM, 3, 1 << 20)}, "bytes in slot 0"),
        ({"shape": (NUM, 0)}, "0 bytes in slot 0"),
        ({"dtype": "float64"}, "bytes in slot 0"),
    ],
)
def test_a_place_that_cannot_be_is_refused(ends: Ends, changes: dict[str, object], says: str) -> None:
    message = ends.placed(1)
    with pytest.raises(ProtocolError, match=says):
        ends.deliver(ends.changed(message, **changes))
    assert torch.equal(ends.deliver(message), pattern(1))


def test_a_slot_that_is_held_or_a_use_that_is_over_is_refused(ends: Ends) -> None:
    message = ends.placed(1)
    inputs = ends.deliver(message)
    for use in (message.placed.use, message.placed.use + 1):
        with pytest.raises(ProtocolError, match="not over"):
            ends.deliver(ends.changed(message, use=use))
    del inputs
    with pytest.raises(ProtocolError, match="not over"):
        ends.deliver(message)


def test_a_session_without_a_room_cannot_place(ends: Ends) -> None:
    with pytest.raises(ProtocolError, match="does not have"):
        ends.deliver(ends.placed(1), session=SESSION + 1)
    ends.rooms.tick({SESSION + 1})
    with pytest.raises(ProtocolError, match="does not have"):
        ends.deliver(ends.placed(2))


def test_what_is_dropped_in_a_forked_child_stays_held(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    _, inputs = ends.ship(1)
    monkeypatch.setattr("common.payload_room.reading.os.getpid", lambda: -1)
    del inputs
    assert ends.placed(2).placed.slot == 1


def test_a_payload_larger_than_a_slot_travels_by_the_socket_and_is_the_same(ends: Ends) -> None:
    larger = pattern(1, NUM + 1)
    message = ends.room.placed(answer(1, larger))
    assert message.placed is None
    assert torch.equal(ends.deliver(message), larger)
