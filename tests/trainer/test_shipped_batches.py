"""Plain batches out of the payload, for a trainer that cannot read the data."""

import numpy as np
import pytest
import torch

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.source import AbsentSplit, Source, TensorSplit
from common.errors import DataError
from common.order import Order
from common.protocol import Version
from trainer.batch import Gatherer
from trainer.chunks import Payload, ScoredChunk
from trainer.feeder import Stopped
from trainer.leases import LeaseBook, Pace
from trainer.pool import Pool
from trainer.sourcing import ShippedBatches
from trainer.state import copied

CHUNK = 8


def absent_source() -> Source:
    held_out = TensorSplit(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    return Source("absent", AbsentSplit(100), held_out, num_classes=2)


def gatherer(source: Source) -> Gatherer:
    augmentation = Augmentation(AugmentOptions(), 0, source.sample)
    readers = [SampleReader(source, augmentation, Order(100, 0, stream)) for stream in ("candidates", "plain")]
    return Gatherer(source, *readers, torch.device("cpu"))


def pool_with(num_chunks: int, dropped_row: int | None = None) -> Pool:
    pool = Pool(LeaseBook(CHUNK, Pace(4, 64, 8, 0, 100)), min_candidates=4, chunks_per_step=4, exact=False)
    pool.announce(Version(1, 0))
    for _ in range(num_chunks):
        held = pool.issue(session=1, credits=8)
        assert held is not None
        scores = torch.zeros(CHUNK)
        if dropped_row is not None:
            scores[dropped_row] = torch.nan
        inputs = torch.arange(held.start, held.stop).float().view(-1, 1).expand(-1, 2)
        payload = Payload(torch.arange(CHUNK), inputs, torch.zeros(CHUNK, dtype=torch.int64))
        chunk = ScoredChunk(held.start, held.stop, Version(1, 0), {"mms": scores}, payload=payload)
        assert pool.put(1, held.lease, chunk)
    return pool


def stop() -> None:
    raise Stopped


def test_shipped_batches_are_full_and_use_each_position_once() -> None:
    plain = ShippedBatches(gatherer(absent_source()), pool_with(3), 6, stop)
    positions = torch.cat([plain.next(step).inputs[:, 0] for step in range(4)])
    assert positions.tolist() == list(range(24))
    with pytest.raises(Stopped):
        plain.next(4)


def test_samples_in_stock_are_part_of_the_state() -> None:
    plain = ShippedBatches(gatherer(absent_source()), pool_with(2), 6, stop)
    plain.next(0)
    again = ShippedBatches(gatherer(absent_source()), pool_with(0), 6, stop)
    again.load_state_dict(copied(plain.state_dict()))
    assert len(again._positions) == 2
    again._pool = pool_with(2)
    again._pool.take_first()
    assert again.next(1).inputs[:, 0].tolist() == [6, 7, 8, 9, 10, 11]


def test_ids_of_shipped_batches_follow_the_order_of_candidates() -> None:
    plain = ShippedBatches(gatherer(absent_source()), pool_with(1), CHUNK, stop)
    np.testing.assert_array_equal(plain.next(0).ids, Order(100, 0, "candidates").ids(np.arange(CHUNK)))


def test_candidates_that_a_scorer_dropped_are_not_shipped_into_training() -> None:
    plain = ShippedBatches(gatherer(absent_source()), pool_with(2, dropped_row=3), 14, stop)
    assert plain.next(0).inputs[:, 0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15]


def test_an_absent_split_says_how_the_trainer_gets_its_data() -> None:
    with pytest.raises(DataError, match="--transfer payload"):
        absent_source().train.fetch(torch.zeros(1, dtype=torch.int64))
