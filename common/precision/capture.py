"""A forward pass captured in a CUDA graph: one launch instead of one for each operator."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

NUM_WARM_UPS = 3  # cuDNN and the allocator settle outside of the graph
MOST_CAPTURES = 4  # each waits for the device and holds other work up: not for batches that go on growing


class Captured:
    """Replays `body` on inputs copied to a fixed address. Weights that change in place are the replay's weights too.

    Captured with the first inputs, and again with larger ones a few times. Later batches of up to as many samples are
    replayed, with rows of an earlier batch behind them that nobody reads; others run without the graph, as do
    differently shaped ones.

    Args:
        body: (B, ...) to (B, D), sample by sample; waits for nothing, and allocates its weights nowhere.
    """

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        self._body = body
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs = self._outputs = torch.empty(0)
        self._num_captured = 0
        self._has_warned = False

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, D); overwritten by the next call."""
        num = len(inputs)
        held = self._inputs
        is_alike = self._graph is None or (inputs.shape[1:], inputs.dtype) == (held.shape[1:], held.dtype)
        if is_alike and num > len(held) and self._num_captured < MOST_CAPTURES:
            self._num_captured += 1
            self._capture(inputs)
            held = self._inputs
        if self._graph is None or not is_alike or num > len(held):
            self._warn(inputs)
            return self._body(inputs)
        held[:num].copy_(inputs)
        self._graph.replay()
        return self._outputs[:num]

    def _warn(self, inputs: Tensor) -> None:
        """Once."""
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "--compile: inputs %s do not fit the CUDA graph captured for %s (capture %d of at most %d); "
                "they run without it, slower: use chunks of one size",
                tuple(inputs.shape),
                tuple(self._inputs.shape),
                self._num_captured,
                MOST_CAPTURES,
            )

    def _capture(self, inputs: Tensor) -> None:
        # Not in inference mode: its tensors could not be overwritten outside of it.
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(inputs.device):
            if self._graph is not None:  # let go of its memory first, when it has run
                torch.cuda.current_stream().synchronize()
                self._graph, self._outputs = None, torch.empty(0)
            self._inputs = inputs.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(NUM_WARM_UPS):
                    self._body(self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may copy and allocate meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._outputs = self._body(self._inputs)
            self._graph = graph
