"""Every message, and the byte that stands for its type."""

from common.protocol.leases import Candidates, Lease, Return, Revoke
from common.protocol.predictor import Feedback, PredictorState
from common.protocol.sessions import Error, ForeignHello, Goodbye, Heartbeat, Hello, Reject, Welcome
from common.protocol.versions import Fetch, VersionHint, Weights, WeightsGone
from common.protocol.wire import Wire

Message = (
    Hello
    | ForeignHello
    | Welcome
    | Reject
    | Lease
    | Candidates
    | VersionHint
    | Fetch
    | Weights
    | WeightsGone
    | Revoke
    | Return
    | Goodbye
    | Heartbeat
    | Error
    | Feedback
    | PredictorState
)

# A type's byte is its place here, counted from 1: append only.
MESSAGE_TYPES: tuple[type[Wire], ...] = (
    Hello,
    Welcome,
    Reject,
    Lease,
    Candidates,
    VersionHint,
    Fetch,
    Weights,
    WeightsGone,
    Revoke,
    Return,
    Goodbye,
    Heartbeat,
    Error,
    Feedback,
    PredictorState,
)
