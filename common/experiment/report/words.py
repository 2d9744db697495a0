"""Figures as people read them."""

from common.experiment.results import Spread

NOTHING = "–"
GAP = "\u00a0"  # a space at which no line breaks
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def percent(value: float | None, digits: int = 2) -> str:
    """0.9861 -> 98.61 %."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}{GAP}%"


def points(value: float | None) -> str:
    """Percentage points with their sign: 0.27 -> +0.27."""
    return NOTHING if value is None else f"{value:+.2f}".replace("-", "−")


def count(value: float | None) -> str:
    """96000.4 -> 96,000."""
    return NOTHING if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """3.21 -> 3.2 s; 451 -> 7 min 31 s; 7384 -> 2 h 3 min."""
    if value is None:
        return NOTHING
    if value < 100:
        return f"{value:.1f}{GAP}s"
    if value < 6000:
        return f"{int(round(value) // 60)} min {round(value) % 60} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def flops(value: float | None) -> str:
    """2.34e12 -> 2.34 TFLOP."""
    if value is None:
        return NOTHING
    for factor, prefix in _PREFIXES:
        if value >= factor:
            return f"{value / factor:.3g}{GAP}{prefix}FLOP"
    return f"{value:,.0f}{GAP}FLOP" if value else "0"


def times(value: float | None) -> str:
    """1.894 -> 1.89×."""
    return NOTHING if value is None else f"{value:.2f}×"


def decimal(value: float | None) -> str:
    """8.94 -> 8.9."""
    return NOTHING if value is None else f"{value:,.1f}" if value else "0"


def mean(spread: Spread | None) -> float | None:
    """The mean of a figure that may be unknown."""
    return None if spread is None else spread.mean


def accuracy_range(spread: Spread | None) -> str:
    """98.33–99.17; nothing for a single seed."""
    if spread is None or spread.num < 2:
        return ""
    return f"{100 * spread.lowest:.2f}–{100 * spread.highest:.2f}"
