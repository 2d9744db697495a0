"""Every figure of a report, in the order of the page."""

from dataclasses import dataclass

from common.experiment.report.figures import (
    agreement,
    boundary,
    classes,
    error,
    margins,
    outcome,
    pictures,
    precision,
    staleness,
    training_error,
    waiting,
)
from common.experiment.report.study import Draw


@dataclass(frozen=True)
class Entry:
    """name: of its files; title: its heading, which says what it shows."""

    name: str
    title: str
    draw: Draw


@dataclass(frozen=True)
class Section:
    """Figures that answer one question."""

    title: str
    entries: tuple[Entry, ...]


SECTIONS = (
    Section(
        "How well, for what",
        (
            Entry("outcome", "Where every run ended", outcome.draw),
            Entry("error-steps", "Error at equal steps", error.against_steps),
            Entry("error-seconds", "Error at equal time", error.against_seconds),
            Entry("error-samples", "Error at equal samples trained", error.against_samples),
            Entry("error-compute", "Error at equal compute", error.against_compute),
        ),
    ),
    Section(
        "What was selected",
        (
            Entry("training-error", "Harder than average", training_error.draw),
            Entry("margins", "How close to the boundary", margins.draw),
            Entry("classes", "Which classes", classes.draw),
            Entry("boundary", "Where in the plane", boundary.draw),
        ),
    ),
    Section(
        "What old scores change",
        (
            Entry("staleness", "How old the scores were", staleness.draw),
            Entry("overlap-staleness", "The same samples?", agreement.overlap_with_staleness),
            Entry("correlation-staleness", "In the same order?", agreement.correlation_with_staleness),
            Entry("precision", "Coarser scores", precision.draw),
        ),
    ),
    Section(
        "Whether the scorers kept up",
        (
            Entry("waiting", "Time spent waiting", waiting.waiting),
            Entry("fallbacks", "Steps without scored candidates", waiting.fallbacks),
        ),
    ),
)
PICTURES = Entry("samples", "Samples selected most and least", pictures.draw)  # the page shows them in its own way
