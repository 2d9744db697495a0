"""Drawings as files, and as part of a page."""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from common.experiment.report.palette import with_variables

PNG_DPI = 216  # three pixels a point
# Text stays text, so that the page's own font shows it and a reader can search it; hashsalt: equal runs, equal files.
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "marginstream", "font.family": ["DejaVu Sans"]}
_IDS = re.compile(r'(\bid="|href="#|url\(#)')


def svg_text(figure: Figure) -> str:
    """The drawing as an SVG document."""
    file = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes NAME.png and NAME.svg, on white, and returns the SVG text."""
    text = svg_text(figure)
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    with mpl.rc_context(_SETTINGS):
        figure.savefig(folder / f"{name}.png", dpi=PNG_DPI, metadata={"Software": None})
    return text


def inline(svg: str, name: str) -> str:
    """The `<svg>` element for a page: colours as variables, ids of its own, no background, hidden from screen readers.

    What it shows is said by the element around it.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="patch_1">.*?</g>', "", svg, count=1, flags=re.DOTALL)  # the sheet's own background
    svg = _IDS.sub(lambda found: f"{found[1]}{name}-", svg)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"([^>]*?)height="[^"]*"', r"<svg \1\2", svg, count=1)
    return with_variables(svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)).strip()
