"""A rank that pushes no weights takes scores of any that rank 0 can have, and of no others."""

import time

from torch import nn

from common.protocol import Version
from tests.trainer.chunks import GENERATION, make_pool
from trainer.publisher import Publisher
from trainer.ranks.following import FollowedVersions


def test_weights_of_up_to_the_step_after_the_one_gathered_for_may_exist() -> None:
    pool = make_pool()
    versions = FollowedVersions(GENERATION, pool)
    assert Version(GENERATION, 0) in versions
    pool.advance(7)
    assert [step for step in range(12) if Version(GENERATION, step) in versions] == list(range(9))


def test_weights_of_another_life_or_of_none_do_not_exist() -> None:
    versions = FollowedVersions(GENERATION, make_pool())
    assert Version(GENERATION - 1, 0) not in versions
    assert Version(GENERATION + 1, 0) not in versions
    assert (GENERATION, 0) not in versions


def test_a_rank_without_slots_keeps_no_weights() -> None:
    publisher = Publisher(nn.Linear(4, 2), None, GENERATION, num_slots=0)
    assert publisher.slots.newest is None
    assert publisher.slots.open(Version(GENERATION, 0), session=1) is None
    publisher.slots.release(1, dead=True)
    started = time.monotonic()
    assert publisher.push(3) is None
    assert time.monotonic() - started < 1
