"""Irreducible losses: of every training sample, under a model that was trained on the held-out samples only.

RHO-LOSS (Mindermann et al. 2022, arXiv:2206.07137) selects the highest loss minus irreducible loss: what is high
under both is noise, or cannot be learned from other samples. N = training samples.
"""

import contextlib
import copy
import logging
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.config import IrreducibleOptions
from common.data.augment import Augmentation
from common.data.fingerprint import data_fingerprint as fingerprint_of
from common.data.reader import SampleReader
from common.data.source import AbsentSplit, Source
from common.data.sources import open_source
from common.devices import pick_device, set_threads
from common.errors import ConfigError, DataError, TrainingDiverged
from common.models import build_model
from common.order import Order
from common.run import LOG_FORMAT
from trainer.batch import Batch
from trainer.evaluate import sample_losses
from trainer.optimizers import build_optimizer, build_schedule
from trainer.step import BatchMeans, train_step

log = logging.getLogger(__name__)

NUM_EVALUATIONS = 20
MOST_JUDGED = 4096  # training samples that choose the parameters; the table has all of them


def main(options: IrreducibleOptions) -> int:
    """Train on the held-out samples and write the table. Returns the process's exit code.

    Raises:
        ConfigError: `--out` exists or cannot be written, or another option is wrong.
        DataError: training or held-out samples are missing.
        TrainingDiverged: a loss is not finite.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)
    started = time.perf_counter()
    _check_out(options.out)
    set_threads(options.num_threads)
    device = pick_device(options.device)
    source = open_source(options)
    swapped = _swapped(source)
    model = build_model(options.model, source.sample, seed=options.seed, head=options.head).to(device)
    best_step = train(model, swapped, options, device)
    num = len(source.train)
    log.info("computing the losses of %d training samples", num)
    losses, evaluation = sample_losses(model, source, source.train, torch.arange(num), device=device)
    if not losses.isfinite().all():
        raise TrainingDiverged("the loss of a training sample is not finite; lower --lr or set --optim.clip-norm")
    table = {
        "losses": losses.cpu(),
        "data": fingerprint_of(source, options.augment)["data"],
        "model": options.model,
        "num_samples": num,
        "accuracy": evaluation.accuracy,
    }
    _write(options.out, table)
    accuracy = "" if math.isnan(evaluation.accuracy) else f", accuracy {evaluation.accuracy:.2%}"
    sys.stdout.write(
        f"Trained {options.model} on the {len(swapped.train)} held-out samples of {options.data}: {options.steps} "
        f"steps, of which {best_step} were best, in {time.perf_counter() - started:.1f} s. On the {num} training "
        f"samples: mean irreducible loss {evaluation.loss:.3f}{accuracy}. Table: {options.out}\n"
    )
    return 0


def train(model: nn.Module, swapped: Source, options: IrreducibleOptions, device: torch.device) -> int:
    """Train, and leave the model with the parameters of the lowest loss on the samples that it was not trained on.

    Args:
        swapped: the samples to train on as its training split, those that judge as its held-out one.

    Returns:
        The number of steps of those parameters.
    """
    optimizer = build_optimizer(options, model.parameters())
    schedule = build_schedule(optimizer, options)
    order = Order(len(swapped.train), options.seed, "irreducible")
    reader = SampleReader(swapped, Augmentation(options.augment, options.seed, swapped.sample), order)
    judges = swapped.held_out
    assert judges is not None, "swapped sources have samples that judge"
    judged = Order(len(judges), options.seed, "judges").ids(np.arange(min(len(judges), MOST_JUDGED)))
    eval_every = max(1, options.steps // NUM_EVALUATIONS)
    means = BatchMeans(device)
    best_loss, best_step, best_state = math.inf, 0, model.state_dict()
    torch.manual_seed(options.seed)  # dropout and the like
    model.train()
    for step in range(1, options.steps + 1):
        samples = reader.read(np.arange((step - 1) * options.batch_size, step * options.batch_size))
        inputs, targets = swapped.prepare(samples.inputs.to(device)), samples.targets.to(device)
        batch = Batch(inputs, targets, torch.ones(len(samples), device=device), samples.ids, step - 1, "plain")
        means.add(batch, train_step(model, optimizer, schedule, batch, options))
        if step % eval_every and step != options.steps:
            continue
        _, evaluation = sample_losses(model, swapped, judges, torch.from_numpy(judged), device=device)
        loss = means.take()["loss/plain"]
        if not math.isfinite(loss + evaluation.loss):
            raise TrainingDiverged(f"step {step}: the loss is {loss}; lower --lr or set --optim.clip-norm")
        if evaluation.loss < best_loss:
            best_loss, best_step, best_state = evaluation.loss, step, copy.deepcopy(model.state_dict())
        log.info(
            "step %d/%d | loss %.3f | loss of training samples %.3f, lowest %.3f at step %d",
            *(step, options.steps, loss, evaluation.loss, best_loss, best_step),
        )
    model.load_state_dict(best_state)
    return best_step


def load_irreducible(path: Path, *, num_samples: int, data_fingerprint: str) -> Tensor:
    """The irreducible loss of every training sample, from a table that `marginstream irreducible` wrote.

    Args:
        num_samples: N of this run.
        data_fingerprint: "data" of `common.data.fingerprint.data_fingerprint` of this run.

    Returns:
        (N,) float32 on the CPU, finite, in nats where the loss is the cross-entropy; the index is the sample id.

    Raises:
        ConfigError: the file is missing or is no such table, it is of other data, or a loss is not finite.
    """
    option = f"--irreducible {path}"
    remedy = "make one with marginstream irreducible and this run's --data and data options"
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{option}: no such file; {remedy}") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors alike for files that are not its own
        reason = f"it is no file of tensors ({type(error).__name__})"
        raise ConfigError(f"{option} is not a table of irreducible losses: {reason}; {remedy}") from error
    if wrong := _what_is_wrong(table):
        raise ConfigError(f"{option} is not a table of irreducible losses: {wrong}; {remedy}")
    losses: Tensor = table["losses"]
    if len(losses) != num_samples:
        raise ConfigError(f"{option} is of {len(losses)} training samples, but this run has {num_samples}; {remedy}")
    if table["data"] != data_fingerprint:
        raise ConfigError(
            f"{option} is of other training data (fingerprint {table['data'][:8]}, this run's is "
            f"{data_fingerprint[:8]}): samples, labels, --label-noise or --image-size differ; {remedy}"
        )
    if num_wrong := int((~losses.isfinite()).sum()):
        raise ConfigError(
            f"{option}: {num_wrong} of {num_samples} losses are not finite; make it again with a lower --lr"
        )
    return losses


def _what_is_wrong(table: Any) -> str | None:
    """Why a loaded object is no table; None if it is one."""
    if not isinstance(table, dict):
        return f"it holds a {type(table).__name__}"
    if missing := [key for key in ("losses", "data", "num_samples") if key not in table]:
        return f"it has no {missing[0]}"
    losses = table["losses"]
    if not isinstance(losses, Tensor) or losses.dtype != torch.float32 or losses.shape != (table["num_samples"],):
        return f"its losses must be {table['num_samples']} float32 numbers"
    return None if isinstance(table["data"], str) else "its data fingerprint must be text"


def _swapped(source: Source) -> Source:
    """The source to train on: held-out samples for training, while the training samples judge."""
    if source.held_out is None or len(source.held_out) == 0:
        raise DataError(f"source {source.name} has no held-out data, and irreducible losses need a model of those")
    if isinstance(source.train, AbsentSplit):
        source.train.fetch(torch.zeros(1, dtype=torch.int64))  # says so
    return replace(source, train=source.held_out, held_out=source.train, noise=None)


def _check_out(path: Path) -> None:
    """Before any work: the table can be written, and overwrites nothing."""
    if path.exists():
        raise ConfigError(f"--out: {path} exists already; name another file, or remove this one (rm {path})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: cannot make the folder of {path}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--out: cannot write to the folder {path.parent.absolute()}; name a file in another one")


def _write(path: Path, table: dict[str, Any]) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(table, temporary)
        _check_out(path)
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
