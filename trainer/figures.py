"""What a run did, counted step by step: the numbers of log lines and of the summary."""

from collections import Counter
from dataclasses import dataclass, field
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
    origins: Counter[str] = field(default_factory=Counter)
    staleness_counts: Counter[int] = field(default_factory=Counter)  # selected samples by staleness in steps

    def count(self, batch: Batch, *, selecting: bool, batch_size: int) -> None:
        """Add one trained batch."""
        self.steps += 1
        self.samples_trained += len(batch)
        self.origins[batch.origin] += 1
        self.short_batches += batch.num_missing > 0
        self.selecting_steps += selecting
        self.selected_steps += batch.is_selected
        self.candidates_offered += batch.num_candidates
        if batch.origin == "reused":
            self.reused_samples += len(batch)
        elif batch.is_selected:
            self.selected_samples += batch_size - batch.num_missing
        self.staleness_counts.update(batch.staleness.tolist())

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
            "samples_reused": self.reused_samples,
            "short_batches": self.short_batches,
            "steps_by_origin": dict(self.origins),
        }
