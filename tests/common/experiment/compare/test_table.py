"""The tables: every figure in its unit, unknown ones as a dash, within 100 columns."""

import io

from common.experiment.compare.table import accuracy, between, count, scaled, seconds, unit_of, write_tables
from common.experiment.results import Results, Spread
from tests.common.experiment.compare.arms import arm, ratio, reached, results


def written(found: Results) -> str:
    stream = io.StringIO()
    write_tables(found, stream)
    return stream.getvalue()


def row(text: str, head: str) -> str:
    """The first row that begins with `head`, without it."""
    found = next(line.split() for line in text.splitlines() if line.split()[:1] == [head])
    return " ".join(found[1:])


FULL = arm(
    "stale:8",
    [0.97, 0.99],
    steps=600,
    samples_trained=38_400,
    samples_scored=130_000,
    flops_training=3.5e13,
    flops_scoring=4.1e13,
    flops_scoring_low_precision=4.1e13,
    train_s=9.25,
    wall_s=754.0,
    waited_fraction=0.012,
    fallback_fraction=0.125,
    staleness_mean=6.53,
    cores=2,
    is_clean=False,
    ratio_to_plain=ratio(train=1.9, flops=2.25, accuracy_points=-0.31),
    reached=[
        reached(0.95, 2, 2, step=Spread.of([300]), flops=Spread.of([2e13]), train_ratio=1.5),
        reached(0.999, 2, 0),
    ],
)


def test_costs_and_times_stand_in_their_units() -> None:
    text = written(results(FULL))
    assert row(text, "stale:8") == "98.00% ± 1.41 97.00–99.00 600 38.4 k 130 k 35 41 41"
    assert "TFLOP" in text
    times = next(line for line in text.splitlines() if "12.5% !" in line)
    assert " ".join(times.split()) == "stale:8 2 9.2 s 12:34 1.2% 12.5% ! 6.5 1.90 2.25 -0.31 uniform"
    assert "! more than 5% fallbacks: not a clean comparison" in text


def test_a_target_that_was_not_reached_says_so() -> None:
    text = written(results(FULL, targets=(0.95, 0.999)))
    assert row(text, "95%") == "stale:8 2/2 300 – – – 20 1.50 –"
    assert row(text, "99.9%").startswith("stale:8 0/2 not reached –")


def test_low_precision_has_a_column_where_something_ran_in_it() -> None:
    assert "float32" in written(results(FULL))
    assert "float32" not in written(results(FULL.model_copy(update={"flops_scoring_low_precision": None})))


def test_an_arm_of_which_nothing_is_known_is_a_row_of_dashes() -> None:
    assert row(written(results(arm("fresh", []))), "fresh") == "– " * 6 + "–"


def test_long_names_and_sentences_stay_within_100_columns() -> None:
    name = "stale:8,precision=bf16,method=loss-balanced"
    long = arm(name, [0.97, 0.99], ratio_to_plain=ratio(train=1.0), reached=[reached(0.95, 2, 0)])
    text = written(results(FULL, long, targets=(0.95,), notes=["word " * 60], verdict=["verdict " * 40]))
    assert max(map(len, text.splitlines())) <= 100


def test_numbers_are_shown_with_three_digits_and_a_unit() -> None:
    values = [950, 9600, 38_400, 1_234_000, 2_500_000_000]
    assert [count(Spread.of([value])) for value in values] == ["950", "9600", "38.4 k", "1.23 M", "2.5 G"]
    assert unit_of([Spread.of([3e10]), None, Spread.of([2e9])]) == ("G", 1e9)
    assert (unit_of([None]), scaled(Spread.of([0.0]), 1.0)) == (("", 1.0), "0")
    assert (accuracy(Spread.of([0.5])), between(Spread.of([0.5]))) == ("50.00%", "–")
    assert seconds(Spread.of([3661.0])) == "1:01:01"
