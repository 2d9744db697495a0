"""The plan as people read it."""

import io
import shlex

import pytest
from rich.console import Console

from common.experiment.plan.advice import advise
from common.experiment.plan.words import command_words, render, shell_lines, without
from tests.common.experiment.plan.planted import measured, options, together


def shown(width: int, **changes: object) -> str:
    found = measured(**changes)
    stream = io.StringIO()
    Console(file=stream, width=width).print(render(options(), found, advise(options(), found)))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_the_terminal_and_keeps_every_figure(width: int) -> None:
    text = shown(width, together=together(24_000))
    assert max(map(len, text.splitlines())) <= width
    for figure in ("10 ms", "8 ms", "24,000/s", "100 us", "int8", "5.0x", "90%", "1 MB"):
        assert figure in text


def test_it_says_where_each_number_comes_from() -> None:
    text = " ".join(shown(100, together=together(24_000)).split())
    assert "training step 8 ms 2 threads, alone" in text
    assert "training step 10 ms beside 1 scorer at work, 1.00 times that without" in text
    assert "N/k <= 3 S q = 3 x 1 x 4.0 = 12.0" in text
    assert "measured at the same time, the scorers supply 7.5" in text
    assert "times as fast as scoring them in the trainer in int8 (14.8 ms)" in text
    assert "faster one if it needs less than 80% of its steps" in text
    assert "by the step and the rate measured alone" in " ".join(shown(100).split())


def test_fresh_selection_is_named_where_it_is_the_faster_way() -> None:
    said = "Scoring in the trainer is the faster way here: compare with --mode fresh --precision int8."
    assert said in " ".join(shown(100, together=together(24_000), push_s=1.0).split())
    assert said not in " ".join(shown(100, together=together(24_000)).split())


def test_a_busy_machine_is_named() -> None:
    assert "Others are using this machine (load 3.0 on 2 cores)" in shown(120, load=3.0)
    assert "Others" not in shown(120, load=0.1)


def test_the_command_repeats_what_was_typed_and_adds_what_is_advised() -> None:
    typed = ["--model", "resnet8", "--precision", "auto", "--json", "--measure_s=3", "--augment.flip"]
    given = options(model="resnet8", precision="auto")
    command = command_words(typed, advise(given, measured(together=together(24_000))))
    assert command[:5] == ["marginstream", "run", "--model", "resnet8", "--augment.flip"]
    assert shlex.join(command[5:]) == "--scorers 1 --precision int8 --candidates 192 --chunk-size 64 --push-every 4"


def test_flags_are_left_out_with_their_values_however_they_are_written() -> None:
    words = ["--a-b", "1", "--a_b=2", "--c", "--d", "4"]
    assert without(words, {"--a-b": 1, "--c": 0}) == ["--d", "4"]


def test_a_long_command_is_broken_so_that_it_can_be_pasted() -> None:
    words = ["marginstream", "run", "--out", "a folder", "--steps", "100"]
    text = shell_lines(words, 30)
    assert text == "marginstream run \\\n    --out 'a folder' \\\n    --steps 100"
    assert shlex.split(text.replace("\\\n", "")) == words
