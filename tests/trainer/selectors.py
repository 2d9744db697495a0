"""Selectors of any method for tests, and what they picked by position."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.order import Order
from common.selection.compose import Composed
from common.selection.method import Setting
from common.selection.methods import load_method
from common.selection.registry import METHODS
from tests.trainer.chunks import scored
from trainer.candidates import CandidateSet, Picked
from trainer.chunks import ScoredChunk
from trainer.ledger import Ledger
from trainer.queue import SampleQueue
from trainer.selector import Selector

NUM = 23
NUM_CLASSES = 3


def make_order(num_samples: int = NUM) -> Order:
    return Order(num_samples, 0, "candidates")


def classes_of(ids: np.ndarray) -> Tensor:
    return torch.from_numpy(ids % NUM_CLASSES)


def make_ledger(name: str, num_samples: int = NUM) -> Ledger:
    """What a run of that method keeps."""
    return Ledger(num_samples, {*METHODS[name].ledger, "score", "seen", "selected"})


def make_method(
    name: str,
    *,
    num_samples: int = NUM,
    batch_size: int = 3,
    steps: int = 1000,
    class_quota: float | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Composed:
    irreducible = torch.linspace(0, 1, num_samples) if name == "rho-loss" else None
    setting = Setting(num_samples, NUM_CLASSES, batch_size, steps, parameters or {}, irreducible)
    return Composed(load_method(name, setting), METHODS[name].kind, class_quota=class_quota)


def make_selector(
    name: str,
    *,
    num_samples: int = NUM,
    batch_size: int = 3,
    steps: int = 1000,
    max_staleness: int = 4,
    class_quota: float | None = None,
    ledger: Ledger | None = None,
    targets_of: Callable[[np.ndarray], Tensor] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Selector:
    """As a run puts it together; a ledger is made if the method needs one and none is given."""
    entry = METHODS[name]
    method = make_method(
        name,
        num_samples=num_samples,
        batch_size=batch_size,
        steps=steps,
        class_quota=class_quota,
        parameters=parameters,
    )
    if targets_of is None and (entry.needs_targets or class_quota is not None):
        targets_of = classes_of
    return Selector(
        method,
        entry,
        make_order(num_samples),
        make_ledger(name, num_samples) if ledger is None and entry.ledger else ledger,
        batch_size=batch_size,
        steps=steps,
        seed=0,
        queue=SampleQueue(max_staleness, class_quota),
        targets_of=targets_of,
    )


def candidates_of(chunks: Sequence[ScoredChunk], *, score: str = "mms", **more: Any) -> CandidateSet:
    return CandidateSet(chunks, make_order(), (score,), **more)


def pick(candidates: CandidateSet, num: int, *, method: str = "mms", oldest_step: int = 0) -> Picked:
    """The `num` that a method selects out of what is left."""
    offer = candidates.within(oldest_step)
    return candidates.take(make_method(method).select(offer, num, torch.Generator().manual_seed(0)))


def positions_of(picked: Picked, num_samples: int = NUM) -> list[int]:
    """Where in the order they stand."""
    order, positions = make_order(num_samples), np.arange(40 * num_samples)
    known = dict(zip(zip(order.ids(positions), order.epochs(positions), strict=True), positions.tolist(), strict=True))
    return [known[key] for key in zip(picked.ids, picked.visits, strict=True)]


def ids_at(*positions: int, num_samples: int = NUM) -> np.ndarray:
    return make_order(num_samples).ids(np.array(positions, dtype=np.int64))


def losses(start: int, values: list[float], *, step: int = 0, wanted: list[bool] | None = None) -> ScoredChunk:
    """A chunk of losses; `values` of the wanted positions only."""
    if wanted is None:
        return scored(start, len(values), step=step, scores=values, score="loss")
    row = torch.full((len(wanted),), torch.nan)
    row[torch.tensor(wanted)] = torch.tensor(values, dtype=torch.float32)
    chunk = scored(start, len(wanted), step=step, scores=row.tolist(), score="loss")
    return ScoredChunk(chunk.start, chunk.stop, chunk.version, chunk.scores, np.array(wanted))
