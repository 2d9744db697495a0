"""All that the next batches of a run depend on: taken between two steps, put back before the first.

training thread: between two steps ──► feeder parked ──► pool frozen ──► every part's state, of one moment
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.assembly import Assembly
from trainer.batch import Batch
from trainer.feeder import Feeder
from trainer.fresh import FreshCandidates, FreshSourcing
from trainer.link import ScorerLink
from trainer.sourcing import StaleSourcing
from trainer.tally import Tally

Prepared = Batch | FreshCandidates


class Stateful(Protocol):
    """A part with a state of tensors and plain values in nested dicts, lists and tuples."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> object: ...


class BatchesState:
    """Of the batches of a run. Training thread only.

    Args:
        feeder: parked while a state is taken; what it has ready is saved, as its candidates are consumed.
        sourcing: of the feeder.
        link: its pool is frozen while a state is taken; None where nobody leases.
    """

    def __init__(
        self,
        feeder: Feeder[Prepared],
        sourcing: StaleSourcing | FreshSourcing,
        assembly: Assembly,
        link: ScorerLink | None,
        tally: Tally,
    ) -> None:
        self._feeder = feeder
        self._sourcing = sourcing
        self._pool = None if link is None else link.pool
        parts: dict[str, Stateful | None] = {
            "selector": assembly.selector,
            "sourcing": sourcing,
            "histories": assembly.histories,
            "prediction": assembly.prediction,
            "pool": self._pool,
            "link": None if link is None else link.figures,
            "tally": tally,
        }
        self._parts = {name: part for name, part in parts.items() if part is not None}

    def take(self, step: int) -> dict[str, Any]:
        """After `step` optimiser steps; copies, on the CPU, that load with `weights_only=True`.

        Raises:
            PeerTimeout: the next batch is being read for too long; the run can go on.
        """
        with self._feeder.parked() as ready, self._pool.frozen() if self._pool else contextlib.nullcontext():
            return {
                "step": step,
                "parts": {name: copied(part.state_dict()) for name, part in self._parts.items()},
                "ready": {number: _saved(prepared) for number, prepared in ready.items()},
                "feeder": {"waited_s": self._feeder.waited_s, "busy_s": self._feeder.busy_s},
            }

    def put_back(self, state: Mapping[str, Any]) -> int:
        """Before the feeder starts. Returns the optimiser steps completed."""
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        step: int = state["step"]
        self._feeder.restore(
            step, {number: self._restored(saved) for number, saved in state["ready"].items()}, **state["feeder"]
        )
        return step

    def _restored(self, saved: Mapping[str, Any]) -> Prepared:
        if "starts" in saved:
            assert isinstance(self._sourcing, FreshSourcing), "candidates to be scored here, outside of fresh mode"
            return FreshCandidates([self._sourcing.read(start) for start in saved["starts"]])
        on_device = {name: saved[name].to(self._sourcing.device) for name in ("inputs", "targets", "weights")}
        arrays = {name: saved[name].numpy() for name in ("ids", "staleness")}
        return Batch(**{**saved, **on_device, **arrays})


def _saved(prepared: Prepared) -> dict[str, Any]:
    """A batch as it is: its candidates are consumed. Candidates that nobody scored yet are read anew."""
    if isinstance(prepared, FreshCandidates):
        return {"starts": [chunk.start for chunk in prepared.chunks]}
    prepared.await_ready()
    fields = {name: value for name, value in vars(prepared).items() if name != "ready"}
    arrays = {name: torch.from_numpy(fields[name]) for name in ("ids", "staleness")}
    state: dict[str, Any] = copied(fields | arrays)
    return state


def copied(state: Any) -> Any:
    """The same nested dicts, lists and tuples, with copies of the tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state
