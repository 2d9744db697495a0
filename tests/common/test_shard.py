"""Shards of a data set: every sample belongs to one rank, and what ranks know of theirs can be put together."""

import numpy as np
import pytest

from common.order import Order
from common.shard import WHOLE, Shard, merged

SIZES = [(23, 1), (23, 2), (24, 3), (5, 5), (7, 4)]


def shards(num_ranks: int) -> list[Shard]:
    return [Shard(rank, num_ranks) for rank in range(num_ranks)]


@pytest.mark.parametrize(("num", "num_ranks"), SIZES)
def test_each_sample_is_owned_by_one_rank_under_one_local_id(num: int, num_ranks: int) -> None:
    ids = np.arange(num)
    owners = np.stack([shard.owned(ids) for shard in shards(num_ranks)])
    assert (owners.sum(axis=0) == 1).all()
    for shard in shards(num_ranks):
        own = ids[shard.owned(ids)]
        assert shard.local_ids(own).tolist() == list(range(shard.num_of(num)))
        assert shard.global_ids(shard.local_ids(own)).tolist() == own.tolist()
        assert ids[shard.rows].tolist() == own.tolist()


@pytest.mark.parametrize(("num", "num_ranks"), SIZES)
def test_in_each_epoch_the_ranks_together_have_every_sample_scored_once(num: int, num_ranks: int) -> None:
    for epoch in range(3):
        seen = []
        for shard in shards(num_ranks):
            size = shard.num_of(num)
            order = shard.candidates(num, seed=4)
            assert order.num_samples == size
            seen += shard.global_ids(order.ids(np.arange(epoch * size, (epoch + 1) * size))).tolist()
        assert sorted(seen) == list(range(num))


def test_one_rank_has_the_order_and_the_streams_that_it_always_had() -> None:
    assert WHOLE.candidates(23, 4) == Order(23, 4, "candidates")
    assert WHOLE.named("selection") == "selection"
    ids = np.arange(5)
    assert WHOLE.global_ids(ids) is WHOLE.local_ids(ids) is ids


def test_ranks_draw_for_themselves() -> None:
    orders = [shard.candidates(1000, seed=4).ids(np.arange(500)).tolist() for shard in shards(2)]
    assert orders[0] != orders[1]
    assert Shard(0, 2).named("selection") != Shard(0, 3).named("selection") != Shard(1, 3).named("selection")


@pytest.mark.parametrize(("num", "num_ranks"), SIZES)
def test_what_the_ranks_know_is_put_together_by_id(num: int, num_ranks: int) -> None:
    whole = np.arange(2 * num, dtype=np.float32).reshape(num, 2)
    again = merged([whole[shard.rows] for shard in shards(num_ranks)])
    np.testing.assert_array_equal(again, whole)
    assert again.dtype == np.float32


def test_arrays_that_are_not_the_shards_of_one_data_set_are_refused() -> None:
    with pytest.raises(ValueError, match="ranks of 3, 5 samples are not the shards of one data set"):
        merged([np.zeros(3), np.zeros(5)])
    with pytest.raises(ValueError, match="ranks of 1, 1, 0, 1"):
        merged([np.zeros(1), np.zeros(1), np.zeros(0), np.zeros(1)])


@pytest.mark.parametrize(("rank", "num_ranks"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_cannot_be_is_refused(rank: int, num_ranks: int) -> None:
    with pytest.raises(ValueError, match="rank must be in"):
        Shard(rank, num_ranks)
