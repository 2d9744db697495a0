"""The benchmark of growth runs and says what it should; its figures are for quiet machines."""

import json

import pytest

from tests.bench import bench_scale


def test_bench_scale_ends_in_one_json_line_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    bench_scale.main(["--quick", "--parts", "order", "ledger", "candidates", "model"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(line["order_us"]) == [str(10**power) for power in range(4, 10)]
    for key in ("order_us", "ledger_us", "candidates_us", "model_push_ms"):
        assert all(cost > 0 for cost in line[key].values()), key
    assert line["order_ratio"] >= 1
    assert line["ledger_bytes_per_sample"] <= 24
    assert {"cpu", "versions"} <= line["machine"].keys()


def test_ids_of_a_chunk_take_no_more_memory_from_more_samples() -> None:
    small, large = (bench_scale.order_costs([size], 1)["order_bytes"] for size in (10**4, 10**9))
    assert large < 1.5 * small < 1e5


@pytest.mark.slow
def test_bench_scale_counts_what_synthetic_scorers_deliver(capsys: pytest.CaptureFixture[str]) -> None:
    bench_scale.main(["--quick", "--parts", "scorers"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(line["scorers"]) == {"1", "2"}
    assert all(0 < one["delivered_fraction"] <= 1.05 for one in line["scorers"].values())


@pytest.mark.slow
def test_bench_scale_says_how_many_scorers_share_the_work_and_what_runs_out_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench_scale.main(["--quick", "--model"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["service"]["fairness"] > 0.8
    assert set(line["service"]["passed"]) == {"fairness", "step_over_one", "step_over_none"}
    assert 0 < line["io_measured"] < 1
    assert line["io_predicted"] > 0
    assert all(one["every_version"][0] >= 1 and one["versions_skipped"][0] >= 1 for one in line["limits"].values())
    assert line["events"]["16, 0"][0] > 0.9
