"""The benchmark runs and says what it should; its figures are for quiet machines."""

import json

import pytest

from scorer.torch_backend import MOST_TOGETHER
from tests.bench import bench_scorer

HEADLINE = {
    *("bf16_speedup", "int8_speedup", "service_overhead", "service_overhead_augmented"),
    *("bf16_overlap", "int8_overlap", "bf16_loss_overlap", "int8_loss_overlap"),
}


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, float | None]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_bench_scorer_ends_in_one_json_line_with_every_figure_or_null(capsys: pytest.CaptureFixture[str]) -> None:
    bench_scorer.main(["--quick", "--no-service", "--models", "resnet8"])
    line = last_line(capsys)
    assert {"cpu", "versions"} <= line["machine"].keys()
    assert line.keys() >= HEADLINE
    assert line["service_overhead"] is None
    assert line["bf16_speedup"] == line["bf16_speedup_resnet8"] > 0
    assert 0 <= line["int8_overlap"] <= 1


@pytest.mark.slow
def test_bench_scorer_measures_what_leases_cost(capsys: pytest.CaptureFixture[str]) -> None:
    bench_scorer.main(["--quick", "--pairs", "3", "--models", "resnet8"])
    line = last_line(capsys)
    assert line["service_overhead"] > 0.5
    # In int8 leases of chunks as small as these share a pass, whose cost hardly grows with them; the bare pass has one.
    assert line["service_overhead_augmented"] > 1 / MOST_TOGETHER
