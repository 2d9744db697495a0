"""What travels between scorer and trainer: messages, and their frames. No sockets here."""

from common.protocol.arrays import Array, Buffer
from common.protocol.frames import MAGIC, TAG_BYTES, decode, encode
from common.protocol.leases import Candidates, Lease, Return, Revoke
from common.protocol.limits import DEFAULT_LIMITS, MAX_HISTORY, MAX_NAME, MAX_TEXT, PROTOCOL_VERSION, Limits
from common.protocol.messages import Message
from common.protocol.placed import Placed
from common.protocol.predictor import Feedback, PredictorState
from common.protocol.sessions import (
    BACKENDS,
    ERRORS,
    FINGERPRINTS,
    PRECISIONS,
    REJECTIONS,
    SCORES,
    TRANSFERS,
    WIRES,
    Error,
    ForeignHello,
    Goodbye,
    Heartbeat,
    Hello,
    Reject,
    Welcome,
)
from common.protocol.values import DTYPE_BYTES, Spent, TensorSpec, Version, pack_mask, unpack_mask
from common.protocol.versions import Fetch, VersionHint, Weights, WeightsGone

__all__ = [
    "BACKENDS",
    "DEFAULT_LIMITS",
    "DTYPE_BYTES",
    "ERRORS",
    "FINGERPRINTS",
    "MAGIC",
    "MAX_HISTORY",
    "MAX_NAME",
    "MAX_TEXT",
    "PRECISIONS",
    "PROTOCOL_VERSION",
    "REJECTIONS",
    "SCORES",
    "TAG_BYTES",
    "TRANSFERS",
    "WIRES",
    "Array",
    "Buffer",
    "Candidates",
    "Error",
    "Feedback",
    "Fetch",
    "ForeignHello",
    "Goodbye",
    "Heartbeat",
    "Hello",
    "Lease",
    "Limits",
    "Message",
    "Placed",
    "PredictorState",
    "Reject",
    "Return",
    "Revoke",
    "Spent",
    "TensorSpec",
    "Version",
    "VersionHint",
    "Weights",
    "WeightsGone",
    "Welcome",
    "decode",
    "encode",
    "pack_mask",
    "unpack_mask",
]
