"""The page in a real browser: what people see of it on telephones and large screens, light and dark."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.experiment.report.figures import SECTIONS
from tests.common.experiment.report.browser import PROGRAM, Browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium (Debian package chromium)")
CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_everything_is_visible_readable_and_within_the_window(report, browser, width, dark):
    with browser.page(report, width=width, dark=dark) as page:
        assert page.value("matchMedia('(prefers-color-scheme: dark)').matches") is dark
        assert page.value(CHECKS) == []
        assert page.value("document.documentElement.scrollWidth") == width
        names = {entry.name for section in SECTIONS for entry in section.entries}
        assert set(page.value("[...document.querySelectorAll('figure')].map(figure => figure.id)")) == names
        assert page.value("document.images.length") == 3 * 2 * 12, "three selecting arms, two groups of twelve"


def test_the_page_runs_no_script_reports_no_error_and_asks_for_nothing_else(report, browser):
    with browser.page(report, width=800) as page:
        page.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.troubles() == []
        assert page.requests() == [report.as_uri()]
        assert page.value("document.scripts.length") == 0


def test_print_is_light_even_where_the_screen_is_dark(report, browser):
    with browser.page(report, width=700, dark=True, media="print") as page:
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("</style>", ".meta { color: #777; }</style>", "contrast"),
        ("</style>", "@media (prefers-color-scheme: dark) { .meta { color: #556; } }</style>", "contrast"),
        ("</style>", ".meta { font-size: 13px; }</style>", "13.0 px"),
        ("</style>", "tr { min-width: 500px; }</style>", "beyond the edge"),
        ("</style>", "pre { white-space: pre; }</style>", "scrolls sideways"),
        ("</style>", "figure svg { width: 300px !important; }</style>", "px: "),
        ("</style>", "#margins svg { display: none !important; }</style>", "figure margins is not visible"),
        ("data:image/png;base64,iVBOR", "data:image/png;base64,AAAAA", "is not visible"),
    ],
)
def test_the_checks_notice_a_broken_page(report, browser, tmp_path, before, after, fault):
    text = report.read_text(encoding="utf-8")
    assert before in text
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace(before, after), encoding="utf-8")
    with browser.page(broken, width=400, dark=True) as page:
        assert any(fault in found for found in page.value(CHECKS))
