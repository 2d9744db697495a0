"""Messages by which a session begins, stays alive and ends, and the names that they may hold."""

from dataclasses import dataclass
from typing import Annotated

from common.errors import ProtocolError
from common.protocol.fields import (
    AtOrNone,
    Choice,
    Choices,
    Flag,
    Int,
    Keyed,
    Label,
    Leases,
    Maybe,
    Natural,
    Prose,
    Random,
    Seconds,
)
from common.protocol.limits import Limits

SCORES = ("mms", "loss", "entropy", "gradient-norm", "predicted-loss")
TRANSFERS = ("reference", "payload")
WIRES = ("float32", "bf16")
PRECISIONS = ("float32", "bf16", "fp16", "int8")
BACKENDS = ("torch", "synthetic", "predictor", "proxy")
FINGERPRINTS = ("model", "data", "decoder", "augmentation")
"""Compared in this order, so that REJECT names the cause and not its consequence."""
REJECTIONS = ("protocol", "run", *FINGERPRINTS, "num_samples", "num_classes", "precision", "backend", "capacity")
ERRORS = ("unknown-session", "malformed", "unexpected", "limit")


@dataclass(frozen=True, slots=True)
class Hello:
    """Scorer to trainer, first of all. `protocol` stays the first field for ever."""

    protocol: Natural
    run: Label
    name: Label
    incarnation: Random
    device: Label
    precision: Annotated[str, Choice(PRECISIONS)]
    backend: Annotated[str, Choice(BACKENDS)]
    fingerprint: Annotated[dict[str, str], Keyed(FINGERPRINTS)]
    num_samples: Natural
    num_classes: Natural


@dataclass(frozen=True, slots=True)
class ForeignHello:
    """A HELLO of another protocol version: nothing else of it can be read. Answered by Reject("protocol", ...)."""

    protocol: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """Trainer to scorer: the session, and what this run wants of it.

    `scores` gives the order of the arrays in Candidates. `best_k` is None where the payload is every candidate, else
    the number of those with the lowest (`lowest_is_hard`) or highest first score. `weights_port` is 0 on ipc.
    `embeddings`: each candidate's error and features are wanted as well.
    """

    session: Random
    generation: Natural
    seed: Random
    num_samples: Natural
    chunk_size: Annotated[int, Int(1)]
    scores: Annotated[tuple[str, ...], Choices(SCORES)]
    transfer: Annotated[str, Choice(TRANSFERS)]
    best_k: Annotated[int | None, Maybe(Int(1))]
    lowest_is_hard: Annotated[bool, Flag()]
    wire: Annotated[str, Choice(WIRES)]
    weights_port: Annotated[int, Int(0, 65535)]
    version: AtOrNone
    heartbeat_s: Seconds
    silence_s: Seconds
    embeddings: Annotated[bool, Flag()] = False

    def check_fields(self, limits: Limits) -> None:
        if self.chunk_size > limits.max_chunk:
            raise ProtocolError(f"chunk_size must be at most {limits.max_chunk}, got {self.chunk_size}")
        if self.best_k is not None and self.transfer != "payload":
            raise ProtocolError("best_k needs transfer payload")


@dataclass(frozen=True, slots=True)
class Reject:
    """Trainer to scorer: `field` differs between the two. Its layout is the same in every protocol version."""

    field: Annotated[str, Choice(REJECTIONS)]
    message: Prose


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Both ways: the session ends; all its leases are given back."""

    reason: Prose


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Both ways, every heartbeat_s. `progress` only grows while its sender does work: chunks scored, steps trained."""

    progress: Natural
    resident: AtOrNone
    leases: Leases
    step: Natural


@dataclass(frozen=True, slots=True)
class Error:
    """Both ways: what was wrong with the last message."""

    code: Annotated[str, Choice(ERRORS)]
    text: Prose
