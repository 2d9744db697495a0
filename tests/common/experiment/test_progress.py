"""What is known of a run from the metrics that its trainer writes."""

from pathlib import Path

import pytest

from common.experiment.display import plain_line
from common.experiment.progress import Tail
from tests.common.experiment.progresses import FIGURES, Clock, metrics, run


def test_a_line_that_is_still_being_written_is_read_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text("one\ntw")
    assert tail.read() == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert tail.read() == ["two", "three"]
    assert tail.read() == []


def test_speed_and_time_left_follow_from_the_latest_metrics(tmp_path: Path, clock: Clock) -> None:
    progress = run(tmp_path, clock)
    assert not progress.is_training
    progress.add(metrics(50, 60.5))  # a minute of it was waiting for the first scorer
    assert progress.is_training
    assert progress.left_s is None
    progress.add(metrics(100, 61.0))
    assert progress.steps_per_s == pytest.approx(100)
    assert progress.left_s == pytest.approx(19)
    clock.now += 4
    assert progress.left_s == pytest.approx(15)
    clock.now += 100
    assert progress.left_s == 0


def test_lines_that_are_no_metrics_and_figures_without_a_value_are_passed_over(tmp_path: Path) -> None:
    progress = run(tmp_path)
    for line in ("", "{", "[1]", "null", '{"step": null, "wall_s": 1}', '{"loss/selected": 1}'):
        progress.add(line)
    assert not progress.is_training
    progress.add(metrics(50, 1.0, **{"accuracy/held_out": 0.5, "loss/uniform": 0.7}))
    progress.add(metrics(100, 2.0, **{"loss/uniform": None}))
    assert progress.figures["loss/uniform"] == 0.7
    assert progress.figures["accuracy/held_out"] == 0.5


def resumed_at(path: Path, *lines: str) -> None:
    """What a trainer that goes on from a checkpoint makes of the file."""
    other = path.with_suffix(".new")
    other.write_text("".join(f"{line}\n" for line in lines))
    other.replace(path)


def test_a_resumed_run_is_shown_from_its_checkpoint_on_with_a_speed_of_its_own(tmp_path: Path) -> None:
    path, progress = tmp_path / "metrics.jsonl", run(tmp_path)
    tail = Tail(path)
    at = {step: metrics(step, step / 100, **FIGURES) for step in (900, 1000, 1100, 1200)}
    path.write_text(f"{at[900]}\n{at[1000]}\n{at[1100]}\n{at[1200]}\n")
    progress.follow(tail)
    assert (progress.step, progress.steps_per_s) == (1200, pytest.approx(100))
    resumed_at(path, at[900], at[1000])
    progress.follow(tail)
    assert (progress.step, progress.is_training, progress.steps_per_s) == (1000, False, None)
    assert plain_line(progress).startswith("step 1000/2000 | loss of selected 0.431")
    for step, wall_s in ((1100, 12.0), (1200, 14.0)):
        with path.open("a") as file:
            file.write(f"{metrics(step, wall_s)}\n")
        progress.follow(tail)
    assert (progress.step, progress.is_training, progress.steps_per_s) == (1200, True, pytest.approx(50))


def test_a_run_that_is_resumed_from_its_beginning_shows_nothing_of_what_was(tmp_path: Path) -> None:
    path, progress = tmp_path / "metrics.jsonl", run(tmp_path)
    tail = Tail(path)
    path.write_text(metrics(50, 1.0, **FIGURES) + "\n")
    progress.follow(tail)
    resumed_at(path)
    progress.follow(tail)
    assert (progress.step, progress.figures) == (0, {})
