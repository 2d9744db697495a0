"""What every figure is drawn from, and what it gives back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from common.experiment.records import RunRecord
from common.experiment.report.curves import Band, Line, band
from common.experiment.report.palette import Style, styles
from common.experiment.results import ArmResult, Results


@dataclass(frozen=True)
class Study:
    """The runs of a report.

    Attributes:
        records: by name of arm; arms without a finished run are absent or empty.
    """

    results: Results
    records: Mapping[str, Sequence[RunRecord]]
    styles: Mapping[str, Style] = field(init=False)

    def __post_init__(self) -> None:
        arms = [(arm.name, arm.mode == "uniform") for arm in self.results.arms]
        object.__setattr__(self, "styles", styles(arms))

    @property
    def arms(self) -> list[ArmResult]:
        """Those with a finished run, in the order of the results."""
        return [arm for arm in self.results.arms if self.records.get(arm.name)]

    @property
    def num_seeds(self) -> int:
        """The most finished runs of an arm."""
        return max((len(self.records[arm.name]) for arm in self.arms), default=0)

    def bands(self, curve: Callable[[RunRecord], Line]) -> dict[str, Band]:
        """What the runs of each arm have in common, by arm; without the arms that have no points."""
        found = {arm.name: band([curve(record) for record in self.records[arm.name]]) for arm in self.arms}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def band_words(self) -> str:
        """What line and band are, for captions."""
        if self.num_seeds < 2:
            return "A line is one run."
        return f"Line: mean of {self.num_seeds} seeds; band: lowest to highest."


@dataclass(frozen=True)
class Drawn:
    """A figure. caption: what axes and bands are; alt: what one would see, for those who cannot."""

    figure: Figure
    caption: str
    alt: str


Draw = Callable[[Study], Drawn | str]  # or the reason why there is nothing to draw, a sentence
