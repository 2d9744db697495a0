"""Irreducible losses: of every training sample, under a model that has not seen it.

RHO-LOSS (Mindermann et al. 2022, arXiv:2206.07137) selects the highest loss minus irreducible loss: what is high
under both is noise, or cannot be learned from other samples. Without data to spare for it, they train two models, each
on a half of the training samples, and take each half's losses from the model of the other. N = training samples.
"""

import copy
import logging
import math
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from common.config import IrreducibleOptions
from common.data.augment import Augmentation
from common.data.fingerprint import data_fingerprint as fingerprint_of
from common.data.reader import SampleReader
from common.data.source import AbsentSplit, Source, Split, targets_of
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.errors import DataError, TrainingDiverged
from common.models import build_model
from common.order import Order
from common.run import LOG_FORMAT
from trainer.batch import Batch
from trainer.evaluate import sample_losses
from trainer.irreducible_table import check_out, write_table
from trainer.optimizers import build_optimizer, build_schedule
from trainer.step import BatchMeans, train_step

log = logging.getLogger(__name__)

NUM_EVALUATIONS = 20
MOST_JUDGED = 4096  # samples that choose the parameters; the table has all of them


@dataclass(frozen=True)
class Lesson:
    """What one model is trained on and asked for.

    Attributes:
        source: its training split teaches; its held-out one, the samples of `asked`, judges.
        asked: (n,) int64 ids of the training samples whose losses this model gives.
    """

    source: Source
    asked: Tensor


class Part:
    """Some samples of a split, as a split of its own: `ids` (n,) int64 become 0 .. n - 1."""

    def __init__(self, split: Split, ids: Tensor) -> None:
        self._split = split
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def fetch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self._split.fetch(self._ids[ids])

    def targets(self, ids: Tensor) -> Tensor:
        return targets_of(self._split, self._ids[ids])


def main(options: IrreducibleOptions) -> int:
    """Train what `--train-on` says and write the table. Returns the process's exit code.

    Raises:
        ConfigError: `--out` exists or cannot be written, or another option is wrong.
        DataError: training or held-out samples are missing.
        TrainingDiverged: a loss is not finite.
        NotWritten: the disk has no room for the table.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)
    started = time.perf_counter()
    check_out(options.out)
    set_threads(options.num_threads)
    device = pick_device(options.device)
    source = open_source(options)
    lessons = held_out_lesson(source) if options.train_on == "held-out" else halves(source, options.seed)
    num = len(source.train)
    losses, num_correct, best_steps = torch.empty(num), 0.0, []
    for number, lesson in enumerate(lessons, start=1):
        log.info("model %d of %d: training on %d samples", number, len(lessons), len(lesson.source.train))
        model = build_model(options.model, source.sample, seed=options.seed, head=options.head).to(device)
        best_steps.append(train(model, lesson.source, options, device))
        log.info("computing the losses of %d training samples", len(lesson.asked))
        asked, evaluation = sample_losses(model, source, source.train, lesson.asked, device=device)
        losses[lesson.asked] = asked.cpu()
        num_correct += evaluation.accuracy * len(lesson.asked)
    if not losses.isfinite().all():
        raise TrainingDiverged("the loss of a training sample is not finite; lower --lr or set --optim.clip-norm")
    accuracy = num_correct / num
    table = {
        "losses": losses,
        "data": fingerprint_of(source, options.augment)["data"],
        "model": options.model,
        "num_samples": num,
        "accuracy": accuracy,
        "train_on": options.train_on,
    }
    write_table(options.out, table)
    shown = "" if math.isnan(accuracy) else f", accuracy {accuracy:.2%}"
    sys.stdout.write(
        f"{_trained(options, source, best_steps)}, in {time.perf_counter() - started:.1f} s. On the {num} training "
        f"samples: mean irreducible loss {losses.double().mean():.3f}{shown}. Table: {options.out}\n"
    )
    return 0


def halves(source: Source, seed: int) -> list[Lesson]:
    """Two models, each of a keyed half of the training samples; each is asked for the half that it has not seen.

    Raises:
        DataError: there are fewer than two training samples, or they cannot be read.
    """
    _check_readable(source)
    num = len(source.train)
    if num < 2:
        raise DataError(f"source {source.name} has {num} training sample, and two halves need at least 2")
    shuffled = torch.from_numpy(Order(num, seed, "irreducible halves").ids(np.arange(num)))
    parts = [ids.sort().values for ids in (shuffled[: num // 2], shuffled[num // 2 :])]
    return [_lesson(source, Part(source.train, seen), unseen) for seen, unseen in (parts, reversed(parts))]


def held_out_lesson(source: Source) -> list[Lesson]:
    """One model of the held-out samples, asked for all training samples.

    Raises:
        DataError: there are no held-out samples, or the training samples cannot be read.
    """
    if source.held_out is None or len(source.held_out) == 0:
        raise DataError(f"source {source.name} has no held-out data to train on; use --train-on halves")
    _check_readable(source)
    return [_lesson(source, source.held_out, torch.arange(len(source.train)))]


def _lesson(source: Source, taught: Split, asked: Tensor) -> Lesson:
    return Lesson(replace(source, train=taught, held_out=Part(source.train, asked), noise=None), asked)


def _check_readable(source: Source) -> None:
    if isinstance(source.train, AbsentSplit):
        source.train.fetch(torch.zeros(1, dtype=torch.int64))  # says so


def _trained(options: IrreducibleOptions, source: Source, best_steps: list[int]) -> str:
    if options.train_on == "held-out":
        assert source.held_out is not None, "there was a lesson of it"
        on = f"on the {len(source.held_out)} held-out samples of {options.data}: {options.steps} steps"
        return f"Trained {options.model} {on}, of which {best_steps[0]} were best"
    on = f"on each half of the {len(source.train)} training samples of {options.data}: {options.steps} steps each"
    return f"Trained {options.model} {on}, of which {best_steps[0]} and {best_steps[1]} were best"


def train(model: nn.Module, source: Source, options: IrreducibleOptions, device: torch.device) -> int:
    """Train, and leave the model with the parameters of the lowest loss on the samples that it was not trained on.

    Args:
        source: the samples to train on as its training split, those that judge as its held-out one.

    Returns:
        The number of steps of those parameters.
    """
    optimizer = build_optimizer(options, model.parameters())
    schedule = build_schedule(optimizer, options)
    order = Order(len(source.train), options.seed, "irreducible")
    reader = SampleReader(source, Augmentation(options.augment, options.seed, source.sample), order)
    judges = source.held_out
    assert judges is not None, "a lesson has samples that judge"
    judged = Order(len(judges), options.seed, "judges").ids(np.arange(min(len(judges), MOST_JUDGED)))
    eval_every = max(1, options.steps // NUM_EVALUATIONS)
    means = BatchMeans(device)
    best_loss, best_step, best_state = math.inf, 0, model.state_dict()
    torch.manual_seed(options.seed)  # dropout and the like
    model.train()
    for step in range(1, options.steps + 1):
        samples = reader.read(np.arange((step - 1) * options.batch_size, step * options.batch_size))
        inputs, targets = source.prepare(samples.inputs.to(device)), samples.targets.to(device)
        batch = Batch(inputs, targets, torch.ones(len(samples), device=device), samples.ids, step - 1, "plain")
        means.add(batch, train_step(model, optimizer, schedule, batch, options))
        if step % eval_every and step != options.steps:
            continue
        _, evaluation = sample_losses(model, source, judges, torch.from_numpy(judged), device=device)
        loss = means.take()["loss/plain"]
        if not math.isfinite(loss + evaluation.loss):
            raise TrainingDiverged(f"step {step}: the loss is {loss}; lower --lr or set --optim.clip-norm")
        if evaluation.loss < best_loss:
            best_loss, best_step, best_state = evaluation.loss, step, copy.deepcopy(model.state_dict())
        log.info(
            "step %d/%d | loss %.3f | loss of unseen samples %.3f, lowest %.3f at step %d",
            *(step, options.steps, loss, evaluation.loss, best_loss, best_step),
        )
    model.load_state_dict(best_state)
    return best_step
