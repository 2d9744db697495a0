"""What a run did, counted step by step: the numbers of log lines and of the summary."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.batch import Batch


@dataclass
class Figures:
    """Counts over all steps so far. Owned by the training thread."""

    steps: int = 0
    samples_trained: int = 0
    selecting_steps: int = 0  # steps outside warm-up and annealing
    selected_steps: int = 0  # of those, the ones that trained on scored candidates
    selected_samples: int = 0  # drawn out of new candidates, one drawn twice counting twice; without reused ones
    reused_samples: int = 0
    candidates_offered: int = 0
    short_batches: int = 0
    is_degraded: bool = False  # the last step fell back and no scorer served
    degraded_steps: int = 0
    degraded_s: float = 0.0  # that these steps took
    origins: Counter[str] = field(default_factory=Counter)
    staleness_counts: Counter[int] = field(default_factory=Counter)  # selected samples by staleness in steps

    def count(
        self,
        batch: Batch,
        *,
        selecting: bool,
        batch_size: int,
        is_served: Callable[[], bool] = lambda: True,
        step_s: float = 0.0,
    ) -> None:
        """Add one trained batch.

        Args:
            is_served: whether any scorer is there, or none is needed; asked if the step fell back.
            step_s: seconds since the step before.
        """
        self.steps += 1
        self.samples_trained += len(batch)
        self.origins[batch.origin] += 1
        self.short_batches += batch.num_missing > 0
        self.is_degraded = batch.origin in ("fallback", "reused") and not is_served()
        if self.is_degraded:
            self.degraded_steps += 1
            self.degraded_s += step_s
        self.selecting_steps += selecting
        self.selected_steps += batch.is_selected
        self.candidates_offered += batch.num_candidates
        if batch.origin == "reused":
            self.reused_samples += len(batch)
        elif batch.is_selected:
            self.selected_samples += batch_size - batch.num_missing
        self.staleness_counts.update(batch.staleness.tolist())

    def state_dict(self) -> dict[str, Any]:
        return {**asdict(self), "origins": dict(self.origins), "staleness_counts": dict(self.staleness_counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, Counter(value) if isinstance(value, Mapping) else value)

    @property
    def selected_fraction(self) -> float:
        """Steps that trained on scored candidates, of those outside warm-up and annealing; 0 if there were none."""
        return self.selected_steps / self.selecting_steps if self.selecting_steps else 0.0

    @property
    def candidates_per_selected(self) -> float:
        return self.candidates_offered / self.selected_samples if self.selected_samples else 0.0

    @property
    def fallbacks(self) -> int:
        """Steps for which too few scored candidates were ready: plain or reused batches instead."""
        return self.origins["fallback"] + self.origins["reused"]

    @property
    def staleness_mean(self) -> float:
        """In steps, over the samples that streamed scores selected; 0 if there were none."""
        total = self.staleness_counts.total()
        return sum(steps * count for steps, count in self.staleness_counts.items()) / total if total else 0.0

    @property
    def staleness_max(self) -> int:
        return max(self.staleness_counts, default=0)

    def curves(self) -> dict[str, float]:
        """For log lines, by curve."""
        return {
            "staleness/mean": self.staleness_mean,
            "staleness/max": self.staleness_max,
            "selection/candidates_per_selected": self.candidates_per_selected,
            "selection/selected_fraction": self.selected_fraction,
            "selection/fallbacks": self.fallbacks,
            "degraded": float(self.is_degraded),
        }

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        return {
            "steps": self.steps,
            "samples_trained": self.samples_trained,
            "selected_fraction": self.selected_fraction,
            "candidates_per_selected": self.candidates_per_selected,
            "staleness_mean": self.staleness_mean,
            "staleness_max": self.staleness_max,
            "staleness_counts": dict(sorted(self.staleness_counts.items())),
            "fallbacks": self.fallbacks,
            "degraded_steps": self.degraded_steps,
            "degraded_s": self.degraded_s,
            "samples_reused": self.reused_samples,
            "short_batches": self.short_batches,
            "steps_by_origin": dict(self.origins),
        }
