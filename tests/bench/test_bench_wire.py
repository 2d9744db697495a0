"""The wire's benchmark says what it should; its figures are for quiet machines."""

import json

import pytest

from tests.bench import bench_wire


def test_the_way_of_a_chunk_by_reference_is_timed_part_by_part() -> None:
    parts = bench_wire.header_costs(20)
    assert list(parts) == ["lease made", "lease read", "answer made", "answer read"]
    assert all(0 < cost < 10_000 for cost in parts.values())


@pytest.mark.slow
def test_bench_wire_ends_in_one_json_line_with_its_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    bench_wire.main(["--quick"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key in ("payload_ratio", "payload_socket_ratio"):
        assert 0 < line[key] == min(line[f"{key}_cifar"], line[f"{key}_imagenet"])
    assert 0 < line["bytes_per_candidate"] <= 16
    assert line["header_us"] == pytest.approx(sum(line["header_parts_us"].values()), abs=0.1)
    assert {"cpu", "versions"} <= line["machine"].keys()
