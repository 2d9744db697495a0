"""Numbers as Prometheus reads them."""

import time
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from common.health.checks import Pulse, moved
from common.health.metrics import Metric, Metrics, counter, gauge


def exposed(*metrics: Metric[None]) -> str:
    registry = CollectorRegistry()
    registry.register(Metrics(metrics, None))
    return generate_latest(registry).decode()


def samples(*metrics: Metric[None]) -> dict[str, float]:
    families: Sequence[object] = list(text_string_to_metric_families(exposed(*metrics)))
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples  # type: ignore[attr-defined]
    }


def test_counters_end_in_total_and_gauges_do_not() -> None:
    text = exposed(counter("steps", "done", lambda _: 7), gauge("scorers", "here", lambda _: 2))
    assert "# HELP marginstream_steps_total done\n# TYPE marginstream_steps_total counter\n" in text
    assert "\nmarginstream_steps_total 7.0\n" in text
    assert "\nmarginstream_scorers 2.0\n" in text


def test_numbers_by_label_are_a_line_each_whatever_the_label_holds() -> None:
    odd = 'a"b\\c\nd'
    found = samples(
        counter("events", "what", lambda _: {"late": 1, odd: 2}, "event"),
        gauge("pairs", "what", lambda _: {("x", "y"): 3}, "one", "other"),
    )
    assert found == {
        "marginstream_events_total{late}": 1,
        f"marginstream_events_total{{{odd}}}": 2,
        "marginstream_pairs{x}{y}": 3,
    }


def test_what_there_is_not_yet_is_left_out() -> None:
    assert exposed(counter("steps", "done", lambda _: None)) == ""


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    counts = {0: 5, 2: 1, 3: 4, 100: 2}
    metric: Metric[None] = Metric("histogram", "age_steps", "age", lambda _: counts, bounds=(0, 2, 4))
    found = samples(metric)
    assert [found[f"marginstream_age_steps_bucket{{{bound}}}"] for bound in ("0.0", "2.0", "4.0", "+Inf")] == [
        5, 6, 10, 12,
    ]  # fmt: skip
    assert found["marginstream_age_steps_count"] == 12
    assert found["marginstream_age_steps_sum"] == 2 + 12 + 200


def test_a_loop_that_came_round_is_well_until_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pulse = Pulse()
    now = 104.0
    assert moved("training", "the last step ended", pulse.age_s, 4).line == (
        "ok training: the last step ended 4.0 s ago, and 4 s are the bound"
    )
    now = 104.1
    assert not moved("training", "the last step ended", pulse.age_s, 4).ok
    pulse.beat()
    assert pulse.age_s == 0
