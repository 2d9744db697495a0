"""Where the bytes of a version land as they arrive: at once in the model's own layout, with nothing left to convert."""

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.protocol import TensorSpec

if TYPE_CHECKING:
    from common.weights import Manifest  # which imports torch

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Run(NamedTuple):
    """Tensors that lie side by side in both layouts: their bytes on the wire, and where the first one lands."""

    start: int
    stop: int
    to: int
    widens: bool  # from bfloat16 to float32


class Landing:
    """From the layout of a wire to a model's own; see `Landing.between`.

    Attributes:
        rows, total_bytes: of the model's own layout.
    """

    def __init__(self, runs: list[Run], own: "Manifest") -> None:
        self._runs = runs
        self._starts = [run.start for run in runs]
        self.rows: tuple[TensorSpec, ...] = own.rows
        self.total_bytes = own.total_bytes

    @classmethod
    def between(cls, wire: "Manifest", own: "Manifest") -> "Landing | None":
        """For manifests of the same tensors; None if nothing changes, or more than bfloat16 that becomes float32."""
        if wire.rows == own.rows:
            return None
        runs: list[Run] = []
        for row, own_row, start, to in zip(wire.rows, own.rows, wire.offsets, own.offsets, strict=False):
            widens = (row.dtype, own_row.dtype) == ("bfloat16", "float32")
            if row.dtype != own_row.dtype and not widens:
                return None
            last = runs[-1] if runs else None
            if last and last.widens == widens and last.stop == start and last.to + (start - last.start << widens) == to:
                runs[-1] = last._replace(stop=start + row.nbytes)
            else:
                runs.append(Run(start, start + row.nbytes, to, widens))
        return cls(runs, own)

    def put(self, memory: Bytes, start: int, received: Bytes) -> None:
        """Write the bytes of the wire's layout from `start` on into `memory` ((total_bytes,), the model's layout)."""
        stop = start + len(received)
        touched = slice(max(0, bisect_right(self._starts, start) - 1), bisect_left(self._starts, stop))
        for run in self._runs[touched]:
            first, last = max(start, run.start), min(stop, run.stop)
            if first >= last:
                continue
            part = received[first - start : last - start]
            place = memory[run.to + (first - run.start << run.widens) :][: len(part) << run.widens]
            if run.widens:
                wide = place.view("<u4")  # converted, then shifted in place: in one go it takes a fifth longer
                np.copyto(wide, part.view("<u2"))
                np.left_shift(wide, 16, out=wide)
            else:
                place[:] = part
