"""What ranks know of their samples, as one ledger."""

import numpy as np
import pytest

from common.shard import Shard
from trainer.ledger import Ledger
from trainer.ranks.ledgers import merged_ledger


def ledgers(num: int, num_ranks: int) -> list[Ledger]:
    """Each sample was selected as often as its id in the whole data set says."""
    made = []
    for rank in range(num_ranks):
        shard = Shard(rank, num_ranks)
        ledger = Ledger(shard.num_of(num), ("selected", "loss"))
        ids = np.arange(shard.num_of(num))
        ledger.scored(ids, losses=shard.global_ids(ids).astype(np.float32))
        ledger.trained(np.repeat(ids, shard.global_ids(ids)), None)
        made.append(ledger)
    return made


@pytest.mark.parametrize(("num", "num_ranks"), [(7, 3), (7, 1), (8, 2)])
def test_a_merged_ledger_is_by_id_of_the_whole_data_set(num: int, num_ranks: int) -> None:
    whole = merged_ledger([ledger.state_dict() for ledger in ledgers(num, num_ranks)])
    assert whole.fields == ("loss", "selected")
    assert whole.num_samples == num
    assert whole.selected.tolist() == list(range(num))
    assert whole.loss.tolist() == list(range(num))


def test_ledgers_of_other_fields_are_not_merged() -> None:
    first, second = Ledger(4, ("loss",)), Ledger(4, ("age",))
    with pytest.raises(ValueError, match="ranks keep different fields"):
        merged_ledger([first.state_dict(), second.state_dict()])
