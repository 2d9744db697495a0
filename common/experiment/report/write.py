"""Results and records to report.html and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from common.experiment.records import RunRecord
from common.experiment.report.export import inline, save
from common.experiment.report.figures import PICTURES, SECTIONS
from common.experiment.report.page import Shown, ShownSection, page
from common.experiment.report.study import Study
from common.experiment.results import Results
from common.whole_files import replace_file

REPORT, FIGURES = "report.html", "figures"
_NAMES = [*(entry.name for section in SECTIONS for entry in section.entries), PICTURES.name]


def write_report(results: Results, folder: Path, records: Mapping[str, Sequence[RunRecord]]) -> Path:
    """Writes report.html, whole or not at all, and figures/NAME.png and .svg, and returns the path of the page.

    Args:
        folder: exists; figures of an earlier report of the same name are replaced.
        records: the finished runs by arm.

    Raises:
        ConfigError: a file of a run is damaged.
    """
    study = Study(results, records)
    figures = folder / FIGURES
    figures.mkdir(exist_ok=True)
    for old in _NAMES:
        for suffix in ("png", "svg"):
            (figures / f"{old}.{suffix}").unlink(missing_ok=True)
    sections = []
    for section in SECTIONS:
        shown = ShownSection(section.title)
        for entry in section.entries:
            drawn = entry.draw(study)
            if isinstance(drawn, str):
                shown.missing.append((entry.title, drawn))
                continue
            svg = Markup(inline(save(drawn.figure, figures, entry.name), entry.name))
            shown.figures.append(Shown(entry.name, entry.title, svg, drawn.caption, drawn.alt))
        sections.append(shown)
    pictures = PICTURES.draw(study)
    if not isinstance(pictures, str):
        save(pictures.figure, figures, PICTURES.name)
    path = folder / REPORT
    replace_file(path, page(study, sections))
    return path
