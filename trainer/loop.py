"""The trainer's main loop, built on the same `SelectedBatches` that people use in their own."""

import contextlib
import logging
import signal

import torch
from torch import nn

from common.config import TrainerOptions
from common.data.source import Source
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.errors import NoScorer, PeerTimeout
from common.models import build_model, load_state, unwrap
from common.run import Run
from common.tracing import NUM_TRACED, Tracing
from trainer.pictures import write_pictures
from trainer.profile import profile_words
from trainer.stopping import Stopping
from trainer.stream import SelectedBatches
from trainer.training import Training
from trainer.words import closing_words

log = logging.getLogger(__name__)


def main(options: TrainerOptions) -> int:
    """Train to the end or until a signal comes. Returns the process's exit code."""
    set_threads(options.num_threads)
    device = pick_device(options.device)
    source = open_source(options)
    model = make_model(options, source).to(device)
    with Run(options) as run:
        batches = SelectedBatches(options, source, model, generation=run.generation)
        stopping = Stopping(batches.stop)
        training = Training(run, batches, source, model, stopping)
        if options.resume:
            training.resume()
        with training, _tracing(run) as tracing:
            try:
                train(training, tracing)
            except (NoScorer, PeerTimeout):  # between two steps: with scorers the run may go on from here
                if run.step:
                    training.save()
                raise
            summary = training.finish()
            torch.save(unwrap(model).state_dict(), run.folder / "model.pt")
            if batches.ledger is not None:
                batches.ledger.save(run.folder / "ledger.npz")
            if not stopping.is_late():
                write_pictures(run.folder, batches, source, model)
            summary["words"] = f"{closing_words(summary)}\n{profile_words(summary['profile'])}"
            log.info("%s Run folder: %s", summary["words"], run.folder)
    run.write_summary(summary)  # last: a folder with a summary holds a run that ended in order
    return 128 + signal.Signals[summary["stopped_by"]] if "stopped_by" in summary else 0


def train(training: Training, tracing: Tracing | None = None) -> None:
    """The loop, to be read aloud."""
    run, batches, learner = training.run, training.batches, training.learner
    if tracing is not None:
        run.timing.mark = torch.profiler.record_function
    for batch in batches:
        if tracing is not None:
            tracing.before(is_middle=2 * batch.step >= run.options.steps - NUM_TRACED)
        with run.timing("step"):
            result = learner.step(batch)
        with run.timing("push"):
            batches.step(result.losses)
        training.record.add(batch, result)
        if training.checkpoints.due(run.step):
            training.save()


def make_model(options: TrainerOptions, source: Source) -> nn.Module:
    """The model of the options, from its seed or from --init."""
    model = build_model(options.model, source.sample, seed=options.seed, head=options.head)
    if options.init is not None:
        load_state(model, options.init, option="--init", remedy="check --model and --data")
    return model


def _tracing(run: Run) -> contextlib.AbstractContextManager[Tracing | None]:
    return Tracing(run.folder / "trace-trainer.json", "steps") if run.options.profile else contextlib.nullcontext()
