"""The training step as `--step` asks for it: in bf16, compiled, captured in a CUDA graph. b = batch size."""

import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from common.config import TrainerOptions
from common.errors import ConfigError
from trainer.batch import Batch
from trainer.ranks.ballot import Ballot
from trainer.step import StepResult, take_gradients, train_step

Step = Callable[[Batch], StepResult]
Forward = Callable[[Tensor], Any]

WARMUP_STEPS = 3  # before a capture: lazy initialisation and, with --step.compile, compilation must be over
COMPILERS = ("c++", "g++", "clang++")


def make_step(
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    options: TrainerOptions,
    ballot: Ballot | None = None,
    before_backward: Callable[[], None] = lambda: None,
) -> Step:
    """What the loop calls for each batch; see `trainer.step.train_step` for what it does.

    Args:
        optimizer: from `build_optimizer` with the same options; to be captured, its rate must be a tensor.
        ballot: of this model, where there are several ranks.
        before_backward: called in each step once its loss is known; not in captured ones.

    Raises:
        ConfigError: this device does not offer what is asked for.
    """
    device = next(model.parameters()).device
    forward = _forward(model if ballot is None else ballot.model, options, device)
    if not options.step.capture:
        return lambda batch: train_step(model, optimizer, schedule, batch, options, forward, ballot, before_backward)
    if ballot is not None:
        raise ConfigError("--step.capture records the step of a single rank, and there are several; leave it off")
    if device.type != "cuda":
        raise ConfigError(f"--step.capture: graphs are of CUDA, the trainer is on {device}; leave it off")
    return CapturedStep(model, optimizer, schedule, options, forward, device)


def _forward(model: nn.Module, options: TrainerOptions, device: torch.device) -> Forward:
    """The forward pass; another number of samples than b goes through the model as it is, compiled for no other."""
    how, usual = options.step, options.batch_size
    compiled = _compiled(model, device) if how.compile else model
    if how.precision == "float32":
        if not how.compile:
            return model
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    else:

        def autocast() -> contextlib.AbstractContextManager[Any]:
            # A cache of casts would hold tensors of a capture beyond it.
            return torch.autocast(device.type, torch.bfloat16, cache_enabled=not how.capture)

    def forward(inputs: Tensor) -> Any:
        with autocast():
            return (compiled if len(inputs) == usual else model)(inputs)

    return forward


def _compiled(model: nn.Module, device: torch.device) -> Forward:
    if device.type == "cpu" and not any(shutil.which(name) for name in COMPILERS):
        raise ConfigError(f"--step.compile: needs a C++ compiler on the CPU ({', '.join(COMPILERS)}); leave it off")
    compiled: Forward = torch.compile(model, dynamic=False)
    return compiled


class CapturedStep:
    """Forward, backward, clipping and the optimiser's step in one CUDA graph; the schedule stays outside.

    The first steps run as they come, on a stream of their own, as a capture wants it; then every batch of b samples is
    copied into fixed addresses and replayed. A batch of another size is trained without the graph, by the same
    optimiser: the graph reads the learning rate, parameters and the optimiser's state where they lie.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        options: TrainerOptions,
        forward: Forward,
        device: torch.device,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._schedule = schedule
        self._options = options
        self._forward = forward
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs = self._targets = self._weights = torch.empty(0)
        self._result = StepResult(torch.empty(0), torch.empty(0))
        self.num_warm = 0
        self.num_replayed = 0

    def __call__(self, batch: Batch) -> StepResult:
        if len(batch) != self._options.batch_size:
            return train_step(self._model, self._optimizer, self._schedule, batch, self._options, self._forward)
        if self.num_warm < WARMUP_STEPS:
            return self._warm_up(batch)
        if self._graph is None:
            self._capture(batch)
        assert self._graph is not None, "captured just now"
        self._inputs.copy_(batch.inputs, non_blocking=True)
        self._targets.copy_(batch.targets, non_blocking=True)
        self._weights.copy_(batch.weights, non_blocking=True)
        self._graph.replay()
        self._schedule.step()  # writes the rate into the tensor that the graph reads, behind this replay
        self.num_replayed += 1
        return StepResult(self._result.losses.clone(), self._result.num_correct.clone())  # the next replay writes there

    def _warm_up(self, batch: Batch) -> StepResult:
        self.num_warm += 1
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = train_step(self._model, self._optimizer, self._schedule, batch, self._options, self._forward)
        current.wait_stream(self._stream)
        for tensor in (batch.inputs, batch.targets, batch.weights):
            tensor.record_stream(self._stream)
        return result

    def _capture(self, batch: Batch) -> None:
        """Records a step without making it; gradients live in the graph's own memory from here on."""
        self._inputs, self._targets = batch.inputs.clone(), batch.targets.clone()
        self._weights = batch.weights.clone()
        graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad(set_to_none=True)
        # Other threads go on reading batches and copying weights meanwhile: their calls are no part of the capture.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._result = take_gradients(
                self._model, self._inputs, self._targets, self._weights, self._options, self._forward
            )
            self._optimizer.step()
        self._graph = graph
