"""One ledger of all samples, out of what each rank knows of its own."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from common.shard import merged
from trainer.ledger import Ledger


def merged_ledger(parts: Sequence[Mapping[str, Tensor]]) -> Ledger:
    """A ledger by id of the whole data set; for files and pictures.

    Args:
        parts: what `Ledger.state_dict` gave on each rank, in the order of ranks.

    Raises:
        ValueError: they do not keep the same fields, or are not the shards of one data set.
    """
    fields = tuple(parts[0])
    for part in parts:
        if tuple(part) != fields:
            raise ValueError(f"ranks keep different fields: {fields} and {tuple(part)}")
    arrays = {name: torch.from_numpy(merged([part[name].numpy() for part in parts])) for name in fields}
    ledger = Ledger(len(arrays[fields[0]]), fields)
    ledger.load_state_dict(arrays)
    return ledger
