"""Messages by which a session begins, stays alive and ends, and the names that they may hold."""

from typing import Annotated

from msgspec import Meta, Struct

from common.errors import ProtocolError
from common.protocol.addresses import Addresses, check_addresses
from common.protocol.arrays import Buffer
from common.protocol.limits import MAX_RANKS, Limits
from common.protocol.values import (
    Leases,
    Name,
    Natural,
    Positive,
    Prose,
    Random,
    Seconds,
    Spent,
    Version,
    check_distinct,
    check_printable,
    one_of,
    presentable,
)
from common.protocol.wire import Wire

SCORES = ("mms", "loss", "entropy", "gradient-norm", "predicted-loss")
TRANSFERS = ("reference", "payload")
WIRES = ("float32", "bf16")
PRECISIONS = ("float32", "bf16", "fp16", "int8")
BACKENDS = ("torch", "synthetic", "predictor", "proxy")
FINGERPRINTS = ("model", "data", "decoder", "augmentation")
"""Compared in this order, so that REJECT names the cause and not its consequence."""
REJECTIONS = ("protocol", "run", *FINGERPRINTS, "num_samples", "num_classes", "precision", "backend", "capacity")
ERRORS = ("unknown-session", "malformed", "unexpected", "limit")


class Hello(Wire, frozen=True):
    """Scorer to trainer, first of all. `protocol` stays the first field for ever."""

    protocol: Natural
    run: Name
    name: Name
    incarnation: Random
    device: Name
    precision: Annotated[str, one_of(PRECISIONS)]
    backend: Annotated[str, one_of(BACKENDS)]
    fingerprint: dict[Annotated[str, one_of(FINGERPRINTS)], Name]
    num_samples: Natural
    num_classes: Natural

    def check_fields(self, limits: Limits) -> None:
        check_printable("names", self.run, self.name, self.device, *self.fingerprint.values())


class ForeignHello(Struct, frozen=True, array_like=True):
    """A HELLO of another protocol version: nothing else of it can be read. Answered by Reject("protocol", ...)."""

    protocol: Natural


class Welcome(Wire, frozen=True):
    """Trainer to scorer: the session, and what this run wants of it.

    `scores` gives the order of the arrays in Candidates. `best_k` is None where the payload is every candidate, else
    the number of those with the lowest (`lowest_is_hard`) or highest first score. `weights_port` is 0 on ipc.
    `embeddings`: each candidate's error and features are wanted as well. `steps` are those of the whole run, 0 where
    nobody knows. `rank` is the sender's among the trainer's `num_ranks`: its positions are of its share of the
    `num_samples` samples. Rank 0 alone has weights, and names the others: `ranks` are the addresses of ranks 1, 2, …
    on tcp; on ipc their endpoints follow from its own.
    """

    session: Random
    generation: Natural
    seed: Random
    num_samples: Natural
    chunk_size: Positive
    scores: tuple[Annotated[str, one_of(SCORES)], ...]
    transfer: Annotated[str, one_of(TRANSFERS)]
    best_k: Positive | None
    lowest_is_hard: bool
    wire: Annotated[str, one_of(WIRES)]
    weights_port: Annotated[int, Meta(ge=0, le=65535)]
    version: Version | None
    heartbeat_s: Seconds
    silence_s: Seconds
    embeddings: bool = False
    steps: Natural = 0
    rank: Annotated[int, Meta(ge=0, lt=MAX_RANKS)] = 0
    num_ranks: Annotated[int, Meta(ge=1, le=MAX_RANKS)] = 1
    ranks: Addresses = ()

    def check_fields(self, limits: Limits) -> None:
        if self.chunk_size > limits.max_chunk:
            raise ProtocolError(f"chunk_size must be at most {limits.max_chunk}, got {self.chunk_size}")
        if self.best_k is not None and self.transfer != "payload":
            raise ProtocolError("best_k needs transfer payload")
        check_distinct("scores", self.scores)
        if self.rank >= self.num_ranks:
            raise ProtocolError(f"rank must be in [0, {self.num_ranks}), got {self.rank}")
        if self.num_ranks > max(1, self.num_samples):
            raise ProtocolError(f"{self.num_ranks} ranks cannot share {self.num_samples} samples")
        if self.ranks and (self.rank, len(self.ranks)) != (0, self.num_ranks - 1):
            raise ProtocolError(
                f"ranks are named by rank 0, all the others of {self.num_ranks}: "
                f"got {len(self.ranks)} from rank {self.rank}"
            )
        check_addresses("ranks", self.ranks)


class Reject(Wire, frozen=True):
    """Trainer to scorer: `field` differs between the two. Its layout is the same in every protocol version."""

    field: Annotated[str, one_of(REJECTIONS)]
    message: Prose

    def outgoing(self, frames: list[Buffer]) -> dict[str, object]:
        return {"message": presentable(self.message)}

    def incoming(self, frames: list[Buffer]) -> None:
        check_printable("message", *self.message.split("\n"))


class Goodbye(Wire, frozen=True):
    """Both ways: the session ends; all its leases are given back."""

    reason: Prose

    def outgoing(self, frames: list[Buffer]) -> dict[str, object]:
        return {"reason": presentable(self.reason)}

    def incoming(self, frames: list[Buffer]) -> None:
        check_printable("reason", *self.reason.split("\n"))


class Heartbeat(Wire, frozen=True):
    """Both ways, every heartbeat_s. `progress` only grows while its sender does work: chunks scored, steps trained.

    `spent` is a scorer's; None from a trainer.
    """

    progress: Natural
    resident: Version | None
    leases: Leases
    step: Natural
    spent: Spent | None = None

    def check_fields(self, limits: Limits) -> None:
        check_distinct("leases", self.leases)


class Error(Wire, frozen=True):
    """Both ways: what was wrong with the last message."""

    code: Annotated[str, one_of(ERRORS)]
    text: Prose

    def outgoing(self, frames: list[Buffer]) -> dict[str, object]:
        return {"text": presentable(self.text)}

    def incoming(self, frames: list[Buffer]) -> None:
        check_printable("text", *self.text.split("\n"))
