"""How long a GPU stands still between two training steps, by CUDA events."""

import itertools

import torch


class Gaps:
    """Marks the beginning and the end of steps on the training stream. On the CPU it does nothing.

    A gap is from the last kernel of a step to the first of the next; it holds what the trainer puts between them, such
    as the copy for a push, and waiting: for the batch, or for Python.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def begins(self) -> None:
        if self._on_gpu:
            self._marks.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._marks[-1][0].record(torch.cuda.current_stream(self._device))

    def ends(self) -> None:
        if self._on_gpu:
            self._marks[-1][1].record(torch.cuda.current_stream(self._device))

    def clear(self) -> None:
        """Steps that follow are of another block."""
        self._marks.clear()

    def fraction(self) -> float | None:
        """Mean gap over the mean step of this block, once all of them are over; None on the CPU."""
        marks = self._marks
        if len(marks) < 2:
            return None
        torch.cuda.synchronize(self._device)
        steps = [begin.elapsed_time(end) for begin, end in marks]
        gaps = [end.elapsed_time(begin) for (_, end), (begin, _) in itertools.pairwise(marks)]
        return (sum(gaps) / len(gaps)) / (sum(steps) / len(steps))
