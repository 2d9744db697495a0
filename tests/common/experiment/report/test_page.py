"""The text of the page: one file, everything escaped, every figure with words of its own."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from common.experiment.report.export import inline, svg_text
from common.experiment.report.figures import PICTURES, SECTIONS, error
from common.experiment.report.page import page
from common.experiment.report.study import Study
from tests.common.experiment.report import planted


class Tags(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def text(report):
    return report.read_text(encoding="utf-8")


def test_the_page_is_one_file_without_scripts_or_addresses(text):
    tags = Tags(text).tags
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe", "object", "a")]
    sources = [
        str(value) for _, attrs in tags for name, value in attrs.items() if name.rpartition(":")[2] in ("src", "href")
    ]
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    assert "url(http" not in text
    assert "@import" not in text


def test_words_from_people_are_escaped(text):
    assert "<script>" not in text
    assert "two <b>" not in text
    assert "two &lt;b&gt;&amp;" in text
    assert "ran out of &lt;memory&gt;" in text


def test_ids_are_unique_and_references_lead_somewhere(text):
    tags = Tags(text).tags
    ids = [str(attrs["id"]) for _, attrs in tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    wanted = {str(value)[1:] for _, attrs in tags for name, value in attrs.items() if name.endswith("href") and value}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted <= set(ids)


def test_drawings_take_their_colours_from_the_scheme_of_the_page(text):
    drawings = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    colours = {found for drawing in drawings for found in re.findall(r"#[0-9a-f]{6}\b", drawing)}
    assert colours == set(), "a colour of its own would stay as it is on a dark page"


def test_every_figure_lies_beside_the_page_as_png_and_svg(report):
    names = {entry.name for section in SECTIONS for entry in section.entries} | {PICTURES.name}
    assert {path.name for path in (report.parent / "figures").iterdir()} == {
        f"{n}.{s}" for n in names for s in ("png", "svg")
    }


def test_an_unclean_arm_and_a_missed_target_are_said_plainly(text):
    assert text.count("not a clean comparison: above 5\u00a0%") == 3, "key table, account wide and narrow"
    assert "not reached" in text


def test_equal_runs_make_equal_drawings(made):
    one, other = (inline(svg_text(error.against_steps(Study(*made)).figure), "x") for _ in range(2))
    assert one == other


def test_samples_that_are_no_pictures_are_listed_by_their_numbers(made, tmp_path):
    folder = tmp_path / "run"
    run = planted.record(folder, "stale:8", 0, steps=100)
    arrays = dict(np.load(folder / "gallery.npz"))
    arrays["most_inputs"] = arrays["least_inputs"] = np.full((12, 6), 0.25, np.float32)
    np.savez(folder / "gallery.npz", **arrays)
    results = made[0].model_copy(update={"arms": [planted.arm("stale:8", [run])]})
    study = Study(results, {"stale:8": [run]})
    assert "(0.25, 0.25, 0.25, 0.25, …)" in page(study, [])
    assert isinstance(PICTURES.draw(study), str)
