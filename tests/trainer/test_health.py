"""What a trainer says of itself: alive, ready, and every number that it counts."""

import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.errors import EndpointError
from common.models import build_model
from scorer.metrics import METRICS as OF_SCORERS
from tests.service.processes import Processes, until
from trainer.checkpoint import Checkpoints
from trainer.health import alive, ready
from trainer.metrics import METRICS
from trainer.stream import SelectedBatches

SOURCE = open_source(TrainerOptions(data="digits"))


@pytest.fixture
def processes(tmp_path: Path, preloaded: Any) -> Any:
    with Processes(tmp_path, preloaded) as started:
        yield started


def batches_of(*flags: str) -> SelectedBatches:
    options = load_options(TrainerOptions, ["--data", "digits", "--batch-size", "8", *flags])
    return SelectedBatches(options, SOURCE, build_model(options.model, SOURCE.sample, seed=0))


def train(batches: SelectedBatches, num_steps: int) -> None:
    for batch in batches:
        batches.step(batch.targets.float())
        if batches.completed == num_steps:
            return


def lines(checks: Any) -> list[str]:
    return [check.line for check in checks]


def numbers(batches: SelectedBatches) -> dict[str, float]:
    found = {}
    for metric in METRICS:
        if (family := metric.family(batches.watched)) is not None:
            for sample in family.samples:
                found[sample.name + "".join(f"{{{value}}}" for value in sample.labels.values())] = sample.value
    return found


def test_names_follow_the_practice_and_are_given_once() -> None:
    names = [metric.shown_name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", metric.name)
        assert not metric.name.endswith(("_total", "_s", "_count", "_sum", "_bucket")), metric.name
        assert metric.help[0].islower() or metric.help[0] == "1"
        assert not metric.help.endswith(".")


def test_a_plain_run_is_ready_when_its_first_step_begins() -> None:
    with batches_of("--mode", "uniform", "--steps", "20") as batches:
        assert lines(ready(batches.watched)) == ["FAIL training: waits to begin"]
        assert lines(alive(batches.watched)) == ["ok training: has not begun"]
        train(batches, 7)
        assert lines(ready(batches.watched)) == ["ok training: 7 of 20 steps"]
        found = numbers(batches)
    assert (found["marginstream_steps_total"], found["marginstream_steps_planned"]) == (7, 20)
    assert found["marginstream_batches_total{plain}"] == 7
    assert found["marginstream_samples_trained_total"] == 56
    assert found["marginstream_run_info{uniform}{uniform}{digits}{small}"] == 1
    assert not [name for name in found if "lease" in name or "push" in name]  # nobody scores


def test_a_loop_that_does_not_come_round_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with batches_of("--unhealthy-after-s", "50", "--fallback", "uniform", "--service.start-wait-s", "0") as batches:
        train(batches, 1)
        assert [check.ok for check in alive(batches.watched)] == [True, True]
        later = time.perf_counter() + 60
        monkeypatch.setattr(time, "perf_counter", lambda: later)
        training, scorers = alive(batches.watched)
    assert re.fullmatch(r"FAIL training: the last step ended 60\.\d s ago, and 50 s are the bound", training.line)
    assert scorers.ok


def test_a_run_that_must_wait_for_scores_is_alive_and_not_ready_without_a_scorer() -> None:
    with batches_of("--fallback", "wait", "--service.start-wait-s", "0", "--unhealthy-after-s", "0.000001") as batches:
        train(batches, 1)  # a plain one: the warm-up
        until(lambda: batches.watched.link.pool.announced, "the I/O thread to have heard of the first push")
        batches.watched.feeder.is_awaited = True
        assert lines(alive(batches.watched))[0] == (
            "ok training: waits for scored candidates, and gives up after 120 s"
        )
        assert lines(ready(batches.watched)) == [
            f"ok endpoint: scorers connect to {batches.endpoint}",
            "ok weights: of step 0",
            "FAIL training: waits for scored candidates, and no scorer is here",
        ]


def test_what_prometheus_is_told_is_what_the_summary_says_in_the_end(processes: Processes) -> None:
    flags = ("--steps", "30", "--candidates", "16", "--chunk-size", "16", "--fallback", "wait")
    with batches_of(*flags, "--listen", processes.endpoint()) as batches:
        assert batches.endpoint is not None
        scorer = processes.synthetic_scorer("s", batches.endpoint, "--synthetic-backend.chunk-s", "0")
        train(batches, 29)
        assert [check.ok for check in ready(batches.watched)] == [True] * 3
        until(lambda: numbers(batches)["marginstream_leases_outstanding"] == 0, "the last leases to be skipped")
        found, summary = numbers(batches), batches.summary()
    scorer.succeeds()
    settled = {name: found[f"marginstream_leases_settled_total{{{name}}}"] for name in ("consumed", "expired")}
    assert settled == {name: summary["leases"][name] for name in settled}
    assert found["marginstream_leases_total"] == summary["leases"]["leased"] > 20
    assert found["marginstream_candidates_scored_total{synthetic}{float32}"] == summary["samples_scored"]
    assert found["marginstream_staleness_steps_count"] == sum(summary["staleness_counts"].values())
    assert found["marginstream_staleness_steps_sum"] == sum(
        steps * num for steps, num in summary["staleness_counts"].items()
    )
    assert found["marginstream_pushes_total"] == summary["pushes"]
    assert found["marginstream_events_total{scorers joined}"] == 1
    assert found["marginstream_scorers"] == found["marginstream_scorers_resident"] == 1
    assert summary["alarms"] == {}


def test_a_checkpoint_that_failed_is_an_alarm_too(tmp_path: Path) -> None:
    with batches_of("--mode", "uniform", "--steps", "20") as batches:
        assert batches.watched.alarms == {}
        batches.watched.checkpoints = Checkpoints(tmp_path, batches.options.checkpoint)
        batches.watched.checkpoints.fail(3, OSError("disk full"))
        assert batches.watched.alarms == {"checkpoint not written": 1}
        found = numbers(batches)
    assert found["marginstream_checkpoints_failed_total"] == 1
    assert found["marginstream_alarms_total{checkpoint not written}"] == 1


def test_a_trainer_answers_over_http_while_it_trains(processes: Processes) -> None:
    trainer = processes.trainer("run", "--steps", "100000", "--metrics-port", "0", "--mode", "uniform")
    trainer.says("/readyz and /metrics")
    base = re.search(r"http://127\.0\.0\.1:\d+", trainer.output)
    assert base is not None

    def get(path: str) -> str:
        assert base is not None
        with urllib.request.urlopen(base[0] + path, timeout=10) as answer:
            return str(answer.read().decode())

    processes.reaches("run", 50)
    assert get("/healthz").startswith("ok training: the last step ended 0.")
    assert get("/readyz").endswith(" of 100000 steps\n")
    counted = re.search(r"\nmarginstream_steps_total (\S+)\n", get("/metrics"))
    assert counted is not None
    assert float(counted[1]) >= 50


def test_a_port_in_use_ends_the_start_and_leaves_nothing_open() -> None:
    with batches_of("--mode", "uniform", "--metrics-port", "0") as batches:
        taken = batches.watched.port
        before = {thread.name for thread in threading.enumerate()}
        with (
            pytest.raises(EndpointError, match=rf"--metrics-port {taken}: .*choose another port"),
            batches_of("--metrics-port", str(taken)),
        ):
            pass
        assert {thread.name for thread in threading.enumerate()} == before


@pytest.mark.parametrize(
    ("metrics", "kind", "prefix"),
    [(METRICS, "trainer", "marginstream_"), (OF_SCORERS, "scorer", "marginstream_scorer_")],
    ids=["trainer", "scorer"],
)
def test_the_operators_readme_names_every_metric_and_no_other(metrics: Any, kind: str, prefix: str) -> None:
    text = (Path(__file__).parents[2] / "deploy" / "README.md").read_text(encoding="utf-8")
    table = text.split(f"| of a {kind}, `{prefix}…` | what |\n", 1)[1].split("\n\n", 1)[0]
    first_column = "".join(row.split("|")[1] for row in table.splitlines())
    named = set(re.findall(r"`([a-z_]+)(?:\{[a-z,]+\})?`", first_column))
    assert named == {metric.shown_name.partition("{")[0].removeprefix(prefix) for metric in metrics}
