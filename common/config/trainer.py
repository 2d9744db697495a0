"""Options of the trainer."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from common.config.access import ListenOptions
from common.config.learning import LearningOptions
from common.config.shared import HealthOptions, PrecisionOptions, ProfileOptions
from common.config.training import CheckpointOptions, LogOptions, SelectionOptions, ServiceOptions, StepOptions
from common.selection.registry import METHODS, Entry


def _parse_candidates(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    if isinstance(value, str) and value.isdecimal() and int(value) > 0:
        return int(value)
    raise ValueError("must be auto or an integer greater than 0")


def _check_payload(payload: str) -> str:
    kind, separator, count = payload.partition(":")
    if payload == "all" or (kind == "best" and separator and count.isdecimal() and int(count) >= 1):
        return payload
    raise ValueError("must be all, or best:K with K of at least 1")


def _check_method(method: str) -> str:
    if method in METHODS:
        return method
    near = difflib.get_close_matches(method, METHODS, n=1)
    nearest = f" (nearest: {near[0]})" if near else ""
    raise ValueError(f"must be one of {', '.join(METHODS)}{nearest}")


Method = Annotated[str, AfterValidator(_check_method)]
Candidates = Annotated[int | Literal["auto"], BeforeValidator(_parse_candidates)]
Payload = Annotated[str, AfterValidator(_check_payload)]


class TrainerOptions(ListenOptions, HealthOptions, ProfileOptions, PrecisionOptions, LearningOptions):
    """One training run."""

    init: Path | None = Field(default=None, description="file with the parameters to start from")
    mode: Literal["uniform", "fresh", "stale"] = Field(
        default="stale",
        description="stale: scorers score; fresh: the trainer scores, with current weights; uniform: no scores",
    )
    method: Method = Field(default="mms", description="how samples are selected: " + ", ".join(METHODS))
    irreducible: Path | None = Field(
        default=None, description="table of irreducible losses that rho-loss needs, from `marginstream irreducible`"
    )
    candidates: Candidates = Field(
        default="auto",
        description="candidates for each step, B, or auto: all that are ready, up to what the method is designed for",
    )
    chunk_size: int | None = Field(
        default=None,
        gt=0,
        description="positions scored together; by default about 2b that divide B, and in fresh mode B",
    )
    push_every: int = Field(default=8, gt=0, description="optimiser steps between weight pushes to the scorers")
    max_staleness: int = Field(
        default=64, ge=0, description="steps by which scores may be older than the step that uses them"
    )
    fallback: Literal["uniform", "reuse", "wait"] = Field(
        default="uniform",
        description="when scored candidates are late: a plain batch, the next-best of the last pool, or wait",
    )
    transfer: Literal["reference", "payload"] = Field(
        default="reference", description="scorers send scores only, or tensors and targets too"
    )
    payload: Payload = Field(
        default="all", description="tensors sent with --transfer payload: all, or best:K of each chunk"
    )
    wire: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="dtype of pushed weights; auto: float32 for float32 scorers, else bf16"
    )
    out: Path | None = Field(default=None, description="run folder; by default runs/DATA-METHOD-TIME")
    resume: bool = Field(
        default=False, description="go on from the newest checkpoint in --out; from the beginning if there is none yet"
    )
    step: StepOptions = Field(default=StepOptions(), description="how the training step is computed")
    selection: SelectionOptions = Field(default=SelectionOptions(), description="when selection applies")
    service: ServiceOptions = Field(default=ServiceOptions(), description="waiting, leases and liveness")
    checkpoint: CheckpointOptions = Field(
        default=CheckpointOptions(), description="saved states that --resume goes on from"
    )
    log: LogOptions = Field(default=LogOptions(), description="what is recorded, how often")

    @model_validator(mode="before")
    @classmethod
    def _uniform_is_mode_and_method(cls, given: Any) -> Any:
        """`--mode uniform` and `--method uniform` mean each other; only explicit opposites are a conflict."""
        if not isinstance(given, dict):
            return given
        if "uniform" in (given.get("mode"), given.get("method")):
            given = {"mode": "uniform", "method": "uniform"} | given
        return given

    @model_validator(mode="after")
    def _agree(self) -> "TrainerOptions":
        if (self.mode == "uniform") != (self.method == "uniform"):
            raise ValueError(
                f"--mode {self.mode} contradicts --method {self.method}: uniform is both or neither; leave one out"
            )
        if self.resume and self.out is None:
            raise ValueError("--resume needs --out, the folder of the run that is to go on")
        self.selection.check_parameters(self.method)
        if (self.irreducible is not None) != (self.method == "rho-loss"):
            raise ValueError(
                f"--method {self.method} and --irreducible {self.irreducible}: rho-loss needs the file that "
                "`marginstream irreducible` writes, and no other method reads one"
            )
        if self.mode != "uniform":
            self._check_candidates()
        if self.mode == "stale":
            self._check_staleness()
        if self.needs_scorers:
            self._check_chunk_is_one_lease()
        if self.payload != "all" and self.transfer != "payload":
            raise ValueError(f"--payload {self.payload} needs --transfer payload, got {self.transfer}")
        if self.mode == "stale" and self.transfer == "payload":
            self._check_payload_fits_the_method()
            self._check_payload_fills_a_batch()
        return self

    @property
    def max_candidates(self) -> int:
        """B, or for `auto` the most that a step takes."""
        if self.candidates == "auto":
            return self.entry.candidates_per_selected * self.batch_size
        return int(self.candidates)

    @property
    def entry(self) -> Entry:
        """The method's line in the registry."""
        return METHODS[self.method]

    @property
    def needs_scorers(self) -> bool:
        """Whether other processes score for this run."""
        return self.mode == "stale" and self.entry.needs_scorer

    @property
    def resolved_chunk_size(self) -> int:
        """`chunk_size`, or its default: 2b, for a number of candidates the nearest that divides it; fresh mode: all."""
        if self.chunk_size is not None:
            return self.chunk_size
        if self.mode != "stale" and self.entry.kind == "pool":
            return self.max_candidates
        if self.candidates == "auto":
            return min(2, self.entry.candidates_per_selected) * self.batch_size
        total = self.max_candidates
        divisors = [size for size in range(self.batch_size, total + 1) if total % size == 0]
        return max((size for size in divisors if size <= 2 * self.batch_size), default=divisors[0])

    @property
    def payload_best(self) -> int | None:
        """K of `best:K`; None for `all`."""
        return None if self.payload == "all" else int(self.payload.partition(":")[2])

    def _check_candidates(self) -> None:
        limit = self.max_candidates
        if limit < self.batch_size:
            raise ValueError(
                f"--candidates must be at least --batch-size ({self.batch_size}), got {limit}; raise it or use auto"
            )
        if self.chunk_size is None:
            return
        if self.chunk_size > limit:
            shown = f"{limit}, for auto" if self.candidates == "auto" else limit
            raise ValueError(f"--chunk-size must be at most the candidates of a step ({shown}), got {self.chunk_size}")
        if self.candidates != "auto" and limit % self.chunk_size:
            raise ValueError(
                f"--candidates must be a multiple of --chunk-size ({self.chunk_size}), got {limit}; "
                "leave --chunk-size out for one that fits"
            )

    def _check_chunk_is_one_lease(self) -> None:
        # Imported here: numpy comes with it, and --help does without.
        from common.protocol.limits import DEFAULT_LIMITS

        chunk, most = self.resolved_chunk_size, DEFAULT_LIMITS.max_chunk
        if chunk > most:
            default = "" if self.chunk_size is not None else f", its default for --batch-size {self.batch_size}"
            divides = "" if self.candidates == "auto" else f" that divides --candidates ({self.max_candidates})"
            raise ValueError(
                f"--chunk-size must be at most {most}, for scorers to take it as one lease, got {chunk}{default}; "
                f"give a smaller one{divides}"
            )

    def _check_staleness(self) -> None:
        if self.max_staleness < self.push_every - 1:
            raise ValueError(
                f"--max-staleness must be at least --push-every - 1 ({self.push_every - 1}), got {self.max_staleness}; "
                "push more often or allow older scores"
            )

    def _check_payload_fits_the_method(self) -> None:
        entry = self.entry
        if entry.kind == "planned" or entry.reuses_scores or entry.backend == "predictor":
            raise ValueError(
                f"--transfer payload does not go with --method {self.method}, which trains on samples that no scorer "
                "has just scored; use --transfer reference"
            )
        if self.payload != "all" and not entry.ranks:
            raise ValueError(
                f"--payload {self.payload} ships the best of each chunk by score, and --method {self.method} does not "
                "take the best; use --payload all"
            )

    def _check_payload_fills_a_batch(self) -> None:
        best, chunk = self.payload_best, self.resolved_chunk_size
        if best is None:
            return
        if best > chunk:
            raise ValueError(f"--payload best:K must have K of at most --chunk-size ({chunk}), got {best}")
        sent = best * (self.max_candidates // chunk)
        if sent < self.batch_size:
            raise ValueError(
                f"--payload best:{best} sends {sent} of {self.max_candidates} candidates, fewer than --batch-size "
                f"({self.batch_size}); raise K"
            )
