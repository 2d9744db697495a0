"""Ranks come together in a store that remembers earlier lives of their group."""

import threading

import pytest
import torch.distributed as dist

from common.errors import RankLost
from trainer.ranks.joining import name_of_this_life

WITHIN_S = 20.0


def life(store: dist.Store, size: int, *, late: int | None = None) -> list[str]:
    """The name that each rank of one life came to.

    Args:
        late: a rank that comes when all others are waiting.
    """
    names = [""] * size

    def join(rank: int) -> None:
        names[rank] = name_of_this_life(store, rank, size, WITHIN_S)

    threads = {rank: threading.Thread(target=join, args=(rank,), daemon=True) for rank in range(size)}
    for rank in sorted(threads, key=lambda rank: rank == late):
        threads[rank].start()
        if late is not None and rank != late:
            threads[rank].join(0.1)
    for thread in threads.values():
        thread.join(WITHIN_S)
    return names


@pytest.mark.parametrize("late", [None, 0, 1, 2])
def test_all_ranks_of_a_life_have_one_name_and_each_life_another(late: int | None) -> None:
    store = dist.HashStore()
    lives = [life(store, 3), life(store, 3, late=late), life(store, 2), life(store, 3)]
    assert all(len(set(names)) == 1 and names[0] for names in lives)
    assert len({names[0] for names in lives}) == 4


def test_ranks_that_do_not_come_are_named_also_where_they_came_in_an_earlier_life() -> None:
    store = dist.HashStore()
    life(store, 3)
    with pytest.raises(RankLost, match="rank 0 waited 0 s for trainer ranks that did not come: 1, 2"):
        name_of_this_life(store, 0, 3, 0.0)
    with pytest.raises(RankLost, match="rank 2 waited 0 s for trainer ranks that did not come: 0"):
        name_of_this_life(store, 2, 3, 0.0)
