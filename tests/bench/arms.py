"""Runs that stand side by side in one process and advance in turns, with their scorers on another core.

All arms train one model with one optimiser: where tensors happen to lie in memory moves the time of a step by per cents
and must be the same for both arms of a pair.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from common.config import ScorerOptions, TrainerOptions
from common.data.source import Source
from common.data.sources import open_source
from common.devices import pick_device, pinned
from common.memory import keep_freed_memory
from common.processes import end, private_folder, start
from trainer.loop import make_model
from trainer.optimizers import build_optimizer, build_schedule
from trainer.stepping import make_step
from trainer.stream import SelectedBatches

SETTLE_STEPS = 10  # run before each timed block: the other arm's scorer drains, caches warm

IMAGES: dict[str, Any] = {
    "data": "tests.bench.images:open_images",
    "model": "resnet8",
    "augment": {"crop_padding": 4, "flip": True},
}
DIGITS: dict[str, Any] = {"data": "digits", "model": "small"}


def trainer_options(workload: dict[str, Any], **more: Any) -> TrainerOptions:
    """Options of an arm that selects in every step and never ends by itself. One thread, a constant small rate."""
    common: dict[str, Any] = {
        "steps": 10**9,
        "threads": 1,
        "device": "cpu",
        "lr": 1e-3,
        "schedule": {"name": "constant"},
        "selection": {"warmup_fraction": 0.0, "anneal_fraction": 0.0},
    }
    return TrainerOptions(**(common | workload | more))


class Trainee:
    """The model that all arms of a workload train, and what trains it."""

    def __init__(self, workload: dict[str, Any]) -> None:
        self.workload = workload
        options = trainer_options(workload, mode="uniform")
        torch.set_num_threads(1)
        keep_freed_memory()  # as the processes of a run do
        self.source: Source = open_source(options)
        self.device = pick_device(options.device)
        self.model = make_model(options, self.source).to(self.device)
        self.optimizer = build_optimizer(options, self.model.parameters(), capturable=options.step.capture)
        self.schedule = build_schedule(self.optimizer, options, options.steps)
        self.advancing: SelectedBatches | None = None  # of the arm whose turn it is
        self.train_step = make_step(
            self.model, self.optimizer, self.schedule, options, before_backward=self._before_backward
        )
        self.model.train()

    def _before_backward(self) -> None:
        if self.advancing is not None:
            self.advancing.backward_begins()


class Arm:
    """One run of a trainee, advanced block by block. Between blocks its threads wait and use no time."""

    def __init__(self, trainee: Trainee, batches: SelectedBatches) -> None:
        self._trainee = trainee
        self._batches = iter(batches)
        self.batches = batches
        self.device = trainee.device

    def advance(self, steps: int) -> float:
        """Steps as the trainer's loop makes them: get the batch, train, push when due. Returns the seconds taken."""
        started = time.perf_counter()
        trainee = self._trainee
        trainee.advancing = self.batches
        for _ in range(steps):
            batch = next(self._batches)
            result = trainee.train_step(batch)
            self.batches.step(result.losses)
        if trainee.device.type == "cuda":
            torch.cuda.synchronize(trainee.device)
        return time.perf_counter() - started

    def step_s(self, steps: int) -> float:
        """Mean seconds of a step over a block, after a few that are not timed."""
        self.advance(SETTLE_STEPS)
        return self.advance(steps) / steps


@contextlib.contextmanager
def open_arm(trainee: Trainee, options: TrainerOptions, *, scorer_core: int | None = None) -> Iterator[Arm]:
    """An arm, in stale mode with one scorer on a core of its own and its first scores already there."""
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        if options.mode == "stale":
            options = options.model_copy(update={"listen": f"ipc://{folder}/t"})
        batches = opened.enter_context(SelectedBatches(options, trainee.source, trainee.model))
        if batches.endpoint is not None:
            opened.enter_context(scorer_process(options, batches.endpoint, scorer_core))
        arm = Arm(trainee, batches)
        arm.advance(SETTLE_STEPS)
        yield arm


@contextlib.contextmanager
def scorer_process(options: TrainerOptions, endpoint: str, core: int | None) -> Iterator[None]:
    """`python -m scorer` for a trainer's options, on one core."""
    shared = {name: getattr(options, name) for name in ScorerOptions.model_fields if hasattr(options, name)}
    scorer = ScorerOptions(**(shared | {"connect": endpoint, "scorer_device": options.device, "config": None}))
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        log = opened.enter_context((folder / "log").open("wb"))
        with pinned(core):
            process = start("scorer", scorer, folder / "scorer.toml", output=log)
        opened.callback(end, process)
        yield
