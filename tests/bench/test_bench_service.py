"""The benchmark runs and says what it should; its figures are for quiet machines."""

import json

import pytest

from tests.bench import bench_service


@pytest.mark.slow
def test_bench_service_ends_in_one_json_line_with_its_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    bench_service.main(["--quick"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key in ("step_ratio", "wall_ratio", "best_wall_ratio", "bytes_per_candidate", "payload_ratio"):
        assert line[key] > 0, key
    assert 0.5 <= line["best_wall_ratio"] < 1
    assert line["bytes_per_candidate"] <= 16
    assert {"cpu", "versions"} <= line["machine"].keys()
