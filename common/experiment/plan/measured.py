"""What was measured of a machine. Plain numbers, so that the advice can be judged without the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scoring:
    """Scoring in one precision, alone on the scorer's device.

    Attributes:
        sample_s: seconds of a candidate: forward pass and scores, in chunks of `chunk`.
        overlap: share of the same tenth selected as in float32, in [0, 1], at initial weights.
        load_s: seconds to take over weights that arrived.
        is_good: whether the overlap is enough.
    """

    precision: str
    chunk: int
    sample_s: float
    overlap: float
    load_s: float
    is_good: bool


@dataclass(frozen=True)
class Together:
    """Training and scoring at the same time, each on cores of its own.

    Attributes:
        step_s, alone_s: of a training step with scorers at work and without, in turns.
        candidates_per_s: of all scorers.
    """

    precision: str
    chunk: int
    scorers: int
    step_s: float
    alone_s: float
    candidates_per_s: float

    @property
    def slowdown(self) -> float:
        """What scorers at work cost a training step: they share caches, memory and maybe cores."""
        return self.step_s / self.alone_s


@dataclass(frozen=True)
class Measured:
    """Times in seconds, medians.

    Attributes:
        cores: that this process may use.
        threads: of each process of a run.
        step_s: of a training step by number of threads, alone; on a GPU the one entry is of `threads`.
        forward_s: of the trainer's forward pass for one candidate, in float32, with `threads`.
        read_s: of a candidate's reading, augmentation and preparation.
        scoring: float32 first.
        message_s: of the scores of one chunk, from array to array through a socket.
        push_s: that the trainer stands still for a push.
        weights_s: of a push's way through a socket, `weights_bytes` long.
        load: processes that wanted to compute before anything was measured, a minute's average.
        together: None until it is measured.
    """

    trainer_device: str
    scorer_device: str
    cores: int
    threads: int
    batch_size: int
    step_s: dict[int, float]
    forward_s: float
    read_s: float
    scoring: tuple[Scoring, ...]
    message_s: float
    push_s: float
    weights_s: float
    weights_bytes: int
    load: float = 0.0
    together: Together | None = None

    @property
    def plain_s(self) -> float:
        """Of a plain step at its best number of threads."""
        return min(self.step_s.values())

    def scored_s(self, scoring: Scoring) -> float:
        """Of a candidate in a scorer: read, scored, answered."""
        return self.read_s + scoring.sample_s + self.message_s / scoring.chunk

    def q(self, scoring: Scoring) -> float:
        """How much faster a scorer's pass is than the trainer's, per candidate."""
        return self.forward_s / self.scored_s(scoring)
