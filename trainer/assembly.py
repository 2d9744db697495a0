"""Puts together what selects: the method and its surroundings, the ledger, the queue, from the options of a run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.config import TrainerOptions
from common.data.fingerprint import data_fingerprint
from common.data.source import AbsentSplit, Source
from common.errors import ConfigError
from common.models import gives_margins
from common.order import Order
from common.selection.compose import Composed
from common.selection.method import Setting
from common.selection.methods import load_method
from common.shard import WHOLE, Shard
from trainer.irreducible_table import load_irreducible
from trainer.leases import Pace, Wanted
from trainer.ledger import Ledger
from trainer.plan import Plan
from trainer.prediction import LocalPrediction, LossHistories
from trainer.queue import SampleQueue
from trainer.selector import Selector

MAX_QUEUED_BATCHES = 16
REPORTED = ("score", "seen", "selected")  # what a report shows of every sample


@dataclass(frozen=True)
class Assembly:
    """What selects, and what it asks of whoever scores.

    Attributes:
        score_names: to be computed of every candidate: the method's, and margins for their curve.
        lowest_is_hard: which end of the first of them.
        embeddings: whether factors of the last layer's gradients are wanted too; embedding_sizes: (C, D) of them.
        ledger: None if nothing is remembered.
        plan_visit: (start, stop) of a chunk that is about to be scored to the positions that want a score.
        pace: what bounds the candidates ahead of the trainer.
        prediction: of losses in the trainer, in fresh mode.
        histories: of losses, for whoever predicts them.
    """

    selector: Selector
    score_names: tuple[str, ...]
    lowest_is_hard: bool
    embeddings: bool
    embedding_sizes: tuple[int, int]
    ledger: Ledger | None
    plan_visit: Callable[[int, int], Wanted]
    pace: Pace
    prediction: LocalPrediction | None = None
    histories: LossHistories | None = None


def assemble(
    options: TrainerOptions, source: Source, model: nn.Module, head: nn.Linear, plan: Plan, shard: Shard = WHOLE
) -> Assembly:
    """All of it, for a mode that selects or not. What is per sample goes by the local ids of the shard.

    Raises:
        ConfigError: the method needs something that data, model or options do not give, or the shards are too small.
    """
    entry, chosen = options.entry, options.selection
    _check_fits(options, source, shard)
    order = shard.candidates(source.sample.num_samples, options.seed)
    method = Composed(
        load_method(options.method, _setting(options, source, shard)),
        entry.kind,
        uniform_fraction=chosen.uniform_fraction,
        class_quota=chosen.class_quota,
        weight_cap=chosen.weight_cap,
        collapse=not options.step.capture,
    )
    ledger = _ledger(options, order.num_samples)
    needs_targets = entry.needs_targets or chosen.class_quota is not None
    selector = Selector(
        method,
        entry,
        order,
        ledger,
        batch_size=options.batch_size,
        steps=options.steps,
        seed=options.seed,
        stream=shard.named("selection"),
        queue=SampleQueue(
            options.max_staleness,
            chosen.class_quota,
            capacity=MAX_QUEUED_BATCHES * options.batch_size + options.resolved_chunk_size,
            rereads=not isinstance(source.train, AbsentSplit),
        ),
        targets_of=_targets_of(options, source, shard) if needs_targets else None,
    )
    prediction, histories = _prediction(options, source, shard)
    return Assembly(
        selector,
        _score_names(options, source, model, head, method.scores),
        method.lowest_is_hard,
        entry.embeddings,
        (head.out_features, head.in_features),
        ledger,
        _plan_visit(options, order, ledger),
        _pace(options, source, plan, order.num_samples),
        prediction,
        histories,
    )


def _check_fits(options: TrainerOptions, source: Source, shard: Shard) -> None:
    """Raise ConfigError for options under which batches could never be full, or would not be what the method means."""
    sample, batch_size, quota = source.sample, options.batch_size, options.selection.class_quota
    num_ranks = shard.num_ranks
    least = sample.num_samples // num_ranks  # of the smallest shard: all ranks say the same
    if least == 0:
        raise ConfigError(f"{num_ranks} trainer ranks cannot share {sample.num_samples} samples; start fewer of them")
    if options.entry.kind == "planned" and batch_size > least:
        where = f"there are {least}" if num_ranks == 1 else f"each of {num_ranks} ranks has {least}"
        raise ConfigError(
            f"--batch-size {batch_size}: --method {options.method} draws different samples, and {where}; lower it"
        )
    if quota is None:
        return
    if options.method == "infobatch":
        raise ConfigError("--selection.class-quota would undo the weights of --method infobatch; leave it out")
    if sample.num_classes * math.ceil(round(quota * batch_size, 6)) < batch_size:
        raise ConfigError(
            f"--selection.class-quota {quota}: {sample.num_classes} classes cannot fill a batch of {batch_size}; "
            f"use at least {1 / sample.num_classes:g}"
        )


def _setting(options: TrainerOptions, source: Source, shard: Shard) -> Setting:
    irreducible = None
    if options.irreducible is not None:
        if isinstance(source.train, AbsentSplit):
            raise ConfigError(
                f"--irreducible {options.irreducible}: this trainer's source cannot read its training data"
            )
        digest = data_fingerprint(source, options.augment)["data"]
        irreducible = load_irreducible(
            options.irreducible, num_samples=source.sample.num_samples, data_fingerprint=digest
        )[shard.rows].contiguous()
    return Setting(
        num_samples=shard.num_of(source.sample.num_samples),
        num_classes=source.sample.num_classes,
        batch_size=options.batch_size,
        steps=options.steps,
        parameters={name: getattr(options.selection, name) for name in options.entry.parameters},
        irreducible=irreducible,
    )


def _ledger(options: TrainerOptions, num_samples: int) -> Ledger | None:
    reported = REPORTED if options.log.ledger and options.mode != "uniform" else ()
    fields = dict.fromkeys((*options.entry.ledger, *reported))
    return Ledger(num_samples, tuple(fields), seed=options.seed) if fields else None


def _targets_of(options: TrainerOptions, source: Source, shard: Shard) -> Callable[[np.ndarray], Tensor]:
    why = f"--method {options.method}" if options.selection.class_quota is None else "--selection.class-quota"
    if isinstance(source.train, AbsentSplit):
        raise ConfigError(f"{why} looks at classes of candidates, and this trainer's source cannot read training data")
    if source.sample.target_shape != ():
        raise ConfigError(f"{why} needs one class for each sample, targets are of shape {source.sample.target_shape}")
    return lambda ids: source.targets(torch.from_numpy(shard.global_ids(ids)))


def _score_names(
    options: TrainerOptions, source: Source, model: nn.Module, head: nn.Linear, wanted: tuple[str, ...]
) -> tuple[str, ...]:
    can_have_margins = options.entry.backend == "torch" and options.entry.needs_scorer and options.log.margins
    if "mms" in wanted or not can_have_margins or not gives_margins(model, source.sample, head):
        return wanted
    return (*wanted, "mms")


def _plan_visit(options: TrainerOptions, order: Order, ledger: Ledger | None) -> Callable[[int, int], Wanted]:
    if not options.entry.reuses_scores:
        return lambda start, stop: None
    assert ledger is not None, "scores cannot be remembered without a ledger"

    def plan(start: int, stop: int) -> Wanted:
        return ledger.plan_visit(order.ids(np.arange(start, stop)), options.selection.max_age)

    return plan


def _prediction(
    options: TrainerOptions, source: Source, shard: Shard
) -> tuple[LocalPrediction | None, LossHistories | None]:
    if options.entry.backend != "predictor":
        return None, None
    targets_of, num_samples = _targets_of(options, source, shard), shard.num_of(source.sample.num_samples)
    if options.mode == "stale":
        return None, LossHistories(num_samples)
    local = LocalPrediction(num_samples, source.sample.num_classes, options.seed, targets_of)
    return local, local.histories


def _pace(options: TrainerOptions, source: Source, plan: Plan, num_samples: int) -> Pace:
    """A planned method has all samples scored once, then again at the rate of one pass in `max_age` epochs."""
    ships_all = isinstance(source.train, AbsentSplit)
    first_step, stop_step = (0, options.steps) if ships_all else (plan.first_step, plan.stop_step)
    sweep = None
    if options.entry.kind == "planned":
        again = options.batch_size / options.selection.max_age
        sweep = (num_samples, again) if options.entry.needs_scorer else (0, 0.0)
    return Pace(
        options.max_candidates // options.resolved_chunk_size,
        options.max_staleness,
        options.push_every,
        first_step,
        stop_step,
        sweep,
    )
