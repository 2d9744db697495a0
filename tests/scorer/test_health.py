"""What a scorer says of itself: alive, ready, and every number that it counts."""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.endpoints import rank_endpoint
from common.health.checks import Pulse
from common.protocol import Lease, Revoke, Version, VersionHint
from common.security.credentials import Insecure
from scorer.health import alive, ready
from scorer.inbox import Work
from scorer.link import Link
from scorer.metrics import METRICS
from scorer.staging import StagedWeights
from tests.service.peers import WITHIN_S, HandMadeTrainer, answer, hello, until
from tests.service.processes import Processes
from trainer.metrics import METRICS as OF_TRAINERS

GENERATION = 7


@pytest.fixture
def trainer() -> Iterator[HandMadeTrainer]:
    with HandMadeTrainer() as opened:
        yield opened


@pytest.fixture
def link(trainer: HandMadeTrainer) -> Iterator[Link]:
    said = hello(incarnation=5)
    with Link(
        trainer.endpoint, said, connect_s=WITHIN_S, check_manifest=lambda message: None, security=Insecure()
    ) as opened:
        yield opened


@pytest.fixture
def processes(tmp_path: Path, preloaded: Any) -> Iterator[Processes]:
    with Processes(tmp_path, preloaded) as started:
        yield started


def lines(checks: Any) -> list[str]:
    return [check.line for check in checks]


def numbers(link: Link) -> dict[str, float]:
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for metric in METRICS
        if (family := metric.family(link.watched)) is not None
        for sample in family.samples
    }


def lease(number: int) -> Lease:
    return Lease(number, GENERATION, 4 * number, 4 * number + 4, b"", 0, 60.0)


def load(trainer: HandMadeTrainer, link: Link, step: int) -> None:
    trainer.serve_whole(Version(GENERATION, step))
    staged = link.next_work()
    assert isinstance(staged, StagedWeights)
    link.loaded(staged)


def test_names_follow_the_practice_and_tell_scorers_from_trainers() -> None:
    names = [metric.shown_name for metric in METRICS]
    assert len({*names, *(metric.shown_name for metric in OF_TRAINERS)}) == len(names) + len(OF_TRAINERS)
    for metric in METRICS:
        assert re.fullmatch(r"scorer_[a-z_]*[a-z]", metric.name)
        assert not metric.name.endswith(("_total", "_s", "_count")), metric.name


def test_a_scorer_is_ready_once_it_is_in_session_and_its_weights_are_resident(
    trainer: HandMadeTrainer, link: Link
) -> None:
    assert lines(ready(link.watched)) == [
        "FAIL session: no trainer has welcomed this scorer",
        "FAIL weights: none yet",
    ]
    trainer.welcome(version=Version(GENERATION, 3))
    load(trainer, link, 3)
    assert lines(ready(link.watched)) == ["ok session: in session with generation 7", "ok weights: of step 3"]
    assert [check.ok for check in alive(link.watched)] == [True, True]


def test_with_several_ranks_it_says_how_many_of_them_know_it(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(num_ranks=3)
    with HandMadeTrainer(endpoint=rank_endpoint(trainer.endpoint, 2)) as other:
        other.welcome(rank=2, num_ranks=3)
        until(lambda: numbers(link)["marginstream_scorer_ranks_in_session"] == 2, "the second session")
        assert lines(ready(link.watched))[0] == "ok session: in session with generation 7, 2 of 3 ranks"
        other.say(lease(1))
        until(lambda: numbers(link)["marginstream_scorer_leases_held"] == 1, "its lease")


def test_a_chunk_that_takes_for_ever_is_not_well(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    link.watched.bound_s = 100.0
    link.watched.pulse.beat()
    now = time.monotonic()
    monkeypatch.setattr(link.watched.pulse, "_at", now - 99)
    assert next(alive(link.watched)).ok
    monkeypatch.setattr(link.watched.pulse, "_at", now - 101)
    scoring = next(alive(link.watched))
    assert re.fullmatch(
        r"FAIL scoring: the last chunk ended, or work was looked for, 101\.\d s ago, and 100 s are the bound",
        scoring.line,
    )


def test_what_hangs_in_a_chunk_is_in_the_log_once_for_each_time(
    link: Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = replace(link.watched, pulse=Pulse())  # the link looks at its own ten times a second
    for age_s in (59, 61, 200, 1, 61):
        monkeypatch.setattr(watched.pulse, "_at", time.monotonic() - age_s)
        watched.check()
    reports = [message for message in caplog.messages if message.startswith("scoring one chunk, or loading weights")]
    assert [re.split(r" takes | s by", report)[1] for report in reports] == ["61", "61"]
    assert "\n  MainThread: " in reports[0]


def test_numbers_follow_what_happens(trainer: HandMadeTrainer, link: Link) -> None:
    found = numbers(link)
    assert found["marginstream_scorer_in_session"] == found["marginstream_scorer_leases_held"] == 0
    assert found["marginstream_scorer_info{hand-made}{cpu}{float32}{torch}"] == 1
    trainer.welcome(version=Version(GENERATION, 3))
    load(trainer, link, 3)
    for number in (1, 2):
        trainer.say(lease(number))
    work = link.next_work()
    assert isinstance(work, Work)
    assert isinstance(work.order, Lease)
    link.answer(work.order, answer(work.order, Version(GENERATION, 3)))
    until(lambda: numbers(link)["marginstream_scorer_leases_held"] == 1, "the second lease")
    trainer.say(Revoke((2, 17)))
    trainer.say(VersionHint(Version(GENERATION, 9), 1000))
    until(lambda: numbers(link)["marginstream_scorer_newest_step"] == 9, "the hint")
    link.answer(lease(2), answer(lease(2), Version(GENERATION, 3)))
    found = numbers(link)
    assert found["marginstream_scorer_chunks_total"] == 2
    assert found["marginstream_scorer_resident_step"] == 3
    assert {name: num for name, num in found.items() if "events" in name} == {
        "marginstream_scorer_events_total{sessions}": 1,
        "marginstream_scorer_events_total{versions fetched}": 1,
        "marginstream_scorer_events_total{leases revoked}": 1,
        "marginstream_scorer_events_total{results nobody wanted}": 1,
    }


def test_a_scorer_answers_over_http_while_it_looks_for_a_trainer(processes: Processes) -> None:
    scorer = processes.synthetic_scorer("s", processes.endpoint(), "--metrics-port", "0")
    scorer.says("/readyz and /metrics")
    base = re.search(r"http://127\.0\.0\.1:\d+", scorer.output)
    assert base is not None
    with urllib.request.urlopen(f"{base[0]}/healthz", timeout=10) as said:
        assert said.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base[0]}/readyz", timeout=10)
    assert refused.value.code == 503
    refused.value.close()


def test_in_vain_it_says_where_its_threads_are(processes: Processes) -> None:
    scorer = processes.synthetic_scorer("s", processes.endpoint(), "--connect-s", "0.3")
    assert scorer.code() == 4
    assert "is it running, with --listen of the same endpoint?\nwhat the threads do:" in scorer.output
    assert re.search(r"\n  MainThread: .*link\.py:\d+ next_work < ", scorer.output)
    assert re.search(r"\n  scorer-io: .*transport\.py:\d+ ", scorer.output)
