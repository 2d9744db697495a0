"""Selected batches for any PyTorch training loop.

    with SelectedBatches(options, source, model, scorers=1) as batches:
        for batch in batches:
            losses = F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
            batches.backward_begins()  # optional
            (batch.weights * losses).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            batches.step(losses)

Three threads: the training thread (yours) takes batches and pushes weights; the feeder has the next batch ready; the
I/O thread talks to the scorers. `step` copies the weights between two optimiser steps, so call it after each.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from common.config import TrainerOptions
from common.data.source import Source
from common.models import check_model, find_head
from common.processes import local_scorers
from trainer.accounting import count_cost
from trainer.assembly import assemble
from trainer.batch import Batch
from trainer.curves import UniformCandidates
from trainer.feedback import Feedback
from trainer.feeder import Stopped
from trainer.feeding import make_supply
from trainer.figures import Figures
from trainer.health import Watched, health_of
from trainer.ledger import Ledger
from trainer.lull import Lull
from trainer.plan import Plan
from trainer.ranks.group import Group
from trainer.run_ahead import RunAhead
from trainer.state import BatchesState
from trainer.tally import Tally
from trainer.waits import await_first_scores, wait_for_batch

log = logging.getLogger(__name__)


class SelectedBatches:
    """An iterator over the batches of a run, `options.steps` of them.

    Args:
        options: `mode`, `method`, sizes, bounds and fallback; optimiser options are not looked at.
        source: where samples come from. Scorers open their own from `options.data`.
        model: on the device it trains on; its parameters and buffers are pushed to the scorers.
        scorers: local scorer processes to start, by rank 0; 0 waits for those that connect to `options.listen`. They
            build their model from `options.model`, so a model of your own is named there as module:callable.
        generation: number of this start of the run, greater than any earlier one, the same on all ranks; by default
            the time in seconds.
        group: who makes each step together, by default the ranks of torch.distributed: each has batches of its own.

    Raises:
        ConfigError: options, source and model do not fit together.
        EndpointError: the endpoint cannot be bound.
        PeerTimeout: `fallback = "wait"` waited past its deadline.
        NoScorer: `service.require_scorer_s` passed without any; between two steps, as PeerTimeout is.
    """

    def __init__(
        self,
        options: TrainerOptions,
        source: Source,
        model: nn.Module,
        *,
        scorers: int = 0,
        generation: int | None = None,
        group: Group | None = None,
    ) -> None:
        self.options = options
        self.plan = Plan.of(options)
        self.completed = 0  # optimiser steps
        self._model, self._source = model, source
        head = find_head(model, options.head)
        check_model(model, source.sample, head, name=options.model)
        group = Group.current() if group is None else group
        self._num_local_scorers = scorers if options.needs_scorers and group.is_first else 0
        self._batch: Batch | None = None
        self._stopped = False
        self._closing = contextlib.ExitStack()

        assembly = assemble(options, source, model, head, self.plan, group.shard)
        self._ledger = assembly.ledger
        needs_losses = "loss" in options.entry.ledger
        self._feedback = Feedback(self._ledger, assembly.histories, needs_losses=needs_losses, shard=group.shard)
        uniform = UniformCandidates()
        device = next(model.parameters()).device
        self._run_ahead = RunAhead.of(device) if options.needs_scorers else RunAhead(None)
        self._lull = Lull(device.type == "cpu")
        supply = make_supply(
            options,
            source,
            model,
            head,
            self.plan,
            assembly,
            group,
            self._lull,
            generation=generation,
            uniform=uniform,
        )
        self._feeder, self._link, self._fresh = supply.feeder, supply.link, supply.fresh
        self.tally = Tally(
            options, source, assembly.selector, self._feeder, uniform, link=self._link, fresh=self._fresh
        )
        self.watched = Watched(options, self.tally, self._feeder, assembly.selector, self._link)
        self._state = BatchesState(self._feeder, supply.sourcing, assembly, self._link, self.tally)

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "SelectedBatches":
        with contextlib.ExitStack() as opened:
            if self._link is not None:
                opened.enter_context(self._link)  # pushes weights: a broken link shows before work is lost
                if self._num_local_scorers:
                    opened.enter_context(local_scorers(self.options, self._link.endpoint, self._num_local_scorers))
            opened.enter_context(health_of(self.watched))
            self._feeder.start()
            opened.callback(self._feeder.stop)
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[Batch]:
        self.tally.cost = count_cost(self._model, self._source)  # here, while scorers start
        if self._link is not None and self.completed < self._link.stop_step:
            self.tally.start_wait_s += await_first_scores(self._link, self.plan, self.completed, lambda: self._stopped)
        self.tally.begin()
        while self.completed < self.options.steps and not self._stopped:
            try:
                self._batch = self._next_batch()
            except Stopped:
                return
            yield self._batch
            if self._batch is not None:
                raise RuntimeError(
                    "call SelectedBatches.step(losses) once after each batch, when the optimiser stepped"
                )

    # -- the training thread ------------------------------------------------------------------------------------------

    def backward_begins(self) -> None:
        """The forward pass of this step is over. Optional: on a CPU selection then disturbs training less."""
        self._lull.begin()

    def step(self, losses: Tensor | None = None) -> None:
        """One optimiser step is complete: count it and push weights when due.

        Args:
            losses: (b,) of the batch, by sample; never waited for here. Methods that remember losses need them.

        Raises:
            ValueError: this method needs losses and got none.
        """
        if self._batch is None:
            raise RuntimeError("SelectedBatches.step without a batch: it belongs inside the loop over batches")
        batch, self._batch = self._batch, None
        self.tally.count(batch)
        self._feedback.add(batch, losses)
        self.completed += 1
        self._run_ahead.stepped()
        if self._link is None or self.completed >= self._link.stop_step:
            return
        if self.completed % self.options.push_every == 0 or self._link.push_wanted:
            self._link.push(self.completed)

    def _next_batch(self) -> Batch:
        step = self.completed
        if self._link is not None:
            self._link.require_scorer(step)
        self._run_ahead.catch_up()  # the device is waited for here, candidates are not
        prepared = self._feeder.get(step, lambda waited_s: self._while_waiting(step, waited_s))
        if not isinstance(prepared, Batch):
            assert self._fresh is not None, "candidates to be scored here, outside of fresh mode"
            started = time.perf_counter()
            prepared = self._fresh.batch(prepared, step)
            self.tally.add("score", time.perf_counter() - started)
        prepared.await_ready()
        return prepared

    def _while_waiting(self, step: int, waited_s: float) -> None:
        if self._stopped:
            raise Stopped
        wait_for_batch(self._link, step, waited_s)

    def stop(self) -> None:
        """End the iteration before the next batch, also while it waits. Any thread, also a signal handler."""
        self._stopped = True

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next batches depend on, but for the model; after `step`, before the next batch.

        Copies, on the CPU, that load with `torch.load(..., weights_only=True)`. Scoring and training go on from there
        as from here: chunks that are out or ready are leased first.

        Raises:
            PeerTimeout: the storage does not answer; the run can go on without this state.
        """
        if self._batch is not None:
            raise RuntimeError("SelectedBatches.state_dict between two steps only: call step(losses) first")
        self._feedback.finish()
        return self._state.take(self.completed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a run with the same options. Before entering, as is loading the model's own state."""
        self.completed = self._state.put_back(state)
        if self._link is not None:
            self._link.first_step = self.completed

    # -- figures ------------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger | None:
        """What is known of each sample, all steps so far included; None where nothing is.

        Between two steps, and asked for anew each time: what an earlier answer counts lags by a few steps.
        """
        self._feedback.finish()
        return self._ledger

    @property
    def endpoint(self) -> str | None:
        """Where scorers connect; None unless the mode is stale."""
        return self._link.endpoint if self._link is not None else None

    @property
    def figures(self) -> Figures:
        """Counts of steps and samples."""
        return self.tally.figures

    @property
    def samples_scored(self) -> int:
        """Candidates scored for this run, used or not."""
        return self.tally.account().num_scored

    def curves(self) -> dict[str, float]:
        """Figures for a log line, by curve; those over uniform candidates are means since the last call."""
        return self.tally.curves()

    def summary(self) -> dict[str, Any]:
        """Figures of the whole run, for summary.json."""
        if self._link is not None:
            self._link.settle()
        return self.tally.summary()
