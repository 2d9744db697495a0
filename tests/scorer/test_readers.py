"""Where each rank's leases are read from."""

import gc
import weakref

import numpy as np
import torch

from common.data.reader import Samples
from common.shard import Shard
from scorer.readers import Readers
from tests.scorer.leases import NUM, SEED, SOURCE, options, welcome

W = 3
POSITIONS = np.arange(NUM // W - 40, NUM // W + 40)  # across two epochs


def read(readers: Readers, **changes: object) -> Samples:
    begun = welcome(("mms",), **changes)
    readers.begin(begun)
    return readers.of(begun).read(POSITIONS)


def test_each_rank_s_leases_are_of_its_own_samples_in_the_order_of_its_shard() -> None:
    readers, whole = Readers(options("torch"), SOURCE), Readers(options("torch"), SOURCE)
    every = [read(readers, rank=rank, num_ranks=W) for rank in range(W)]
    for rank, samples in enumerate(every):
        order = Shard(rank, W).candidates(NUM, SEED)
        assert samples.ids.tolist() == (order.ids(POSITIONS) * W + rank).tolist()
        assert torch.equal(samples.targets, SOURCE.train.fetch(torch.from_numpy(samples.ids))[1])
        again = readers.of(welcome(("mms",), rank=rank, num_ranks=W)).read(POSITIONS)
        assert torch.equal(again.inputs, samples.inputs), "also after another rank's turn"
    alone = read(whole).ids.tolist()
    assert alone == Shard().candidates(NUM, SEED).ids(POSITIONS).tolist()


def test_readers_of_sessions_that_ended_are_let_go() -> None:
    readers, gone = Readers(options("torch"), SOURCE), []
    for generation in (7, 8):
        for session in (1, 2):
            for rank in range(W):
                begun = welcome(("mms",), rank=rank, num_ranks=W, generation=generation, session=session)
                readers.begin(begun)
                gone.append(weakref.ref(readers.of(begun)))
    readers.begin(welcome(("mms",), generation=9))
    gc.collect()
    assert [reader() for reader in gone] == [None] * len(gone)
