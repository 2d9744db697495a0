"""The trainer's main loop, built on the same `SelectedBatches` that people use in their own."""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from torch import nn

from common.config import TrainerOptions
from common.data.source import Source
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.errors import TrainingDiverged
from common.models import build_model, load_state, unwrap
from common.run import Run
from common.tracing import NUM_TRACED, Tracing
from trainer.agreement import AgreementLog
from trainer.evaluate import Evaluation, evaluate
from trainer.optimizers import build_optimizer, build_schedule
from trainer.pictures import write_pictures
from trainer.profile import profile_words
from trainer.recalibrate import recalibrated, recalibration_inputs
from trainer.step import BatchMeans
from trainer.stepping import make_step
from trainer.stream import SelectedBatches
from trainer.trace import Trace
from trainer.words import closing_words, log_line

log = logging.getLogger(__name__)

SAME_SIGNAL_S = 1.0


def main(options: TrainerOptions) -> int:
    """Train to the end or until a signal comes. Returns the process's exit code."""
    set_threads(options.num_threads)
    device = pick_device(options.device)
    source = open_source(options)
    model = make_model(options, source).to(device)
    with (
        Run(options) as run,
        SelectedBatches(options, source, model, generation=run.generation) as batches,
        Trace(run.folder / "trace.jsonl") if options.log.trace else contextlib.nullcontext() as trace,
        Tracing(run.folder / "trace-trainer.json", "steps") if options.profile else contextlib.nullcontext() as tracing,
    ):
        stopped_by = stop_on_signals(batches)
        summary = train(run, batches, source, model, trace, tracing)
        if stopped_by:
            summary["stopped_by"] = stopped_by[0].name
        torch.save(unwrap(model).state_dict(), run.folder / "model.pt")
        if batches.ledger is not None:
            batches.ledger.save(run.folder / "ledger.npz")
        write_pictures(run.folder, batches, source, model)
        summary["words"] = f"{closing_words(summary)}\n{profile_words(summary['profile'])}"
        log.info("%s Run folder: %s", summary["words"], run.folder)
    run.write_summary(summary)  # last: a folder with a summary holds a run that ended in order
    return 128 + stopped_by[0] if stopped_by else 0


def train(
    run: Run,
    batches: SelectedBatches,
    source: Source,
    model: nn.Module,
    trace: Trace | None,
    tracing: Tracing | None = None,
) -> dict[str, Any]:
    """The loop, to be read aloud. Returns the summary."""
    options = run.options
    device = next(model.parameters()).device
    optimizer = build_optimizer(options, model.parameters(), capturable=options.step.capture)
    schedule = build_schedule(optimizer, options, options.steps)
    train_step = make_step(model, optimizer, schedule, options)
    means = BatchMeans(device)
    agreement = AgreementLog(run.folder / "agreement.jsonl")
    accuracy_at = -1
    evaluation = None
    batches.tally.phases = run.timing.seconds  # what is timed here is part of the profile
    if tracing is not None:
        run.timing.mark = torch.profiler.record_function

    def train_s() -> float:
        return batches.tally.elapsed_s - run.timing.seconds.get("evaluate", 0.0)

    def log_figures(figures: Mapping[str, Any]) -> None:
        run.log({**figures, "train_s": round(train_s(), 3), **batches.tally.account().row()})

    def evaluate_now() -> Evaluation:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # what is still queued is training, and an evaluation waits in any case
        with run.timing("evaluate"):
            now = evaluate(_evaluated(model, source, options, device), source, device=device)
        log_figures({"accuracy/held_out": now.accuracy, "loss/held_out": now.loss})
        return now

    torch.manual_seed(options.seed)  # dropout and the like
    model.train()
    for batch in batches:
        if tracing is not None:
            tracing.before(is_middle=2 * batch.step >= options.steps - NUM_TRACED)
        with run.timing("step"):
            result = train_step(batch)
        with run.timing("push"):
            batches.step(result.losses)
        means.add(batch, result)
        if trace is not None:
            trace.write(batch, result)
        run.step = batches.completed
        if run.due(options.log.eval_every):
            evaluation, accuracy_at = evaluate_now(), run.step
        if run.due(options.log.log_every) or run.step == 1:
            losses = means.take()
            check_finite(losses, run.step)
            figures = {**losses, "lr": float(schedule.get_last_lr()[0]), **batches.curves()}
            log_figures(figures)
            agreement.write(batches.tally.agreement)
            log.info("%s", log_line(run.step, options.steps, figures, evaluation))
    agreement.write(batches.tally.agreement)
    if accuracy_at != run.step:
        evaluation = evaluate_now()
    assert evaluation is not None, "a run ends with an evaluation"
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        **batches.summary(),
        "wall_s": run.timing.wall_s,
        "train_s": train_s(),
        "mode": options.mode,
        "method": options.method,
        "data": options.data,
        "model": options.model,
        "seed": options.seed,
    }


def _evaluated(model: nn.Module, source: Source, options: TrainerOptions, device: torch.device) -> nn.Module:
    """What an evaluation looks at: the model, or a copy with BatchNorm statistics of uniform samples."""
    if options.log.recalibrate == 0:
        return model
    return recalibrated(model, recalibration_inputs(source, options.log.recalibrate, device, options.seed))


def check_finite(losses: dict[str, float], step: int) -> None:
    """Raise TrainingDiverged if a mean loss since the last log line is not a number."""
    for kind in ("selected", "plain"):
        loss = losses.get(f"loss/{kind}", 0.0)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"step {step}: the loss of {kind} samples is {loss}; lower --lr or set --optim.clip-norm"
            )


def make_model(options: TrainerOptions, source: Source) -> nn.Module:
    """The model of the options, from its seed or from --init."""
    model = build_model(options.model, source.sample, seed=options.seed, head=options.head)
    if options.init is not None:
        load_state(model, options.init, option="--init", remedy="check --model and --data")
    return model


def stop_on_signals(batches: SelectedBatches) -> list[signal.Signals]:
    """Ctrl-C and SIGTERM end the run after the current step; a second one ends it at once.

    Returns:
        A list to which the first signal is appended when it comes.
    """
    received: list[signal.Signals] = []
    received_at: list[float] = []

    def stop(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if received and now - received_at[0] < SAME_SIGNAL_S:
            return  # a supervisor and its process group are often told together
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(signal.Signals(number))
        received_at.append(now)
        batches.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return received
