"""What a publisher keeps of frames on their way: with many scorers, no more than are on their way."""

import threading

import zmq
from torch import nn

from trainer.publisher import Publisher

GENERATION = 7


def test_frames_that_have_left_are_forgotten_as_others_follow() -> None:
    publisher = Publisher(nn.Linear(1, 1), None, GENERATION)
    slot = publisher.push(0)
    assert slot is not None
    publisher.announce(slot)
    waits = 3  # for the frames of the next sessions
    events = [threading.Event() for _ in range(100)]
    for session, event in enumerate(events):
        publisher.slots.sent(slot, session, zmq.MessageTracker(event), last=True)
        if session >= waits:
            events[session - waits].set()
        assert len(slot.queued) <= waits + 1


def test_a_version_is_queued_until_the_last_of_its_frames_has_left_in_whatever_order() -> None:
    publisher = Publisher(nn.Linear(1, 1), None, GENERATION)
    slot = publisher.push(0)
    assert slot is not None
    events = [threading.Event() for _ in range(3)]
    for event in events:
        publisher.slots.sent(slot, 1, zmq.MessageTracker(event), last=False)
    for left in (1, 0, 2):
        assert slot.is_queued()
        events[left].set()
    assert not slot.is_queued()
