"""The account of a comparison, on runs whose figures are known to the last digit."""

from pathlib import Path
from typing import Any

import pytest

from common.config import RunOptions
from common.errors import ConfigError
from common.experiment.records import FailedRun
from common.experiment.results import Results, Spread, read_results, write_results
from common.experiment.summarise import cores_of, fallback_fraction, flatten, results_of, total
from tests.common.experiment.planted import evaluation, plant

TOY: dict[str, Any] = {"steps": 10, "batch_size": 8, "device": "cpu", "threads": 1}
PLAIN = RunOptions(mode="uniform", **TOY)
STALE = RunOptions(mode="stale", push_every=8, precision="bf16", **TOY)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two plain runs and a failed one; a slower and a faster plain arm on 2 cores; a stale arm."""

    def runs(name: str, options: RunOptions, *seeds: int, **figures: Any) -> list[Any]:
        return [
            plant(tmp_path / name / str(seed), options.model_copy(update={"seed": seed}), **figures) for seed in seeds
        ]

    plain = [
        plant(
            tmp_path / "a" / "0", PLAIN, accuracy=0.90, train_s=4.0, metrics=[evaluation(5, 0.8), evaluation(10, 0.9)]
        ),
        plant(
            tmp_path / "a" / "1",
            PLAIN.model_copy(update={"seed": 1}),
            accuracy=0.94,
            train_s=6.0,
            metrics=[evaluation(5, 0.91), evaluation(10, 0.94)],
        ),
        FailedRun(tmp_path / "a" / "2", 2, "out of memory"),
    ]
    stale = plant(
        tmp_path / "b" / "0",
        STALE,
        accuracy=0.93,
        train_s=10.0,
        wall_s=12.0,
        staleness_mean=6.5,
        staleness_max=9,
        waited_fraction=0.25,
        steps_by_origin={"plain": 2, "stale": 6, "fallback": 1, "reused": 1},
        metrics=[
            evaluation(5, 0.5),
            evaluation(10, 0.93, train_s=10.0, samples_scored=80, flops_scoring=800.0),
        ],
    )
    return results_of(
        [
            ("uniform", plain),
            ("uniform:threads=2", runs("c", PLAIN.model_copy(update={"threads": 2}), 0, train_s=8.0)),
            ("stale:8", [stale]),
        ],
        title="toy",
        command="marginstream compare",
        root=tmp_path,
        targets=(0.9, 0.95),
    )


def test_every_figure_of_a_toy_run_is_exact(results: Results) -> None:
    run = results.arms[2].runs[0]
    assert (run.status, run.seed, run.folder, run.words) == ("done", 0, "b/0", "Trained.")
    assert (run.steps, run.samples_trained, run.samples_scored) == (10, 80, 80)
    assert run.flops_training == 80 * 30.0
    assert run.flops_scoring == run.flops_scoring_low_precision == 80 * 10.0
    assert (run.train_s, run.wall_s, run.waited_fraction) == (10.0, 12.0, 0.25)
    assert (run.staleness_mean, run.staleness_max, run.candidates_per_selected) == (6.5, 9, 4.0)
    assert run.fallback_fraction == 2 / 8  # reused ones count; warm-up and annealing do not


def test_an_arm_has_mean_and_spread_over_the_seeds_that_ended(results: Results) -> None:
    arm = results.arms[0]
    assert arm.accuracy is not None
    assert arm.accuracy.num == 2
    assert arm.accuracy.mean == pytest.approx(0.92)
    assert (arm.accuracy.lowest, arm.accuracy.highest) == (0.90, 0.94)
    assert arm.accuracy.std == pytest.approx(0.02 * 2**0.5)
    assert [run.status for run in arm.runs] == ["done", "done", "failed"]
    assert arm.runs[2].error == "out of memory"
    assert (arm.samples_scored, arm.staleness_mean) == (Spread.of([0, 0]), None)


def test_an_arm_with_more_than_a_twentieth_of_fallbacks_is_not_clean(results: Results) -> None:
    assert [arm.is_clean for arm in results.arms] == [True, True, False]


def test_the_ratio_is_to_the_fastest_plain_arm_on_at_most_as_many_cores(results: Results) -> None:
    plain, two_threads, stale = results.arms
    assert (plain.cores, two_threads.cores, stale.cores) == (1, 2, 2)
    assert plain.ratio_to_plain is None
    assert stale.ratio_to_plain is not None
    assert stale.ratio_to_plain.plain == "uniform"  # 5 s on one core, against 8 s on two
    assert stale.ratio_to_plain.train == 10.0 / 5.0
    assert stale.ratio_to_plain.wall == 12.0 / 5.0
    assert stale.ratio_to_plain.flops == (2400 + 800) / 2400
    assert stale.ratio_to_plain.accuracy_points == pytest.approx(1.0)


def test_a_plain_arm_on_more_cores_is_no_measure_however_fast(tmp_path: Path) -> None:
    plain = plant(tmp_path / "a", PLAIN, train_s=4.0)
    two_threads = plant(tmp_path / "b", PLAIN.model_copy(update={"threads": 2}), train_s=1.0)
    groups = [("uniform", [plain]), ("uniform:threads=2", [two_threads])]
    for name, options, expected in (
        ("fresh", RunOptions(mode="fresh", **TOY), "uniform"),
        ("stale", STALE, "uniform:threads=2"),
    ):
        arms = [*groups, (name, [plant(tmp_path / name, options)])]
        ratio = results_of(arms, title="", command="", root=tmp_path).arms[2].ratio_to_plain
        assert ratio is not None
        assert ratio.plain == expected


def test_a_target_is_reached_at_the_first_evaluation_that_shows_it(results: Results) -> None:
    plain, _, stale = results.arms
    reached = plain.reached[0]
    assert (reached.target, reached.num_runs, reached.num_reached) == (0.9, 2, 2)
    assert reached.step == Spread.of([10, 5])
    assert reached.samples_trained == Spread.of([80, 40])
    assert reached.flops == Spread.of([2400.0, 1200.0])
    assert stale.reached[0].train_s == Spread.of([10.0])
    assert stale.reached[0].flops == Spread.of([3200.0])
    assert stale.reached[0].train_ratio == 10.0 / 0.75
    assert stale.reached[0].flops_ratio == 3200 / 1800


def test_a_target_that_no_run_reached_says_so_and_has_no_ratio(results: Results) -> None:
    for arm in results.arms:
        assert arm.reached[1].num_reached == 0
        assert arm.reached[1].step is None
        assert arm.reached[1].train_ratio is None


def test_shared_options_are_those_that_all_arms_have(results: Results) -> None:
    assert results.shared["batch_size"] == 8
    assert results.arms[1].options == {"mode": "uniform", "method": "uniform", "precision": "float32", "threads": 2}
    assert "seed" not in results.shared
    assert "mode" not in results.shared


def test_runs_that_shared_a_device_report_no_seconds(tmp_path: Path) -> None:
    record = plant(tmp_path / "a", PLAIN, metrics=[evaluation(5, 0.95)])
    found = results_of([("uniform", [record])], title="", command="", root=tmp_path, targets=(0.9,), timed=False)
    arm = found.arms[0]
    assert (arm.wall_s, arm.train_s, arm.reached[0].train_s) == (None, None, None)
    assert arm.reached[0].step == Spread.of([5])


def test_an_old_run_folder_without_the_newer_figures_gives_nulls(tmp_path: Path) -> None:
    record = plant(tmp_path / "a", PLAIN, metrics=[{"step": 5, "wall_s": 1.0, "accuracy/held_out": 0.95}])
    for key in ("train_s", "flops", "steps_by_origin"):
        del record.summary[key]
    arm = results_of([("uniform", [record])], title="", command="", root=tmp_path, targets=(0.9,)).arms[0]
    assert (arm.train_s, arm.flops_training, arm.flops_scoring, arm.fallback_fraction) == (None, None, None, None)
    assert arm.is_clean
    assert (arm.reached[0].num_reached, arm.reached[0].flops) == (1, None)


def test_an_arm_without_a_finished_run_is_listed_where_its_options_are_known(tmp_path: Path) -> None:
    groups = [("stale:8", [FailedRun(tmp_path / "x", 0)])]
    assert results_of(groups, title="", command="", root=tmp_path).arms == []
    arm = results_of(groups, title="", command="", root=tmp_path, options={"stale:8": STALE}).arms[0]
    assert (arm.runs[0].status, arm.accuracy, arm.mode) == ("missing", None, "stale")


@pytest.mark.parametrize(
    ("changes", "num_gpus", "expected"),
    [
        ({"mode": "uniform", "threads": 1}, 0, (1, "cpu")),
        ({"mode": "stale", "threads": 1, "scorers": 2}, 0, (3, "cpu")),
        ({"mode": "stale", "threads": 2, "scorers": 3}, 0, (4, "cpu")),  # there are no more
        ({"mode": "fresh", "threads": 2}, 0, (2, "cpu")),
        ({"mode": "stale", "method": "infobatch"}, 0, (1, "cpu")),  # nothing is scored
        ({"mode": "stale"}, 2, (2, "cuda")),
        ({"mode": "stale"}, 1, (1, "cuda")),
        ({"mode": "stale", "scorer_device": "cpu"}, 1, (1, "cuda")),
        ({"mode": "uniform"}, 2, (1, "cuda")),
        ({"mode": "stale", "trainers": 2}, 0, (3, "cpu")),
        ({"mode": "stale", "trainers": 2}, 4, (3, "cuda")),
        ({"mode": "stale", "trainers": 8}, 4, (8, "cuda")),  # on two machines
    ],
)
def test_cores_are_threads_of_all_processes_or_gpus(
    changes: dict[str, Any], num_gpus: int, expected: tuple[int, str]
) -> None:
    options = RunOptions(**({"threads": 1} | changes))
    assert cores_of(options, num_gpus=num_gpus, cpu_count=4) == expected


def test_the_fallback_share_of_a_run_that_never_selects_is_none_of_its_steps() -> None:
    assert fallback_fraction({"steps_by_origin": {"plain": 10}}) == 0.0
    assert fallback_fraction({}) is None


def test_options_are_flattened_without_those_of_one_run() -> None:
    flat = flatten(STALE)
    assert flat["selection.beta"] == 1.0
    assert not {"seed", "out", "device", "scorer_device", "keys", "metrics_port"} & set(flat)


def test_results_read_back_equal_and_document_every_field(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == results
    schema = Results.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        assert all("description" in field for field in part["properties"].values()), part["title"]


def test_results_of_another_format_are_refused(results: Results, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(results.model_dump_json().replace('"format":1', '"format":2'))
    with pytest.raises(ConfigError, match="not the results of a comparison of format 1: format"):
        read_results(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot read .*absent"):
        read_results(tmp_path / "absent")


def test_compute_that_nobody_could_count_is_unknown_and_not_an_error() -> None:
    assert total([1.0, 2.0]) == 3.0
    assert total([]) == 0
    assert total([1.0, None]) is None


def test_the_reference_is_the_plain_arm_that_trains_alike(tmp_path: Path) -> None:
    short = PLAIN.model_copy(update={"steps": 5})
    results = results_of(
        [
            ("uniform:steps=5", [plant(tmp_path / "a", short, train_s=1.0)]),
            ("uniform", [plant(tmp_path / "b", PLAIN, train_s=4.0)]),
            ("stale", [plant(tmp_path / "c", STALE, train_s=6.0)]),
        ],
        title="toy",
        command="marginstream compare",
        root=tmp_path,
    )
    ratio = results.arms[2].ratio_to_plain
    assert ratio is not None
    assert (ratio.plain, ratio.train) == ("uniform", 1.5)
