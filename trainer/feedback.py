"""What training tells the ledger: which samples were trained, and with what loss. Never waits for the device."""

import collections

import numpy as np
import torch
from torch import Tensor

from common.shard import WHOLE, Shard
from trainer.batch import Batch
from trainer.ledger import Ledger
from trainer.prediction import LossHistories

NUM_PENDING = (
    16  # batches that are counted together, with warm caches: one at a time costs a step a tenth of a millisecond
)


class Feedback:
    """Owned by the training thread. On a GPU losses arrive a step or two late, when their copy is over.

    Args:
        ledger: told of every trained sample; None where nothing is remembered.
        histories: told of every loss; None where nobody predicts losses.
        needs_losses: whether the ledger's readers want losses of trained samples; otherwise nothing is copied.
        shard: the samples that both know; a plain batch holds others too, of which nothing is noted.
    """

    def __init__(
        self, ledger: Ledger | None, histories: LossHistories | None, *, needs_losses: bool, shard: Shard = WHOLE
    ) -> None:
        self._shard = shard
        self._ledger = ledger
        self._histories = histories
        self._needs_losses = needs_losses or histories is not None
        self._uncounted: list[np.ndarray] = []  # ids of batches without losses
        self._copying: collections.deque[tuple[Batch, Tensor, torch.cuda.Event]] = collections.deque()

    def add(self, batch: Batch, losses: Tensor | None) -> None:
        """Note a trained batch; `losses` (b,) on the trainer's device.

        Raises:
            ValueError: losses are needed and missing, or are not one for each sample.
        """
        if not self._needs_losses:
            self._note(batch, None)
            return
        if losses is None or losses.shape != (len(batch),):
            got = "none" if losses is None else f"shape {tuple(losses.shape)}"
            raise ValueError(
                f"this method needs the loss of each of the {len(batch)} samples in step(losses), got {got}"
            )
        losses = losses.detach()
        if losses.device.type != "cuda":
            self._note(batch, losses.float().cpu().numpy())
            return
        host = torch.empty(len(batch), dtype=torch.float32, pin_memory=True)
        host.copy_(losses, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._copying.append((batch, host, copied))
        while self._copying and self._copying[0][2].query():
            self._note_first()

    def finish(self) -> None:
        """Wait for what is still being copied, and count what was not: before the ledger is saved."""
        while self._copying:
            self._copying[0][2].synchronize()
            self._note_first()
        self._count()

    def _note_first(self) -> None:
        batch, host, _ = self._copying.popleft()
        self._note(batch, host.numpy())

    def _note(self, batch: Batch, losses: np.ndarray | None) -> None:
        ids = batch.ids
        if self._shard.num_ranks > 1:
            owned = self._shard.owned(ids)
            ids, losses = self._shard.local_ids(ids[owned]), None if losses is None else losses[owned]
        if self._histories is not None and losses is not None:
            self._histories.append(ids, losses)
        if self._ledger is None:
            return
        if batch.is_selected and losses is None:
            self._uncounted.append(ids.copy())
            if len(self._uncounted) >= NUM_PENDING:
                self._count()
        elif batch.is_selected:
            self._ledger.trained(ids, losses)
        elif losses is not None:
            self._ledger.scored(ids, losses=losses)

    def _count(self) -> None:
        if self._ledger is not None and self._uncounted:
            self._ledger.trained(np.concatenate(self._uncounted))
            self._uncounted.clear()
