"""`marginstream report` as people call it."""

import pytest

from common import cli
from common.config import load_options
from common.config.report import ReportOptions
from common.experiment.report import command
from common.experiment.report.figures import Entry
from common.experiment.results import Budget, read_results, write_results
from tests.common.experiment.report import planted


@pytest.fixture
def undrawn(monkeypatch):
    """No figures: they are tested elsewhere."""
    monkeypatch.setattr("common.experiment.report.write.SECTIONS", ())
    monkeypatch.setattr("common.experiment.report.write.PICTURES", Entry("none", "None", lambda study: "Not now."))


@pytest.fixture
def runs(tmp_path):
    for name in ("uniform", "stale:8"):
        planted.as_run_folder(planted.record(tmp_path / "runs" / name.replace(":", "-"), name, 0))
    return tmp_path / "runs"


def test_a_report_of_run_folders_is_written_and_named(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["report", str(runs), "--out", str(out), "--targets", "0.5"]) == 0
    assert f"Report: {out / 'report.html'}" in capsys.readouterr().out
    results = read_results(out)
    assert [arm.name for arm in results.arms] == ["uniform", "stale"]
    assert [reached.num_reached for arm in results.arms for reached in arm.reached] == [1, 1]
    assert (out / "figures" / "error-steps.png").is_file()


def test_a_comparison_keeps_its_own_arms_and_titles(runs, undrawn):
    assert cli.main(["report", str(runs)]) == 0
    kept = read_results(runs).model_copy(update={"title": "mine", "budget": Budget(kind="steps", amount=10)})
    write_results(runs / "results.json", kept)
    assert cli.main(["report", str(runs)]) == 0
    assert "<h1>mine</h1>" in (runs / "report.html").read_text(encoding="utf-8")
    elsewhere = runs.parent / "elsewhere"
    assert cli.main(["report", str(runs), "--out", str(elsewhere)]) == 0
    assert read_results(elsewhere).arms[0].runs[0].folder == str(runs / "uniform")


def test_other_targets_leave_a_comparison_what_it_is(runs, undrawn):
    assert cli.main(["report", str(runs)]) == 0
    untimed = {"title": "mine", "budget": Budget(kind="steps", amount=10), "side_by_side": True}
    write_results(runs / "results.json", read_results(runs).model_copy(update=untimed))
    assert cli.main(["report", str(runs), "--targets", "0.5"]) == 0
    again = read_results(runs)
    assert (again.title, again.budget, again.targets) == ("mine", untimed["budget"], (0.5,))
    assert [reached.num_reached for arm in again.arms for reached in arm.reached] == [1, 1]
    assert [arm.train_s for arm in again.arms] == [None, None]  # its runs shared a device


def test_an_earlier_report_does_not_hide_newer_runs(runs, undrawn):
    assert cli.main(["report", str(runs)]) == 0
    planted.as_run_folder(planted.record(runs / "fresh", "fresh", 0))
    assert cli.main(["report", str(runs)]) == 0
    assert [arm.name for arm in read_results(runs).arms] == ["uniform", "fresh", "stale"]


def test_open_shows_the_page_in_a_browser(runs, undrawn, monkeypatch):
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", lambda address: opened.append(address) or True)
    assert cli.main(["report", str(runs), "--open"]) == 0
    assert opened == [(runs / "report.html").as_uri()]


def test_without_runs_the_error_shows_how_to_name_some(capsys):
    assert cli.main(["report"]) == 2
    assert "marginstream report runs/" in capsys.readouterr().err


def test_fields_lists_every_field_with_its_meaning(capsys):
    assert cli.main(["report", "--fields"]) == 0
    text = capsys.readouterr().out
    assert "arms[].fallback_fraction (Spread, as above): share of the steps" in text
    assert all(": " in line and not line.endswith("None") for line in text.splitlines())


def test_run_folders_are_words_without_a_flag():
    options = load_options(ReportOptions, ["a", "b", "--open"], prog="marginstream report")
    assert ([str(path) for path in options.runs], options.open) == (["a", "b"], True)


def test_a_damaged_gallery_names_its_file(runs, undrawn, capsys):
    (runs / "uniform" / "gallery.npz").write_bytes(b"PK\x03\x04 but no archive")
    (runs / "stale-8" / "gallery.npz").write_bytes(b"PK\x03\x04 but no archive")
    assert cli.main(["report", str(runs)]) == 2
    assert "gallery.npz cannot be read" in capsys.readouterr().err
