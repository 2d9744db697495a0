"""Messages about the model that predicts losses: what it learns from, and its parameters."""

import numpy as np
from msgspec.structs import force_setattr

from common.errors import ProtocolError
from common.protocol.arrays import Array, Buffer, check_array, check_histories
from common.protocol.limits import Limits
from common.protocol.values import Natural
from common.protocol.wire import Raw, Wire, put_raw, take_raw


class Feedback(Wire, frozen=True):
    """Trainer to the scorer that trains the predictor: losses of samples that were trained on, all of one step.

    `ids` (b,) int64, `losses` (b,) float32, finite, and `histories` (b, H) float32: the losses known of these samples
    before these, the most recent last, NaN for none.
    """

    ids: Array
    losses: Array
    histories: Array

    @staticmethod
    def of(ids: np.ndarray, losses: np.ndarray, histories: np.ndarray) -> "Feedback":
        """Of the samples whose loss is finite; past losses that are not count as none.

        Args:
            ids: (b,) integers; losses: (b,) float32; histories: (b, H) float32, 1 <= H <= MAX_HISTORY.
        """
        kept = np.isfinite(losses)
        known = np.where(np.isfinite(histories), histories, np.float32(np.nan))[kept]
        return Feedback(
            Array.of(ids[kept].astype(np.int64)),
            Array.of(losses[kept].astype(np.float32)),
            Array.of(known.astype(np.float32)),
        )

    @property
    def num(self) -> int:
        return self.ids.shape[0]

    def check_fields(self, limits: Limits) -> None:
        check_array("ids", self.ids, "int64", range(limits.max_chunk + 1))
        check_array("losses", self.losses, "float32", self.num)
        if self.num and self.ids.as_numpy().min() < 0:
            raise ProtocolError("ids must be at least 0")
        if not np.isfinite(self.losses.as_numpy()).all():
            raise ProtocolError("losses must be finite")
        check_histories(self.histories, self.num)


class PredictorState(Wire, frozen=True):
    """Both ways: the predictor's parameters after `updates` steps of training.

    From the scorer that trains it to the trainer, which keeps the newest; from there to the other scorers.
    `state` holds all parameters in a row, float32 and finite.
    """

    updates: Natural
    state: Raw

    def outgoing(self, frames: list[Buffer]) -> dict[str, object]:
        return {"state": put_raw("state", self.state, frames)}

    def incoming(self, frames: list[Buffer]) -> None:
        force_setattr(self, "state", take_raw("state", self.state, frames))

    def check_fields(self, limits: Limits) -> None:
        num_bytes = len(self.state)
        if not 0 < num_bytes <= limits.max_state_bytes or num_bytes % 4:
            raise ProtocolError(f"state must be float32 in 4 to {limits.max_state_bytes} bytes, got {num_bytes}")
        if not np.isfinite(self.parameters()).all():
            raise ProtocolError("state must be finite")

    def parameters(self) -> np.ndarray:
        """(P,) float32, over the same memory."""
        return np.frombuffer(self.state, dtype="<f4")
