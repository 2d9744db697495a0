"""What people see of a run while it goes on."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from common.experiment.display import LiveDisplay, PlainDisplay, duration, make_display, plain_line, render
from common.experiment.progress import Progress
from tests.common.experiment.progresses import FIGURES, Clock, half_way, metrics, run


def drawn(progress: Progress, width: int) -> list[str]:
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=width, height=24)
    console.print(render(progress, width))
    return console.export_text().splitlines()


def test_the_display_shows_every_figure_with_its_unit(tmp_path: Path) -> None:
    text = "\n".join(drawn(half_way(tmp_path), 80))
    for part in (
        "small on digits: mms, stale",
        "1000/2000 steps, 200/s, 0:05 left",
        "held-out accuracy           96.94%",
        "loss of selected            0.431",
        "loss of uniform candidates  0.102",
        "candidates per selected     4.3",
        "waiting              1.2% of the time",
        "staleness            3.7 steps, at most 12",
        "trained on selected  98.1% of steps",
        "scorers              2",
    ):
        assert part in text, f"{part!r} not in\n{text}"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_display_fits_the_terminal(tmp_path: Path, width: int) -> None:
    progress = half_way(tmp_path, model="some.where.else:a_model_with_a_very_long_name_indeed", data="my.data:Images")
    progress.status = "waiting up to 60 s for the first scored chunk from a scorer at ipc:///tmp/marginstream-abc/t"
    lines = drawn(progress, width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 12
    assert "1000/2000 steps" in "\n".join(lines)


def test_before_any_step_the_display_says_what_happens(tmp_path: Path) -> None:
    progress = run(tmp_path)
    progress.status = "starting: importing torch…"
    lines = drawn(progress, 80)
    assert lines[-1].rstrip() == "starting: importing torch…"
    assert "held-out accuracy           –" in "\n".join(lines)
    assert "0/2000 steps" in lines[1]


def test_names_and_log_lines_are_not_taken_for_markup(tmp_path: Path) -> None:
    progress = run(tmp_path, data="my:[bold]")
    progress.status = "waiting for [red]something[/red]"
    text = "\n".join(drawn(progress, 80))
    assert "small on my:[bold]" in text
    assert "[red]something[/red]" in text


def test_only_figures_that_mean_something_in_the_mode_are_shown(tmp_path: Path) -> None:
    plain = "\n".join(drawn(half_way(tmp_path, mode="uniform"), 80))
    assert "small on digits: uniform" in plain
    assert "loss of plain batches" in plain
    assert not [word for word in ("staleness", "candidates", "scorers") if word in plain]
    fresh = "\n".join(drawn(half_way(tmp_path, mode="fresh"), 80))
    assert "candidates per selected  4.3" in fresh
    assert not [word for word in ("staleness", "scorers") if word in fresh]


def test_while_annealing_the_loss_shown_is_that_of_plain_batches(tmp_path: Path) -> None:
    progress = half_way(tmp_path)
    progress.add(metrics(1950, 20.0, **{"loss/plain": 0.25}))
    text = "\n".join(drawn(progress, 80))
    assert "loss of plain batches       0.250" in text
    assert "loss of selected" not in text


def test_before_anything_was_selected_its_figures_are_not_shown_as_zero(tmp_path: Path) -> None:
    progress = run(tmp_path)
    progress.add(metrics(50, 1.0, **{tag: 0 for tag in FIGURES if not tag.startswith("loss")}))
    assert (
        plain_line(progress)
        == "step 50/2000 | waiting 0.0% of the time | trained on selected 0.0% of steps | scorers 0"
    )


def test_plain_lines_come_with_news_and_not_too_often(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    progress = run(tmp_path, clock)
    with PlainDisplay(stream, clock=clock) as display:
        progress.status = "starting: importing torch…"
        for _ in range(100):
            display.show(progress)
            clock.now += 0.1
        progress.add(metrics(900, 10.0, **FIGURES))
        progress.status = ""
        display.show(progress)
        progress.add(metrics(1000, 10.5, **FIGURES))
        display.show(progress)
        clock.now += 5
        display.show(progress)
        progress.add(metrics(2000, 15.5, **FIGURES))
        display.show(progress, now=True)
    lines = stream.getvalue().splitlines()
    assert [line.partition(" | loss")[0] for line in lines] == [
        "0:00 | starting: importing torch…",
        "0:10 | step 900/2000",
        "0:15 | step 1000/2000",
        "0:15 | step 2000/2000",
    ]
    assert lines[2].endswith("| scorers 2 | 0:00 left")
    assert lines[3].endswith("| scorers 2")
    assert "".join(lines).isprintable()  # no control codes


def test_a_plain_line_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    progress = run(tmp_path)
    progress.add(metrics(50, 1.0, **{"loss/plain": 1.5}))
    assert plain_line(progress) == "step 50/2000 | loss of plain batches 1.500"


def test_the_display_is_live_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_display(Terminal()), LiveDisplay)
    assert isinstance(make_display(io.StringIO()), PlainDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(Terminal()), PlainDisplay)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (183600, "2 d 3 h")],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_line_that_stays_is_written_as_it_is(tmp_path: Path) -> None:
    stream = io.StringIO()
    with LiveDisplay(Console(file=stream, force_terminal=True, width=60)) as live:
        live.show(half_way(tmp_path), now=True)
        live.say("scorer-0 was ended by [red]SIGKILL[/red]")
        live.show(half_way(tmp_path), now=True)
    assert "scorer-0 was ended by [red]SIGKILL[/red]" in stream.getvalue()
    plain = io.StringIO()
    PlainDisplay(plain).say("scorer-0 was ended")
    assert plain.getvalue() == "scorer-0 was ended\n"
