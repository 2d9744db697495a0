"""Which steps train on scored candidates: a plain warm-up, the selecting middle, plain annealing."""

from dataclasses import dataclass

from common.config import TrainerOptions


@dataclass(frozen=True)
class Plan:
    """Steps [first_step, stop_step) select; the others train on plain batches. Equal bounds: none selects."""

    steps: int
    first_step: int
    stop_step: int

    @classmethod
    def of(cls, options: TrainerOptions) -> "Plan":
        """Fractions of the steps, rounded to whole steps; uniform mode never selects."""
        if options.mode == "uniform":
            return cls(options.steps, 0, 0)
        first_step = round(options.selection.warmup_fraction * options.steps)
        stop_step = options.steps - round(options.selection.anneal_fraction * options.steps)
        return cls(options.steps, first_step, max(first_step, stop_step))

    def selects(self, step: int) -> bool:
        return self.first_step <= step < self.stop_step

    @property
    def num_selecting(self) -> int:
        return self.stop_step - self.first_step
