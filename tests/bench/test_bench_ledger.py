"""The ledger's benchmark runs and says what it should; its figures are for quiet machines."""

import json
from pathlib import Path

import pytest

from tests.bench import bench_ledger


def test_bench_ledger_ends_in_one_json_line_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    returned = bench_ledger.main(["--quick"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["large"] == returned["large"]
    for size in ("large", "small"):
        assert line[size]["bytes_per_sample"] == bench_ledger.BYTES_PER_SAMPLE <= 24
        for name in ("plan_visit_first", "plan_visit", "scored", "visited", "trained", "losses_of"):
            assert line[size][f"{name}_us"] > 0, name
            assert line[size][f"{name}_ratio"] > 0, name
    assert {"cpu", "versions"} <= line["machine"].keys()


def test_bench_ledger_says_what_memory_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  4000000 kB\nMemAvailable:   1000000 kB\n")
    available = bench_ledger.available_bytes(meminfo)
    assert available == 1_024_000_000
    assert bench_ledger.available_bytes(tmp_path / "none") is None
    monkeypatch.setattr(bench_ledger, "available_bytes", lambda: available)
    with pytest.raises(SystemExit, match=r"need 3,937 MB of memory, 1,024 MB are available; --samples 14327326 would"):
        bench_ledger.main([])
    bench_ledger.check_memory(14327326)
    with pytest.raises(SystemExit):
        bench_ledger.check_memory(14327327)
