"""Versions are announced when their bytes are on the host, in the order of their pushes, without being waited for."""

from torch import nn

from common.protocol import Version
from trainer.publisher import Publisher
from trainer.slot import Slot
from trainer.weights_desk import WeightsDesk

GENERATION = 7


class FakeEvent:
    """Of a copy to the host; never to be waited for."""

    is_over = False

    def query(self) -> bool:
        return self.is_over

    def synchronize(self) -> None:
        assert self.is_over, "the I/O thread would stand still"


class Nobody(list[object]):
    """In place of sessions."""

    precisions: frozenset[str] = frozenset()
    backends: frozenset[str] = frozenset()


class Side:
    """A publisher and its desk, with as many pushes as are wanted; no scorer is there."""

    def __init__(self, num: int) -> None:
        self.publisher = Publisher(nn.Linear(3, 2), None, GENERATION, num_slots=num + 1)
        self.desk = WeightsDesk(self.publisher, Nobody(), lambda *message: None, "float32")
        self.slots = [self.push(step) for step in range(num)]

    def push(self, step: int) -> Slot:
        slot = self.publisher.push(step)
        assert slot is not None
        slot.copied = FakeEvent()
        return slot


def test_a_version_is_announced_when_its_copy_is_over_and_not_before() -> None:
    side = Side(1)
    assert side.desk.announce(side.slots[0]) is None
    assert side.publisher.slots.newest is None
    assert side.desk.announce() is None
    side.slots[0].copied.is_over = True
    assert side.desk.announce() == Version(GENERATION, 0)
    assert side.publisher.slots.newest is side.slots[0]
    assert not side.desk.filled


def test_versions_are_announced_in_order_and_never_before_one_that_was_pushed_earlier() -> None:
    side = Side(2)
    side.slots[1].copied.is_over = True
    assert [side.desk.announce(slot) for slot in side.slots] == [None, None]
    side.slots[0].copied.is_over = True
    assert side.desk.announce() == Version(GENERATION, 1)
    assert side.desk.announce() is None


def test_of_several_the_latest_is_announced_and_the_slots_of_the_others_are_free_again() -> None:
    side = Side(3)
    for slot in side.slots:
        side.desk.announce(slot)
    for slot in side.slots[:2]:
        slot.copied.is_over = True
    assert side.desk.announce() == Version(GENERATION, 1)
    assert side.publisher.slots.open(Version(GENERATION, 0), session=1) is None
    assert side.push(3) is side.slots[0]
    assert list(side.desk.announced) == [Version(GENERATION, 1)]
