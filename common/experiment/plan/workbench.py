"""Model, data and scores of a run, set up to be timed in this process: training steps, scoring, pushes."""

import os
import statistics
import time
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from common.config import RunOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.sources import open_source
from common.devices import pick_device
from common.errors import ConfigError
from common.memory import keep_freed_memory
from common.models import build_model, find_head, gives_margins
from common.models.loss import per_sample_loss
from common.order import Order
from common.precision.auto import settled_copy
from common.precision.forms import compiles, make_form
from common.scoring import score_candidates
from common.weights import copy_groups, grouped, manifest_of, model_tensors

FEWEST = 3  # times that anything is timed


class Workbench:
    """One model on one device. Threads and allocator are set for the whole process, as in those of a run.

    Args:
        device: "auto", "cpu", "cuda:0" and so on.
        threads: of whatever runs on the CPU.
    """

    def __init__(self, options: RunOptions, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        keep_freed_memory()
        self.options = options
        self.device = pick_device(device)
        self.source = open_source(options)
        sample = self.source.sample
        self.reader = SampleReader(
            self.source,
            Augmentation(options.augment, options.seed, sample),
            Order(sample.num_samples, options.seed, "candidates"),
        )
        model = build_model(options.model, sample, seed=options.seed, head=options.head).to(self.device)
        self._head_name = next(
            name for name, module in model.named_modules() if module is find_head(model, options.head)
        )
        self.model = settled_copy(model, self.inputs(64)[0]).requires_grad_(True)
        self.head = find_head(self.model, self._head_name)
        self.score = "mms" if gives_margins(self.model, sample, self.head) else "loss"

    def check(self, precision: str | None) -> None:
        """Raise ConfigError for a precision that this device or model does not score in; None is any."""
        if precision is not None:
            compile = self.options.compile and compiles(precision)
            make_form(self.model, self.head, precision, compile=compile)

    def inputs(self, num: int, start: int = 0) -> tuple[Tensor, Tensor]:
        """Prepared inputs and targets of candidates, on the device."""
        samples = self.reader.read(np.arange(start, start + num))
        return self.source.prepare(samples.inputs.to(self.device)), samples.targets.to(self.device)

    def read_s(self, num: int, budget_s: float) -> float:
        """Seconds to read, augment and prepare one of `num` candidates."""
        starts = iter(range(0, 1 << 30, num))
        return self.seconds(lambda: self.inputs(num, next(starts)), budget_s) / num

    def step_s(self, budget_s: float) -> float:
        """Seconds of one training step on a batch that is ready."""
        return self.seconds(self.stepper, budget_s)

    @cached_property
    def stepper(self) -> Callable[[], None]:
        """One training step, each time on the same batch."""
        options = self.options
        inputs, targets = self.inputs(options.batch_size)
        optimizer = _optimizer(options, list(self.model.parameters()))

        def step() -> None:
            self.model.train()
            losses = per_sample_loss(self.model, self.model(inputs), targets, options.optim.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            losses.mean().backward()
            optimizer.step()

        return step

    def scorer(self, precision: str, num: int) -> Callable[[], None]:
        """Reads and scores the next chunk of `num` candidates, as a scorer does."""
        self.model.eval().requires_grad_(False)
        compile = self.options.compile and compiles(precision)
        form = make_form(self.model, self.head, precision, compile=compile)
        form.calibrate(self.inputs(num)[0])
        starts = iter(range(0, 1 << 40, num))

        def score() -> None:
            inputs, targets = self.inputs(num, next(starts))
            score_candidates(self.model, self.head, inputs, targets, [self.score], forward=form)

        return score

    def load_s(self, precision: str, num: int, budget_s: float) -> float:
        """Seconds for a form to take over new weights."""
        form = make_form(self.model, self.head, precision)
        form.calibrate(self.inputs(num)[0])
        return self.seconds(form.refresh, budget_s)

    def push_s(self, wire: str, budget_s: float) -> tuple[float, int]:
        """Seconds of the copy that training stands still for, and the bytes that then travel."""
        manifest = manifest_of(self.model, wire=wire, head=self.head)
        views = manifest.views(torch.zeros(manifest.total_bytes, dtype=torch.uint8, device=self.device))
        groups = grouped(views, list(model_tensors(self.model).values()))
        return self.seconds(lambda: copy_groups(groups), budget_s), manifest.total_bytes

    def seconds(self, call: Callable[[], object], budget_s: float) -> float:
        """The median of as many calls as the budget allows, after one that does not count."""
        call()
        self._settle()
        times: list[float] = []
        until = time.perf_counter() + budget_s
        while len(times) < FEWEST or time.perf_counter() < until:
            started = time.perf_counter()
            call()
            self._settle()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _optimizer(options: RunOptions, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Like a run's, at a rate so low that thousands of steps on one batch change nothing."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, 1e-6, options.optim.momentum, fused=True)
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, 1e-6, fused=True)


def cores() -> list[int]:
    """Those that this process may use, by number."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def check_scored(options: RunOptions) -> None:
    """Raise ConfigError for options under which no model scores, so that there is nothing to plan."""
    if options.mode != "stale" or not options.needs_scorers or options.resolved_backend != "torch":
        raise ConfigError(
            f"--mode {options.mode} --method {options.method} --backend {options.resolved_backend}: no scorer runs the "
            "model's forward pass, so there is nothing to plan; choose --mode stale and a method like mms"
        )
    if options.scorers == 0:
        raise ConfigError("--scorers 0: no scorer runs on this machine, so none can be measured; leave it out")
