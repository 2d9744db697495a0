"""The trainer's main loop, built on the same `SelectedBatches` that people use in their own."""

import contextlib
import logging
import signal

import torch
from torch import nn

from common.config import TrainerOptions
from common.data.source import Source
from common.data.sources import open_source
from common.devices import set_threads
from common.errors import NoScorer, PeerTimeout
from common.models import build_model, load_state
from common.run import Run
from common.run_folder import has_ended, of_rank
from common.tracing import NUM_TRACED, Tracing
from trainer.last_files import LastFiles
from trainer.pictures import write_pictures
from trainer.profile import profile_words
from trainer.ranks.device import rank_device
from trainer.ranks.environment import for_rank, is_restart
from trainer.ranks.follower import Follower, joint_run
from trainer.ranks.group import EndedElsewhere, Group
from trainer.ranks.joining import joined_group
from trainer.ranks.merge import joint_ledger
from trainer.stopping import Stopping
from trainer.stream import SelectedBatches
from trainer.training import Training
from trainer.words import closing_words

log = logging.getLogger(__name__)


def main(options: TrainerOptions) -> int:
    """Train to the end or until a signal comes, as the one trainer or as one rank of several. Returns the exit code."""
    try:
        with joined_group() as group:
            return _train_together(options, group)
    except EndedElsewhere as ended:  # the rank that could not go on says why
        return ended.exit_code


def _train_together(options: TrainerOptions, group: Group) -> int:
    is_restarted = any(group.gather(is_restart()))
    with group.together():
        options = for_rank(options, is_restarted=is_restarted)
        set_threads(options.num_threads)
        device = rank_device(options.device)
        source = open_source(options)
        model = make_model(options, source).to(device)
    if group.share(is_restarted and options.out is not None and has_ended(options.out)):
        return 0
    with joint_run(options, group) as run:
        with group.together():
            batches = SelectedBatches(options, source, model, generation=run.generation, group=group)
        stopping = Stopping(batches.stop if group.size == 1 else lambda: _hurry(batches))
        with group.together():
            training = Training(run, batches, source, model, stopping, group)
        with group.together():  # apart: of ranks that resume, none may be missing
            if options.resume:
                training.resume()
        with contextlib.ExitStack() as opened:
            with group.together():
                opened.enter_context(training)
            tracing = opened.enter_context(_tracing(run))
            try:
                train(training, tracing)
            except (NoScorer, PeerTimeout):  # between two steps: with scorers the run may go on from here
                if run.step and group.size == 1:  # other ranks may be within a step
                    training.save()
                raise
            summary = training.finish()
            ledger = joint_ledger(batches.ledger, group)
            files = LastFiles(run)
            if group.is_first:
                files.write_model(model)
                if ledger is not None:
                    files.write("ledger.npz", ledger.save)
                if not stopping.is_late():
                    write_pictures(run.folder, batches, source, model, ledger)
                summary["words"] = f"{closing_words(summary)}\n{profile_words(summary['profile'])}"
                log.info("%s Run folder: %s", summary["words"], run.folder)
        with group.together():  # last: a folder with a summary holds a run that ended in order
            files.write_summary(summary, last_saved_step=training.checkpoints.last_saved_step)
    return 128 + signal.Signals[summary["stopped_by"]] if "stopped_by" in summary else 0


def _hurry(batches: SelectedBatches) -> None:
    """A rank that is asked to end says so to the others in its next step, and waits for no more than that."""
    if (link := batches.watched.link) is not None:
        link.service.attendance.hurry()


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
        if training.is_save_due():
            training.save()


def make_model(options: TrainerOptions, source: Source) -> nn.Module:
    """The model of the options, from its seed or from --init."""
    model = build_model(options.model, source.sample, seed=options.seed, head=options.head)
    if options.init is not None:
        load_state(model, options.init, option="--init", remedy="check --model and --data")
    return model


def _tracing(run: Run | Follower) -> contextlib.AbstractContextManager[Tracing | None]:
    path = run.folder / of_rank("trace-trainer.json", run.rank)
    return Tracing(path, "steps") if run.options.profile else contextlib.nullcontext()
