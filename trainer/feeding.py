"""Where the batches of a run come from: link, feeder and what the feeder does, put together from the options."""

import time
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from common.config import TrainerOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.resident import resident
from common.data.source import Source
from common.models import unwrap
from common.order import Order
from common.precision.auto import choose_precision
from common.precision.form import Form
from common.precision.forms import compiles, make_form
from common.shard import WHOLE, Shard
from trainer.assembly import Assembly
from trainer.batch import Batch, Gatherer
from trainer.curves import UniformCandidates
from trainer.feeder import Feeder
from trainer.fresh import FreshCandidates, FreshSelecting, FreshSourcing
from trainer.link import ScorerLink
from trainer.lull import Lull
from trainer.plan import Plan
from trainer.ranks.group import Group
from trainer.sourcing import PlainBatches, ShippedBatches, StaleSourcing

AHEAD_ON_GPU = 3


@dataclass(frozen=True)
class Supply:
    """Who makes the batches of a run, and who scores their candidates.

    Attributes:
        feeder: has them ready, or candidates for `fresh` to score.
        sourcing: what the feeder's thread does for each step.
        link: to the scorers; None where there are none.
        fresh: scores on the training thread; None in stale mode.
    """

    feeder: Feeder[Batch | FreshCandidates]
    sourcing: StaleSourcing | FreshSourcing
    link: ScorerLink | None
    fresh: FreshSelecting | None


def make_supply(
    options: TrainerOptions,
    source: Source,
    model: nn.Module,
    head: nn.Linear,
    plan: Plan,
    assembly: Assembly,
    group: Group,
    lull: Lull,
    *,
    generation: int | None,
    uniform: UniformCandidates,
) -> Supply:
    """Everything that stands behind the training thread.

    Args:
        lull: of the training thread: when the others had better work.
        generation: of this start of the run, see `trainer.stream.SelectedBatches`.
        uniform: gets figures of the candidates that are scored here.
    """
    gatherer = make_gatherer(options, source, next(model.parameters()).device, group.shard)
    if options.needs_scorers:
        started = generation if generation is not None else group.share(int(time.time()))
        link = ScorerLink(options, source, model, head, plan, started, assembly, group, lull)
        if assembly.histories is not None:
            assembly.histories.learner = link.learn
        return Supply(*_stale_feeder(options, gatherer, plan, assembly, link, lull), link, None)
    sourcing = _fresh_sourcing(options, gatherer, plan, assembly)
    ahead, at_a_time = _ahead(options, sourcing.device)
    feeder = Feeder(sourcing.prepare, 0, options.steps, ahead=ahead, at_a_time=at_a_time, lull=lull)
    fresh = _fresh_selecting(options, source, assembly, sourcing, gatherer, model, head, uniform, group)
    return Supply(feeder, sourcing, None, fresh)


def make_gatherer(options: TrainerOptions, source: Source, device: torch.device, shard: Shard = WHOLE) -> Gatherer:
    """Reads both orders, augmented as the options say, onto a device: candidates of the shard, plain samples of all."""
    augmentation = Augmentation(options.augment, options.seed, source.sample)
    num, held = source.sample.num_samples, resident(source, options.data_device, device)
    candidates = SampleReader(held, augmentation, shard.candidates(num, options.seed), shard)
    plain = SampleReader(held, augmentation, Order(num, options.seed, "plain"))
    return Gatherer(source, candidates, plain, device)


def _fresh_sourcing(options: TrainerOptions, gatherer: Gatherer, plan: Plan, assembly: Assembly) -> FreshSourcing:
    """Candidates read ahead: all of a step's for a pool, none for a stream or for what needs no candidates."""
    kind, needs_scores = options.entry.kind, options.entry.needs_scorer
    return FreshSourcing(
        plan,
        PlainBatches(gatherer, options.batch_size),
        gatherer,
        chunk_size=options.resolved_chunk_size,
        draws_ahead=assembly.pace.chunks_per_step if kind == "pool" and needs_scores else 0,
        pace=assembly.pace if kind == "planned" and needs_scores else None,
    )


def _fresh_selecting(
    options: TrainerOptions,
    source: Source,
    assembly: Assembly,
    sourcing: FreshSourcing,
    gatherer: Gatherer,
    model: nn.Module,
    head: nn.Linear,
    uniform: UniformCandidates,
    group: Group,
) -> FreshSelecting:
    """Scores and selects on the training thread, in the options' precision."""
    if group.size > 1:
        model = unwrap(model)  # ranks score for themselves: a wrapper's forward pass may be for all of them together
    return FreshSelecting(
        assembly,
        sourcing,
        gatherer,
        model,
        head,
        uniform,
        batch_size=options.batch_size,
        form=_fresh_form(options, source, model, head, group),
        recalibrate_every=options.recalibrate_every,
    )


def _fresh_form(
    options: TrainerOptions, source: Source, model: nn.Module, head: nn.Linear, group: Group
) -> Form | None:
    """What scores in another precision than float32; None where nothing is to be scored, or in float32."""
    if options.mode != "fresh" or not options.entry.needs_scorer:
        return None
    precision: str = options.precision
    if precision == "auto":
        with group.together():
            if group.is_first:
                precision = choose_precision(model, head, source, compile=options.compile)
        precision = group.share(precision)
    if precision == "float32":
        return None
    return make_form(model, head, precision, compile=options.compile and compiles(precision))


def _stale_feeder(
    options: TrainerOptions, gatherer: Gatherer, plan: Plan, assembly: Assembly, link: ScorerLink, lull: Lull
) -> tuple[Feeder[Batch | FreshCandidates], StaleSourcing]:
    """Batches selected out of what scorers sent, and who makes them."""
    feeder: Feeder[Batch]

    def rest() -> None:
        feeder.rest()

    plain: PlainBatches | ShippedBatches = PlainBatches(gatherer, options.batch_size)
    if link.ships_all:
        plain = ShippedBatches(gatherer, link.pool, options.batch_size, rest)
    stale = StaleSourcing(
        plan,
        plain,
        gatherer,
        link.pool,
        assembly.selector,
        max_staleness=options.max_staleness,
        fallback=options.fallback,
        is_awaited=lambda: feeder.is_awaited,
        rest=rest,
        on_finish=link.finish_selecting,
        on_used=link.audits.choose,
    )
    ahead, at_a_time = _ahead(options, gatherer.device)
    feeder = Feeder(stale.prepare, 0, options.steps, ahead=ahead, at_a_time=at_a_time, lull=lull, wake=link.pool.wake)
    return cast(Feeder[Batch | FreshCandidates], feeder), stale


def _ahead(options: TrainerOptions, device: torch.device) -> tuple[int, int]:
    """How many batches a feeder has ready, each judged at the step that trains on it, and how many it makes at a time.

    A GPU works off what the training thread has queued, and a late batch is a gap at once. On the CPU the feeder runs
    while the step does, where cores are few on the same one, and two batches at a time disturb it less than two times
    one. More would only age the scores; where no score may be older than its step there are none to be had ahead.
    """
    if options.max_staleness == 0:
        return 1, 1
    return (AHEAD_ON_GPU, 1) if device.type == "cuda" else (2, 2)
