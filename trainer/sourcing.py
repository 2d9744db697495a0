"""Where a step's batch comes from: the plain order, the pool, or a fallback. Runs on the feeder thread."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import TrainingDiverged
from trainer.batch import Batch, Gatherer, Origin
from trainer.candidates import Picked
from trainer.chunks import ScoredChunk
from trainer.plan import Plan
from trainer.pool import Pool
from trainer.selector import Selector

WAIT_S = 0.1
MAX_EMPTY = 3  # one may be bad data; several in a row are bad weights


class PlainBatches:
    """Batches of the plain order, which is keyed like the candidates' and consumes no chunk.

    All ranks share one order of the whole data set and take turns: in round k, rank r of W has the positions
    [(k W + r) b, (k W + r + 1) b). So W ranks that train on nothing else train on what one rank with W·b would.

    Attributes:
        next_position: where the next round begins.
    """

    def __init__(self, gatherer: Gatherer, batch_size: int) -> None:
        self._gatherer = gatherer
        self._batch_size = batch_size
        self._offset = gatherer.shard.rank * batch_size
        self._round_size = gatherer.shard.num_ranks * batch_size
        self.next_position = 0
        self._warm: Batch | None = None

    def next(self, step: int, origin: Origin = "plain") -> Batch:
        """The next plain batch, from stock if one is kept warm."""
        self.warm_up()
        assert self._warm is not None
        warm, self._warm = self._warm, None
        return replace(warm, step=step, origin=origin)

    def warm_up(self) -> None:
        """Have a batch in stock, so that a fallback costs no read."""
        if self._warm is None:
            start = self.next_position + self._offset
            positions = np.arange(start, start + self._batch_size)
            self.next_position += self._round_size
            self._warm = self._gatherer.plain_batch(positions, 0, "plain")

    def state_dict(self) -> dict[str, Any]:
        """The one in stock is read anew."""
        return {"next_position": self.next_position - (0 if self._warm is None else self._round_size)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.next_position, self._warm = state["next_position"], None


class ShippedBatches:
    """Plain batches for a trainer that cannot read the data: candidates in their order, whatever their scores.

    Positions come in a keyed random order, so a run of them is a uniform sample. Waits for scorers: there is nothing
    else to train on.

    Args:
        rest: called while it waits, see `trainer.feeder.Feeder.rest`.
    """

    def __init__(self, gatherer: Gatherer, pool: Pool, batch_size: int, rest: Callable[[], None]) -> None:
        self._gatherer = gatherer
        self._pool = pool
        self._batch_size = batch_size
        self._rest = rest
        self._positions = np.empty(0, dtype=np.int64)
        self._inputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def next(self, step: int, origin: Origin = "plain") -> Batch:
        while len(self._positions) < self._batch_size:
            self._stock_up()
        inputs, targets = torch.cat(self._inputs), torch.cat(self._targets)
        now, later = slice(None, self._batch_size), slice(self._batch_size, None)
        batch = self._gatherer.shipped_batch(self._positions[now], inputs[now], targets[now], step, origin)
        self._positions, self._inputs, self._targets = self._positions[later], [inputs[later]], [targets[later]]
        return batch

    def warm_up(self) -> None:
        """Nothing to do: what is in the pool is all there is."""

    def state_dict(self) -> dict[str, Any]:
        """Samples in stock, which cannot be read anew."""
        return {"positions": torch.from_numpy(self._positions), "inputs": self._inputs, "targets": self._targets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._positions = state["positions"].numpy().copy()
        self._inputs, self._targets = list(state["inputs"]), list(state["targets"])

    def _stock_up(self) -> None:
        seen = self._pool.changes
        while (chunk := self._pool.take_first()) is None:
            self._rest()
            self._pool.wait(WAIT_S, seen)
            seen = self._pool.changes
        assert chunk.payload is not None, "a trainer without data needs chunks with payload"
        finite = next(iter(chunk.scores.values()))[chunk.payload.rows].isfinite()
        self._positions = np.concatenate([self._positions, chunk.positions[chunk.payload.rows[finite].numpy()]])
        self._inputs.append(chunk.payload.inputs[finite])
        self._targets.append(chunk.payload.targets[finite])


class StaleSourcing:
    """Stale mode: the pool's chunks, or a fallback once the training thread stands still.

    Args:
        selector: the method with its queue and the ledger.
        is_awaited: whether the training thread waits for this very batch.
        rest: called while it waits, see `trainer.feeder.Feeder.rest`.
        on_finish: called once, when no further step selects.
        on_used: told of the chunks whose scores select the samples of a step.
    """

    def __init__(
        self,
        plan: Plan,
        plain: PlainBatches | ShippedBatches,
        gatherer: Gatherer,
        pool: Pool,
        selector: Selector,
        *,
        max_staleness: int,
        fallback: str,
        is_awaited: Callable[[], bool],
        rest: Callable[[], None],
        on_finish: Callable[[], None],
        on_used: Callable[[Sequence[ScoredChunk], int], None] = lambda chunks, step: None,
    ) -> None:
        self._plan = plan
        self._plain = plain
        self._gatherer = gatherer
        self._pool = pool
        self._selector = selector
        self._max_staleness = max_staleness
        self._fallback = fallback
        self._is_awaited = is_awaited
        self._rest = rest
        self._on_finish = on_finish
        self._on_used = on_used
        self.device = gatherer.device
        self._num_empty = 0  # candidate sets in a row without a finite score
        self._gathering = -1  # the step that selects last
        self._offered = 0  # candidates of that step so far
        pool.on_drop = selector.note_late
        self._pick = {"pool": self._from_pool, "stream": self._from_stream, "planned": self._from_ledger}[selector.kind]

    def prepare(self, step: int) -> Batch:
        if step == self._plan.stop_step:
            self._on_finish()
        self._pool.advance(step)
        if not self._plan.selects(step):
            return self._plain.next(step)
        if self._fallback == "uniform":
            self._plain.warm_up()
        if step != self._gathering:  # else a restored one, which had been offered some
            self._gathering, self._offered = step, 0
        while True:
            seen = self._pool.changes
            if (picked := self._pick(step)) is not None:
                return self._gatherer.picked_batch(picked, step, "stale", self._offered)
            self._rest()
            if self._is_awaited() and self._fallback != "wait":
                return self._fall_back(step)
            self._pool.wait(WAIT_S, seen)

    def state_dict(self) -> dict[str, Any]:
        """Between two steps, or where `rest` is called."""
        counts = {"gathering": self._gathering, "offered": self._offered, "num_empty": self._num_empty}
        return {**counts, "plain": self._plain.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._gathering, self._offered, self._num_empty = state["gathering"], state["offered"], state["num_empty"]
        self._plain.load_state_dict(state["plain"])

    def _from_pool(self, step: int) -> Picked | None:
        """The best of what is ready; None if that is too little. Chunks without a single finite score make none."""
        while chunks := self._pool.take(step):
            self._offered = self._selector.offer(chunks, step)
            picked = self._selector.pick(step)
            if picked is not None and len(picked):
                self._num_empty = 0
                self._on_used(chunks, step)
                return picked
            self._count_empty(step)
            self._pool.advance(step)  # the next chunks are for this step still
        return None

    def _from_stream(self, step: int) -> Picked | None:
        """What has queued, once that is enough; until then chunk after chunk, in the order of their positions."""
        while (picked := self._selector.pick(step)) is None:
            self._pool.advance(step)  # this step needs another one
            chunk = self._pool.take_first(step)
            if chunk is None:
                return None
            self._offered += self._selector.offer([chunk], step)
            self._on_used([chunk], step)
            if any(bool(row.isfinite().any()) for row in chunk.scores.values()) or not chunk.scores:
                self._num_empty = 0
            else:
                self._count_empty(step)
        return picked

    def _from_ledger(self, step: int) -> Picked | None:
        """Drawn from all samples, after whatever was scored meanwhile; None before anything is known."""
        while (chunk := self._pool.take_first(step)) is not None:
            self._offered += self._selector.offer([chunk], step)
        return self._selector.pick(step) if self._selector.knows_any else None

    def _count_empty(self, step: int) -> None:
        self._num_empty += 1
        if self._num_empty >= MAX_EMPTY:
            raise TrainingDiverged(
                f"step {step}: scorers find no finite score in the last {self._num_empty} sets of candidates; "
                "lower --lr or set --optim.clip-norm"
            )

    def _fall_back(self, step: int) -> Batch:
        if self._fallback == "reuse" and (picked := self._selector.pick_again(step - self._max_staleness)) is not None:
            return self._gatherer.picked_batch(picked, step, "reused", 0)
        return self._plain.next(step, "fallback")
