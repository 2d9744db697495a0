"""The trainer's benchmark runs to its end and says what it promises to say."""

import json

import pytest

from tests.bench import bench_trainer


@pytest.mark.slow
def test_a_quick_run_ends_in_a_line_with_every_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    bench_trainer.main(["--quick", "--precision", "float32", "--block-s", "0.05"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["step_ratio"] > 0
    assert figures["overlap_ratio"] > 0
    assert 0 <= figures["scored_fraction"] <= 1
    assert 0 <= figures["waited_fraction"] <= 1
    assert figures["gap_fraction"] is None, "the CPU has no kernels"
    assert figures["machine"]["cpu"]
