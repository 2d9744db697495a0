"""Samples onto the trainer's device beside training: pinned memory and a stream of their own on CUDA."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class Ready:
    """That tensors made on another stream are there, on CUDA; on other devices they are at once.

    Args:
        event: recorded on their stream after them; None where there is nothing to wait for.
    """

    def __init__(self, event: "torch.cuda.Event | None" = None) -> None:
        self._event = event

    def wait(self, *tensors: Tensor) -> None:
        """Have this thread's stream wait for them, without blocking the thread.

        Their memory then belongs to this stream too: it is not given away while kernels of it still read.
        """
        if self._event is None:
            return
        present = [tensor for tensor in tensors if tensor.is_cuda]
        for tensor in present:
            current = torch.cuda.current_stream(tensor.device)
            current.wait_event(self._event)
            tensor.record_stream(current)


NOW = Ready()


class Mover:
    """Moves to one device. Owned by the feeder thread; on CUDA its copies and kernels run beside those of training."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """What this thread gives the device inside does not wait for training, nor training for it."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def move(self, tensor: Tensor) -> Tensor:
        """To the device; inside `beside`. Returns before the copy is over on CUDA.

        The pinned copy comes from torch's allocator, which keeps it until the stream has read it.
        """
        if self._stream is None or tensor.device == self.device:
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def ready(self) -> Ready:
        """A mark behind everything given to the device inside `beside` so far."""
        if self._stream is None:
            return NOW
        event = torch.cuda.Event()
        event.record(self._stream)
        return Ready(event)
