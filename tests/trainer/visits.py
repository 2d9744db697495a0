"""Visits to a ledger, for its tests."""

import numpy as np

from common.order import Order
from trainer.ledger import Ledger


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.int64 if all(isinstance(value, int) for value in values) else np.float32)


def visit(ledger: Ledger, order: Order, first: int, last: int, *, max_age: int, chunk: int = 128) -> np.ndarray:
    """Chunks `first` to `last` of an endless order, every forward answered at once; which positions needed one."""
    plans = []
    for start in range(first * chunk, last * chunk, chunk):
        ids = order.ids(np.arange(start, start + chunk))
        plans.append(ledger.plan_visit(ids, max_age))
        forwarded = ids[plans[-1]]
        ledger.scored(forwarded, losses=(forwarded % 7).astype(np.float32))
        ledger.visited(ids)
    return np.concatenate(plans)
