"""From scored chunks to the samples of a step: the same for fresh and for stale mode.

    chunks ──► candidates ──► method.observe, ledger ──► pool: b of them at once
                                                    ├──► stream: coins, then a queue until b
                                                    └──► planned: b of all samples, out of the ledger

Owned by the thread that selects: the feeder in stale mode, the training thread in fresh mode.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.order import Order, keyed_uint64
from common.selection.method import Method, Offer, Selection
from common.selection.registry import Entry
from trainer.candidates import NOT_STREAMED, CandidateSet, Picked
from trainer.chunks import ScoredChunk
from trainer.ledger import Ledger
from trainer.queue import SampleQueue


class Selector:
    """Owns a method's state, the queue of a stream, and what the ledger is told of candidates.

    Args:
        method: composed, so that nothing comes twice.
        entry: of the method in the registry.
        order: of the candidates; ids are local to the rank.
        ledger: by id; None if nothing is to be remembered.
        batch_size: b.
        steps: of the run.
        seed: keys all draws, together with the position of the first candidate.
        stream: of the draws, so that ranks draw for themselves.
        queue: of a stream method.
        targets_of: gives the classes of ids; None if nobody looks at them.

    Attributes:
        order: as given.
    """

    def __init__(
        self,
        method: Method,
        entry: Entry,
        order: Order,
        ledger: Ledger | None,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        stream: str = "selection",
        queue: SampleQueue,
        targets_of: Callable[[np.ndarray], Tensor] | None = None,
    ) -> None:
        self.method = method
        self.kind = entry.kind
        self._entry = entry
        self.order = order
        self._ledger = ledger
        self._batch_size = batch_size
        self._steps = steps
        self._seed, self._stream = seed, stream
        self._targets_of = targets_of
        self.queue = queue
        self._last: CandidateSet | None = None
        self.num_offered = 0
        self.num_remembered = 0
        self._all_ids = torch.arange(order.num_samples) if self.kind == "planned" else torch.empty(0)
        self._all_targets: Tensor | None = None

    @property
    def score_names(self) -> tuple[str, ...]:
        return self.method.scores

    @property
    def knows_any(self) -> bool:
        """Whether any sample was ever scored."""
        return self.num_offered > 0

    def offer(self, chunks: Sequence[ScoredChunk], step: int) -> int:
        """Show the method what was scored for this step; returns the number of candidates."""
        if not chunks:
            return 0
        remembers = self._entry.reuses_scores and self._ledger is not None
        candidates = CandidateSet(
            chunks,
            self.order,
            self.score_names,
            progress=step / self._steps,
            targets_of=self._targets_of,
            remembered=self._ledger.losses_of if remembers and self._ledger is not None else None,
        )
        self.num_offered += len(candidates)
        self.num_remembered += candidates.num_unwanted
        self._note(candidates, chunks)
        self.method.observe(candidates.offer)
        if self.kind == "stream":
            selection = self.method.select(
                candidates.offer, self._batch_size, self._generator(candidates.first_position)
            )
            classes = None if candidates.offer.targets is None else candidates.offer.targets[selection.indices].numpy()
            self.queue.add(candidates.take(selection), classes)
        elif self.kind == "pool":
            self._last = candidates
        return len(candidates)

    def pick(self, step: int) -> Picked | None:
        """The samples of this step; None if there are not enough yet, empty if no candidate had a finite score."""
        if self.kind == "stream":
            return self.queue.take(self._batch_size, step)
        if self.kind == "planned":
            return self._from_ledger(step)
        assert self._last is not None, "nothing was offered"
        candidates = self._last
        picked = candidates.take(
            self.method.select(candidates.offer, self._batch_size, self._generator(candidates.first_position))
        )
        if len(picked) == 0:
            self._last = None
        return picked

    def pick_again(self, oldest_step: int) -> Picked | None:
        """The next-best of the last candidates, scored with weights of at least that step; None if too few are left."""
        if self.kind != "pool" or self._last is None:
            return None
        candidates = self._last
        selection = self.method.select(
            candidates.within(oldest_step), self._batch_size, self._generator(candidates.first_position, oldest_step)
        )
        if selection.num_missing or len(selection.indices) == 0:
            self._last = None
            return None
        return candidates.take(selection)

    def note_late(self, chunk: ScoredChunk) -> None:
        """Remember the scores of a chunk that is too stale to be offered: they were counted on when it was leased."""
        if self._ledger is not None:
            self._remember(chunk, self.order.ids_between(chunk.start, chunk.stop))

    def _note(self, candidates: CandidateSet, chunks: Sequence[ScoredChunk]) -> None:
        if self._ledger is None:
            return
        self._ledger.visited(candidates.ids)
        if not self._ledger.keeps_results:
            return
        start = 0
        for chunk in chunks:
            self._remember(chunk, candidates.ids[start : start + len(chunk)])
            start += len(chunk)

    def _remember(self, chunk: ScoredChunk, ids: np.ndarray) -> None:
        """What a forward pass said, of samples whose payload was not shipped too."""
        assert self._ledger is not None, "nothing to remember with"
        rows = slice(None) if chunk.wanted is None else chunk.wanted
        news = {name: row.numpy()[rows] for name, row in chunk.scores.items()}
        first = self.score_names[0] if self.score_names else ""
        self._ledger.scored(ids[rows], losses=news.get("loss"), scores=news.get(first))

    def _from_ledger(self, step: int) -> Picked:
        ledger = self._ledger
        assert ledger is not None, "a planned method needs a ledger"
        assert ledger.loss is not None, "a planned method looks at losses"
        if self._all_targets is None and self._targets_of is not None:
            self._all_targets = self._targets_of(self._all_ids.numpy())  # once: some sources read every sample for it
        offer = Offer(
            {"loss": torch.from_numpy(ledger.loss)},
            self._all_ids,
            progress=step / self._steps,
            targets=self._all_targets,
        )
        selection: Selection = self.method.select(offer, self._batch_size, self._generator(step))
        ids = selection.indices.numpy()
        unknown = torch.full((len(ids),), torch.nan)
        probability = torch.ones(len(ids)) if selection.probability is None else selection.probability
        return Picked(
            ids,
            np.full(len(ids), step, dtype=np.int64),  # drawn at any time: each visit has an augmentation of its own
            np.full(len(ids), NOT_STREAMED, dtype=np.int64),
            selection.weights,
            probability,
            offer.scores["loss"][selection.indices],
            unknown,
            num_missing=selection.num_missing,
        )

    def _generator(self, *key: int) -> torch.Generator:
        return torch.Generator().manual_seed(int(keyed_uint64(self._seed, self._stream, *key)))

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next selection depends on, as tensors in nested dicts."""
        return {
            "method": self.method.state_dict(),
            "queue": self.queue.state_dict(),
            "num_offered": torch.tensor(self.num_offered),
            "num_remembered": torch.tensor(self.num_remembered),
            "ledger": {} if self._ledger is None else self._ledger.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A method without a state begins anew."""
        if state["method"] is not None:
            self.method.load_state_dict(state["method"])
        self.queue.load_state_dict(state["queue"])
        self.num_offered = int(state["num_offered"])
        self.num_remembered = int(state["num_remembered"])
        if self._ledger is not None:
            self._ledger.load_state_dict(state["ledger"])
        self._last = None
