"""What each rank trains on: its share of the plain order, and candidates of its own under the ids of all."""

import numpy as np
import pytest
import torch

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.source import Source, TensorSplit
from common.order import Order
from common.shard import WHOLE, Shard
from tests.trainer.chunks import scored
from tests.trainer.selectors import make_method
from tests.trainer.test_candidates import payload
from trainer.batch import Gatherer
from trainer.candidates import CandidateSet
from trainer.sourcing import PlainBatches

NUM, B = 23, 3


def make_gatherer(shard: Shard) -> Gatherer:
    """Over samples that hold their ids."""
    inputs = torch.arange(NUM, dtype=torch.float32)[:, None].repeat(1, 2)
    source = Source("numbers", TensorSplit(inputs, torch.arange(NUM) % 3), None, 3)
    augmentation = Augmentation(AugmentOptions(), 0, source.sample)
    candidates = SampleReader(source, augmentation, shard.candidates(NUM, 0), shard)
    plain = SampleReader(source, augmentation, Order(NUM, 0, "plain"))
    return Gatherer(source, candidates, plain, torch.device("cpu"))


def plain_of(shard: Shard, batch_size: int = B) -> PlainBatches:
    return PlainBatches(make_gatherer(shard), batch_size)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_plain_batches_of_all_ranks_together_are_those_of_one_rank_with_as_many_samples(num_ranks: int) -> None:
    ranks = [plain_of(Shard(rank, num_ranks)) for rank in range(num_ranks)]
    alone = plain_of(WHOLE, B * num_ranks)
    for step in range(5):
        together = np.concatenate([rank.next(step).ids for rank in ranks])
        assert together.tolist() == alone.next(step).ids.tolist()


def test_a_restored_rank_goes_on_in_its_round_whether_a_batch_was_warm_or_not() -> None:
    shard = Shard(1, 3)
    whole, again = plain_of(shard), plain_of(shard)
    whole.next(0)
    for warm in (False, True):
        if warm:
            whole.warm_up()
        again.load_state_dict(whole.state_dict())
        assert again.state_dict() == {"next_position": 9}
        assert again.next(1).ids.tolist() == Order(NUM, 0, "plain").ids(np.arange(12, 15)).tolist()


SHARD = Shard(1, 3)  # 8 samples: 1, 4, … 22


def expected(*positions: int) -> list[int]:
    return (SHARD.candidates(NUM, 0).ids(np.array(positions)) * 3 + 1).tolist()


@pytest.mark.parametrize("is_shipped", [False, True])
def test_a_picked_batch_names_ids_of_the_whole_data_set(is_shipped: bool) -> None:
    chunk = scored(6, scores=[3, 1, 2, 0], payload=payload(6, [0, 1, 2, 3]) if is_shipped else None)
    candidates = CandidateSet([chunk], SHARD.candidates(NUM, 0), ("mms",))
    picked = candidates.take(make_method("mms").select(candidates.offer, 3, torch.Generator()))
    assert picked.ids.max() < 8, "local until the border"
    batch = make_gatherer(SHARD).picked_batch(picked, 9, "stale", 4)
    assert batch.ids.tolist() == expected(9, 7, 8)
    if not is_shipped:
        assert batch.inputs[:, 0].tolist() == expected(9, 7, 8)


def test_candidates_are_read_by_global_and_known_by_local_ids() -> None:
    inputs, targets, ids, _ = make_gatherer(SHARD).read_candidates(np.arange(5, 11))
    assert (ids * 3 + 1).tolist() == inputs[:, 0].tolist() == expected(*range(5, 11))
    assert targets.tolist() == [one % 3 for one in expected(*range(5, 11))]


def test_a_shipped_batch_names_ids_of_the_whole_data_set() -> None:
    batch = make_gatherer(SHARD).shipped_batch(np.array([3, 12]), torch.ones(2, 2), torch.tensor([1, 2]), 3, "plain")
    assert batch.ids.tolist() == expected(3, 12)
