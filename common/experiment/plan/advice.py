"""From what was measured to what to run: how many candidates the scorers can supply while the trainer takes a step.

N = candidates of a step, k = selected ones, S = scorers, q = how much faster a scorer's pass is than the trainer's.
A trainer spends about 3k forward-units a step and the scorers N, so without waiting N/k <= 3 S q.
"""

import math
from dataclasses import dataclass

from common.config import RunOptions
from common.experiment.plan.measured import Measured, Scoring

HEADROOM = 0.9  # of what the scorers can supply: a chunk that comes late costs a step its selection
WORTHWHILE = 2  # candidates for each selected one, below which there is hardly a choice
PUSH_FRACTION = 0.01  # of the trainer's time that pushes may take
LOAD_FRACTION = 0.03  # of a scorer's time that loading them may take
PUSH_PERIODS = (4, 8, 16, 32, 64)
MAX_CHUNK = 512


@dataclass(frozen=True)
class Advice:
    """What to run, and what to expect of it.

    Attributes:
        options: to give beside those that were given, by name of the flag.
        scorers, precision, candidates, chunk, push_every: as they will be, given or advised.
        q, inequality: 3 S q, from the passes measured alone.
        sustained: candidates for each selected one that the scorers supply, from both measured at the same time.
        waited_fraction: of the time, with --fallback wait; other fallbacks train on plain batches in that share.
        stale_s, fresh_s, plain_s: of one step, stale ones with the wait in them.
        fresh_precision: in which the trainer scores a fresh step's candidates fastest.
        is_worthwhile: whether scorers can supply a choice at all.
    """

    options: dict[str, str]
    scorers: int
    precision: str
    candidates: int
    chunk: int
    push_every: int
    q: float
    inequality: float
    sustained: float
    waited_fraction: float
    stale_s: float
    fresh_s: float
    plain_s: float
    fresh_precision: str
    is_worthwhile: bool

    @property
    def over_fresh(self) -> float:
        """How much faster a stale step is than one that scores as many candidates in the trainer, at its best."""
        return self.fresh_s / self.stale_s

    @property
    def break_even(self) -> float:
        """Share of plain training's steps below which stale training is the faster one."""
        return self.plain_s / self.stale_s


def choose_scoring(measured: Measured, precision: str | None) -> Scoring:
    """The fastest precision that selects nearly what float32 does, or the one that was given, at its best chunk."""
    return min(_able(measured, precision) or measured.scoring[:1], key=measured.scored_s)


def fresh_scoring(measured: Measured, precision: str | None, candidates: int) -> tuple[float, str]:
    """Seconds in which the trainer scores a step's candidates itself, and in which precision it is fastest.

    Lower precisions take over the weights before each step. They are known where the scorers' device is the trainer's.
    """
    found = [(candidates * measured.forward_s, "float32")]
    if measured.scorer_device == measured.trainer_device:
        able = [one for one in _able(measured, precision) if one.precision != "float32"]
        low = [(candidates * one.sample_s + one.load_s, one.precision) for one in able]
        found = low if low and precision is not None else found + low
    return min(found)


def _able(measured: Measured, precision: str | None) -> list[Scoring]:
    """Of the precision that was given, or all that select nearly what float32 does."""
    return [one for one in measured.scoring if one.precision == precision or (precision is None and one.is_good)]


def num_scorers(measured: Measured, scoring: Scoring, wanted: float) -> int:
    """Scorers for `wanted` candidates per selected, as far as cores go; one where a GPU scores."""
    if measured.scorer_device != "cpu":
        return 1
    own = measured.threads if measured.trainer_device == "cpu" else 1
    spare = (measured.cores - own) // measured.threads
    supplied = step_with(measured) / measured.scored_s(scoring) / measured.batch_size
    return max(1, min(spare, math.ceil(wanted / (HEADROOM * supplied))))


def step_with(measured: Measured) -> float:
    """Seconds of a training step with the threads that a run gives it."""
    return measured.step_s[measured.threads]


def advise(options: RunOptions, measured: Measured) -> Advice:
    """What to run. Options in `options.model_fields_set` stay as they are."""
    given = options.model_fields_set
    scoring = choose_scoring(measured, given_precision(options))
    wanted = options.entry.candidates_per_selected
    scorers = options.scorers if "scorers" in given else num_scorers(measured, scoring, wanted)
    step_s, scored_per_step = step_with(measured), step_with(measured) * scorers / measured.scored_s(scoring)
    together = measured.together
    if together is not None:
        step_s *= together.slowdown
        scored_per_step = together.step_s * together.candidates_per_s * scorers / together.scorers
    b = measured.batch_size
    sustained = scored_per_step / b
    advised: dict[str, str] = {}

    def take(name: str, value: int | str) -> None:
        if name not in given or getattr(options, name) == "auto":
            advised[name] = str(value)

    candidates = options.candidates
    if candidates == "auto":
        candidates = b * max(1, min(wanted, math.floor(HEADROOM * sustained)))
        if options.chunk_size is not None:
            candidates = max(1, candidates // options.chunk_size) * options.chunk_size
    chunk = options.chunk_size or best_chunk(candidates, b, scoring.chunk)
    push_every = options.push_every if "push_every" in given else push_period(options, measured, scoring, step_s)
    take("scorers", scorers)
    take("precision", scoring.precision)
    take("candidates", candidates)
    take("chunk_size", chunk)
    take("push_every", push_every)
    if options.threads is None and measured.cores > 1 and options.num_threads is None:
        take("threads", measured.threads)
    slower = max(1.0, candidates / scored_per_step)
    q = measured.q(scoring)
    scored_s, fresh_precision = fresh_scoring(measured, given_precision(options), candidates)
    return Advice(
        options=advised,
        scorers=scorers,
        precision=scoring.precision,
        candidates=candidates,
        chunk=chunk,
        push_every=push_every,
        q=q,
        inequality=3 * scorers * q,
        sustained=sustained,
        waited_fraction=1 - 1 / slower,
        stale_s=step_s * slower + measured.push_s / push_every,
        fresh_s=step_with(measured) + scored_s,
        plain_s=measured.plain_s,
        fresh_precision=fresh_precision,
        is_worthwhile=sustained * HEADROOM >= WORTHWHILE,
    )


def given_precision(options: RunOptions) -> str | None:
    """The precision that was asked for by name."""
    return options.precision if "precision" in options.model_fields_set and options.precision != "auto" else None


def best_chunk(candidates: int, batch_size: int, fastest: int) -> int:
    """Candidates of a step in equal parts of whole batches: the smallest that is no smaller than the fastest chunk."""
    most = min(candidates, max(MAX_CHUNK, batch_size))
    parts = [size for size in range(batch_size, most + 1, batch_size) if candidates % size == 0]
    return next((size for size in parts if size >= fastest), max(parts, default=candidates))


def push_period(options: RunOptions, measured: Measured, scoring: Scoring, step_s: float) -> int:
    """The shortest whose costs are small on both sides."""
    for period in PUSH_PERIODS:
        is_cheap = measured.push_s <= PUSH_FRACTION * period * step_s
        if is_cheap and scoring.load_s <= LOAD_FRACTION * period * step_s:
            return min(period, options.max_staleness + 1)
    return min(PUSH_PERIODS[-1], options.max_staleness + 1)
