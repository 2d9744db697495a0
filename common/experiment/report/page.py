"""The page: everything in one HTML file that needs no network and runs no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from common.experiment.report.albums import albums
from common.experiment.report.lead import lead
from common.experiment.report.palette import Style, css
from common.experiment.report.study import Study
from common.experiment.report.tables import accounting_table, key_table, target_tables
from common.experiment.results import Results

_HERE = Path(__file__).parent
# Half a marker's size is 4; the line runs from 2 to 38 at height 8.
_SHAPES = {
    "o": '<circle cx="20" cy="8" r="4"/>',
    "s": '<rect x="16" y="4" width="8" height="8"/>',
    "^": '<path d="M20 3.5 24.5 12h-9z"/>',
    "D": '<path d="M20 3l5 5-5 5-5-5z"/>',
    "v": '<path d="M20 12.5 24.5 4h-9z"/>',
    "P": '<path d="M18.3 3.5h3.4v2.8h2.8v3.4h-2.8v2.8h-3.4V9.7h-2.8V6.3h2.8z"/>',
    "X": '<path d="M16.5 3 20 6.3 23.5 3 25 4.5 21.7 8l3.3 3.5-1.5 1.5L20 9.7 16.5 13 15 11.5 18.3 8 15 4.5z"/>',
}


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it. svg: an element, trusted, with its text escaped by matplotlib."""

    name: str
    title: str
    svg: Markup
    caption: str
    alt: str


@dataclass
class ShownSection:
    """figures: those with data; missing: (title, reason) of the others."""

    title: str
    figures: list[Shown] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def page(study: Study, sections: Sequence[ShownSection]) -> str:
    """The HTML text. Every word from people is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    results = study.results
    return environment.get_template("page.html.j2").render(
        results=results,
        css=Markup(_css()),
        lead=lead(results),
        meta=meta(results),
        swatches={name: Markup(swatch(style)) for name, style in study.styles.items()},
        key=key_table(results),
        targets=target_tables(results),
        account=accounting_table(results),
        sections=sections,
        albums=albums(study),
        failed=failed(results),
        shared=_rows(results.shared),
        own={arm.name: _rows(arm.options) for arm in results.arms},
        machine=_rows(_flat(results.machine or {})),
    )


def swatch(style: Style) -> str:
    """The line and the marker of an arm, as the content of an SVG element of 40 by 16."""
    dashes = " ".join(f"{2 * length:g}" for length in style.dashes)
    colour = f"var({style.tone.variable})"
    return (
        f'<line x1="2" y1="8" x2="38" y2="8" stroke="{colour}" stroke-width="2"'
        f"{f' stroke-dasharray={chr(34)}{dashes}{chr(34)}' if dashes else ''}/>"
        f'<g fill="{colour}">{_SHAPES[style.marker]}</g>'
    )


def meta(results: Results) -> str:
    """How many runs, of what budget, where and when."""
    done = sum(len(arm.done) for arm in results.arms)
    arms = len(results.arms)
    parts = [f"{done} {'run' if done == 1 else 'runs'} in {arms} {'arm' if arms == 1 else 'arms'}"]
    if results.budget is not None:
        parts.append(f"{results.budget.amount:,.0f} {results.budget.kind} each")
    machine = results.machine or {}
    if machine.get("gpus"):
        parts.append(", ".join(dict.fromkeys(map(str, machine["gpus"]))))
    elif machine.get("cpu_count"):
        parts.append(f"{machine['cpu_count']} CPU cores")
    return " · ".join([*parts, results.created[:10]])


def failed(results: Results) -> list[str]:
    """A sentence for each run that has no figures."""
    return [
        f"{arm.name}, seed {run.seed}: " + (run.error or "it has not run yet")
        for arm in results.arms
        for run in arm.runs
        if run.status != "done"
    ]


def _css() -> str:
    text = (_HERE / "page.css").read_text(encoding="utf-8")
    return text.replace("@LIGHT@", css("light")).replace("@DARK@", css("dark"))


def _rows(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, _shown(value)) for key, value in table.items()]


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Without command lines: the command of the whole is on the page."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        elif key != "command":
            flat[prefix + key] = value
    return flat
