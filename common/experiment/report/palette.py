"""Colours that differ for the colour-blind too, each for a light page and a dark one, with dashes and markers.

Figures are drawn in the light colours. In the page every one of them becomes a CSS variable, so that one drawing serves
both colour schemes. No two arms differ by colour alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

INK, MUTED, GRID, PAPER = "#1f2429", "#57606b", "#dfe4ea", "#ffffff"


@dataclass(frozen=True)
class Tone:
    """One colour of a figure: its CSS variable, and what it is on a light and on a dark page."""

    variable: str
    light: str
    dark: str


NEUTRAL = (
    Tone("--ink", INK, "#e9edf2"),
    Tone("--muted", MUTED, "#a9b3be"),
    Tone("--grid", GRID, "#333b44"),
    Tone("--paper", PAPER, "#14181d"),
)
SERIES = (
    Tone("--series-0", "#3d444d", "#d5dbe2"),  # plain training
    Tone("--series-1", "#0039df", "#507ff6"),
    Tone("--series-2", "#db6900", "#f56f43"),
    Tone("--series-3", "#00a771", "#5ff89c"),
    Tone("--series-4", "#b84eaf", "#c964af"),
    Tone("--series-5", "#851e00", "#fcdf5e"),
    Tone("--series-6", "#447fff", "#8dcbff"),
)
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1.5, 1, 1.5, 1, 1.5), (9, 3))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")


@dataclass(frozen=True)
class Style:
    """How one arm is drawn in every figure. `dashes`: lengths on and off in line widths; () is a solid line."""

    tone: Tone
    dashes: tuple[float, ...]
    marker: str

    @property
    def colour(self) -> str:
        return self.tone.light

    @property
    def line(self) -> tuple[float, tuple[float, ...]]:
        """As matplotlib takes it: an offset and the dashes, none for a solid line."""
        return (0.0, self.dashes)


def styles(arms: Sequence[tuple[str, bool]]) -> dict[str, Style]:
    """A style for each arm by name, in order; plain ones are grey where there is but one.

    Args:
        arms: (name, whether it is plain training).
    """
    num_plain = sum(is_plain for _, is_plain in arms)
    found: dict[str, Style] = {}
    number = 0
    for name, is_plain in arms:
        if is_plain and num_plain == 1:
            found[name] = Style(SERIES[0], (2, 1.2), _MARKERS[-1])
            continue
        lap = number // (len(SERIES) - 1)
        found[name] = Style(
            SERIES[1 + number % (len(SERIES) - 1)],
            _DASHES[(number + lap) % len(_DASHES)],
            _MARKERS[(number + lap) % (len(_MARKERS) - 1)],
        )
        number += 1
    return found


def with_variables(svg: str) -> str:
    """The drawing with every colour of the palette as a CSS variable."""
    variables = {tone.light: f"var({tone.variable})" for tone in (*NEUTRAL, *SERIES)}
    return _COLOUR.sub(lambda found: variables.get(found[0], found[0]), svg)


def css(scheme: str) -> str:
    """Declarations of all variables for a colour scheme, `light` or `dark`."""
    return " ".join(f"{tone.variable}: {getattr(tone, scheme)};" for tone in (*NEUTRAL, *SERIES))
