"""Measures this machine for a plan, in this process and in neighbours that score beside it."""

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from common.config import to_toml
from common.config.plan import PlanOptions
from common.config.run import RunOptions
from common.config.shared import SMALL_MACHINE_CORES
from common.devices import pinned
from common.errors import ConfigError, DataError
from common.experiment.devices import Layout
from common.experiment.plan.advice import MAX_CHUNK, choose_scoring, given_precision, num_scorers
from common.experiment.plan.measured import Measured, Scoring, Together
from common.experiment.plan.wire import wire_s
from common.experiment.plan.workbench import Workbench, cores
from common.precision.auto import ENOUGH_OVERLAP, try_precisions
from common.processes import end, private_folder
from common.waiting import Wait

Say = Callable[[str], None]
MOST_NEIGHBOURS = 16
LINE_S = 600.0  # for a neighbour to start, or to have scored for a turn
TURNS = 3  # with scorers at work and without, so that a machine's moods cancel
TRAINED_FRACTION = 0.9  # of a turn of theirs, so that they score all the time


def measure(options: PlanOptions, layout: Layout, say: Say) -> Measured:
    """Everything, in about `options.measure_s` seconds beyond start-up. `say` is told what is being measured.

    Raises:
        ConfigError: there is no core for a scorer.
        DataError: a scorer beside the trainer ended.
    """
    allowed, load = cores(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    threads = options.threads or (1 if len(allowed) <= SMALL_MACHINE_CORES else max(1, len(allowed) // 4))
    scorer_device = layout.scorers[0] if layout.scorers else layout.trainer
    _check_room(layout.trainer, scorer_device, threads, len(allowed))
    part_s = options.measure_s / 8
    say("opening data and model")
    bench = Workbench(options, layout.trainer, threads)
    beside = bench if str(bench.device) == scorer_device else Workbench(options, scorer_device, threads)
    beside.check(given_precision(options))
    own = allowed[0] if bench.device.type == "cpu" and threads == 1 and len(allowed) > 1 else None
    step_s: dict[int, float] = {}
    if bench.device.type == "cpu" and len(allowed) > threads:
        say(f"training step on {len(allowed)} threads")
        torch.set_num_threads(len(allowed))
        step_s[len(allowed)] = bench.step_s(part_s)
        torch.set_num_threads(threads)
    with pinned(own):
        say(f"training step on {_threads(threads)}, alone")
        step_s[threads] = bench.step_s(part_s)
        wanted = options.entry.candidates_per_selected * options.batch_size
        say("reading, push and wire")
        read_s = bench.read_s(min(wanted, MAX_CHUNK), part_s / 4)
        say("scoring in each precision")
        scoring = tuple(_scoring(beside, _chunks(options), part_s / 16))
        forward_s = _forward_s(bench, options.batch_size, scoring, beside)
        push_s, weights_bytes = bench.push_s(_wire(options, scoring), part_s / 8)
        message_s, weights_s = wire_s(min(wanted, MAX_CHUNK), weights_bytes)
        alone = Measured(
            str(bench.device),
            str(beside.device),
            len(allowed),
            threads,
            options.batch_size,
            step_s,
            forward_s,
            read_s,
            scoring,
            message_s,
            push_s,
            weights_s,
            weights_bytes,
            load,
        )
        say("training and scoring at the same time")
        return dataclasses.replace(alone, together=_together(options, bench, alone, allowed, 2 * part_s))


def _check_room(trainer: str, scorer: str, threads: int, num_cores: int) -> None:
    """Raise ConfigError where a scorer would have to share the trainer's cores."""
    if trainer == scorer == "cpu" and num_cores < 2 * threads:
        raise ConfigError(
            f"trainer and scorer with {_threads(threads)} each need {2 * threads} cores, and there are {num_cores} for "
            "both: nothing can be scored beside training here; lower --threads, choose --mode fresh, or connect "
            "scorers of other hosts"
        )


def _chunks(options: RunOptions) -> list[int]:
    """Sizes to try: the default, and all candidates of a step at once."""
    if options.chunk_size is not None:
        return [options.chunk_size]
    b, most = options.batch_size, min(options.max_candidates, MAX_CHUNK)
    return sorted({min(2 * b, most), max(most // b, 1) * b})


def _scoring(bench: Workbench, chunks: Sequence[int], budget_s: float) -> Iterator[Scoring]:
    """Each precision of this device and model at each size of chunk, float32 first."""
    bench.model.eval().requires_grad_(False)
    for chunk in reversed(chunks):
        inputs, targets = bench.inputs(chunk)
        compile = bench.options.compile
        for trial in try_precisions(bench.model, bench.head, inputs, targets, bench.score, compile=compile):
            load_s = bench.load_s(trial.precision, min(chunk, 64), budget_s)
            is_good = trial.precision == "float32" or trial.overlap >= ENOUGH_OVERLAP
            yield Scoring(trial.precision, chunk, trial.pass_s / trial.num, trial.overlap, load_s, is_good)


def _wire(options: RunOptions, scoring: Sequence[Scoring]) -> str:
    """The dtype that weights will travel in."""
    if options.wire != "auto":
        return options.wire
    best = min((one for one in scoring if one.is_good), key=lambda one: one.sample_s)
    return "float32" if (given_precision(options) or best.precision) == "float32" else "bf16"


def _forward_s(bench: Workbench, num: int, scoring: Sequence[Scoring], beside: Workbench) -> float:
    """Of the trainer's pass for one candidate, in float32: the scorers' own where both compute on the same device."""
    if bench is beside:
        return min(one.sample_s for one in scoring if one.precision == "float32")
    return bench.seconds(bench.scorer("float32", 2 * num), 1.0) / (2 * num)


def _together(
    options: PlanOptions, bench: Workbench, alone: Measured, allowed: Sequence[int], budget_s: float
) -> Together:
    """Training steps here while as many scorers as would run score beside them."""
    scoring = choose_scoring(alone, given_precision(options))
    wanted = options.entry.candidates_per_selected
    num = options.scorers if "scorers" in options.model_fields_set else num_scorers(alone, scoring, wanted)
    num = max(1, min(num, MOST_NEIGHBOURS))
    bench.model.requires_grad_(True)
    with contextlib.ExitStack() as opened:
        neighbours = []
        for index in range(num):
            own = _own_cores(alone, allowed, index)
            neighbours.append(opened.enter_context(_neighbour(options, alone, scoring, own)))
        for neighbour in neighbours:
            _line(neighbour)  # ready
        rates, beside, idle = [], [], []
        turn_s = budget_s / (2 * TURNS)
        for _ in range(TURNS):
            for neighbour in neighbours:
                assert neighbour.stdin is not None
                neighbour.stdin.write(f"{turn_s}\n")
                neighbour.stdin.flush()
            beside.append(bench.step_s(TRAINED_FRACTION * turn_s))
            rates.append(sum(float(_line(neighbour)) for neighbour in neighbours))
            idle.append(bench.step_s(turn_s))
    rate = statistics.median(rates) * scoring.chunk
    return Together(scoring.precision, scoring.chunk, num, statistics.median(beside), statistics.median(idle), rate)


def _own_cores(alone: Measured, allowed: Sequence[int], index: int) -> list[int]:
    """Those of the scorer of this index; none where it does not matter, as it computes on a GPU."""
    if alone.scorer_device != "cpu" or not hasattr(os, "sched_setaffinity"):
        return []
    first = alone.threads * (index + 1)
    return list(allowed[first : first + alone.threads]) or list(allowed[1:])


@contextlib.contextmanager
def _neighbour(
    options: PlanOptions, alone: Measured, scoring: Scoring, own: Sequence[int]
) -> "Iterator[subprocess.Popen[str]]":
    with private_folder() as folder:
        file = Path(folder) / "options.toml"
        table = options.dump()
        file.write_text(to_toml({name: table[name] for name in RunOptions.model_fields if name in table}))
        words = [str(file), alone.scorer_device, str(alone.threads), scoring.precision, str(scoring.chunk)]
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.neighbour", *words, *map(str, own)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            end(process)  # type: ignore[arg-type]
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    wait = Wait("a scorer that is to be measured", LINE_S, "it is killed; is the machine busy, or the data's disk?")

    def give_up() -> None:
        wait.report()
        process.kill()

    late = threading.Timer(LINE_S, give_up)
    late.start()
    try:
        line = process.stdout.readline()
    finally:
        late.cancel()
    if line:
        return line
    raise DataError(f"a scorer that was to be measured ended: {process.stderr.read()[-400:].strip()}")


def _threads(num: int) -> str:
    return f"{num} thread{'s' if num > 1 else ''}"
