"""The weights' benchmark runs and says what it should; its figures are for quiet machines."""

import json
import math
from types import SimpleNamespace

import pytest

from tests.bench import bench_weights, bulk


@pytest.mark.parametrize("size", [1, 25])
def test_a_bulk_model_has_as_many_parameters_as_its_name_says(size: int) -> None:
    model = getattr(bulk, f"million_{size}")(SimpleNamespace(shape=(1, 8, 8), num_classes=10))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(size * 1e6, rel=0.03)


@pytest.mark.slow
def test_bench_weights_ends_in_one_json_line_with_its_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    bench_weights.main(["--quick"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key in ("stall_ratio", "latency_ratio"):
        assert line[key] == max(line[f"{key}_1m_float32"], line[f"{key}_1m_bf16"]) > 0
        assert math.isfinite(line[key])
    assert {"cpu", "versions"} <= line["machine"].keys()
