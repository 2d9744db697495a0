"""The trainer's side of the protocol over real sockets, tried by scorers that a test drives message by message."""

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pytest
import torch
from msgspec import msgpack, structs
from torch import nn

from common import buckets
from common.processes import private_folder
from common.protocol import (
    MAGIC,
    PROTOCOL_VERSION,
    TAG_BYTES,
    Array,
    Error,
    Goodbye,
    Heartbeat,
    Lease,
    Reject,
    Return,
    Revoke,
    Spent,
    Version,
    VersionHint,
    Weights,
    WeightsGone,
    encode,
    pack_mask,
)
from common.transport import CONTROL, WEIGHTS, IOThread
from common.weights import load_flat
from tests.service.peers import FINGERPRINT, WITHIN_S, HandMadeScorer, answer, hello, receive, until
from trainer.issuing import HistoriesOf
from trainer.leases import LeaseBook, Pace
from trainer.patience import STRIKES_AT_ONCE
from trainer.pool import Pool
from trainer.publisher import Publisher
from trainer.service import Service
from trainer.terms import REMEDIES, Terms

GENERATION = 7
CHUNK = 4
TERMS = Terms(
    run="mine", generation=GENERATION, seed=3, num_samples=100, num_classes=10, chunk_size=CHUNK, scores=("mms",),
    lowest_is_hard=True, transfer="reference", best_k=None, fingerprint=FINGERPRINT, sample_shape=(2,),
    sample_dtype="float32", target_shape=(), leases_per_scorer=2, silence_s=1000.0, lease_s=1000.0,
)  # fmt: skip


class Trainer:
    """The real service, pool and publisher behind real sockets; there is no training."""

    def __init__(self, terms: Terms = TERMS, num_slots: int = 3, histories_of: HistoriesOf | None = None) -> None:
        self.model = nn.Linear(100, 30)
        pace = Pace(1, max_staleness=4, push_every=1, first_step=0, stop_step=1000)
        self.pool = Pool(LeaseBook(CHUNK, pace), min_candidates=CHUNK, chunks_per_step=1, exact=True)
        self.publisher = Publisher(self.model, None, GENERATION, num_slots=num_slots)
        self.service = Service(terms, self.pool, self.publisher, histories_of)
        self.io = IOThread("trainer-io", self.service, max_frame_bytes=1 << 20)
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.endpoint = f"ipc://{self._opened.enter_context(private_folder())}/t"
        self._opened.callback(self.io.stop)
        self.io.bind(CONTROL, self.endpoint)
        self.io.bind(WEIGHTS, self.endpoint + ".w")
        self.io.start()
        self.push(0)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._opened.close()

    def scorer(self) -> HandMadeScorer:
        return self._opened.enter_context(HandMadeScorer(self.endpoint))

    def call(self, task: Callable[[], Any]) -> Any:
        result: queue.Queue[Any] = queue.Queue()
        self.io.post(lambda: result.put(task()))
        return result.get(timeout=WITHIN_S)

    def push(self, step: int, wire: Any = "float32", is_wanted: bool = True) -> Version:
        slot = self.publisher.push(step, wire=wire, is_wanted=is_wanted)
        assert slot is not None
        self.call(lambda: self.service.announce(slot))
        return Version(GENERATION, step)

    def tick(self, later_s: float) -> None:
        """The tick of a moment to come."""
        self.call(lambda: self.service.on_tick(time.monotonic() + later_s))

    @property
    def events(self) -> dict[str, int]:
        return self.service.traffic.events


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    with Trainer() as opened:
        yield opened


V0 = Version(GENERATION, 0)


class FakeEvent:
    """Of a copy to the host that a GPU has not come to."""

    is_over = False

    def query(self) -> bool:
        return self.is_over

    def synchronize(self) -> None:
        assert self.is_over, "the I/O thread would stand still"


# -- the way it should be ---------------------------------------------------------------------------------------------


def test_hello_is_answered_by_what_the_run_wants_and_by_leases(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    welcome = scorer.join()
    assert (welcome.generation, welcome.seed, welcome.num_samples, welcome.chunk_size) == (GENERATION, 3, 100, CHUNK)
    assert (welcome.scores, welcome.transfer, welcome.wire, welcome.version) == (("mms",), "reference", "float32", V0)
    leases = [scorer.hear(Lease), scorer.hear(Lease)]
    assert [(lease.start, lease.stop, lease.generation) for lease in leases] == [(0, 4, 7), (4, 8, 7)]


def test_scores_end_in_the_pool_and_the_next_lease_follows(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    lease = scorer.hear(Lease)
    scorer.hear(Lease)
    scorer.say(answer(lease, V0, [3, 1, 2, 0], loss_mean=0.5, accuracy=0.25, tau=1.5))
    assert scorer.hear(Lease).start == 8
    (chunk,) = trainer.pool.take(0)
    assert (chunk.start, chunk.version, chunk.scores["mms"].tolist()) == (0, V0, [3, 1, 2, 0])
    assert list(trainer.service.candidates.uniform) == [(4, 0.5, 0.25, 1.5)]
    assert trainer.service.traffic.scored == {("torch", "float32"): 4}


def test_leases_are_spread_over_the_scorers(trainer: Trainer) -> None:
    first, second = trainer.scorer(), trainer.scorer()
    first.join()
    second.join()
    assert [scorer.hear(Lease).start for scorer in (first, first, second, second)] == [0, 4, 8, 12]


def test_payload_is_taken_off_the_wire() -> None:
    with Trainer(replace(TERMS, transfer="payload")) as trainer:
        scorer = trainer.scorer()
        scorer.join()
        inputs = np.arange(8, dtype=np.float32).reshape(4, 2)
        shipped = {"inputs": Array.of(inputs), "targets": Array.of(np.arange(4))}
        scorer.say(answer(scorer.hear(Lease), V0, **shipped))
        (chunk,) = until(lambda: trainer.pool.take(0))
        assert chunk.payload.inputs.tolist() == inputs.tolist()


# -- answers that do not count ----------------------------------------------------------------------------------------


def test_a_duplicate_answer_counts_once(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    lease = scorer.hear(Lease)
    for _ in range(2):
        scorer.say(answer(lease, V0))
    until(lambda: trainer.service.traffic.events["results that came twice"] == 1)
    assert trainer.pool.refused() == {"no such lease": 1}
    assert trainer.pool.num_arrived == 1
    assert len(trainer.service.sessions) == 1


def test_a_late_answer_does_not_count(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    lease, _ = scorer.hear(Lease), scorer.hear(Lease)
    scorer.say(Return((lease.lease,)))
    again = scorer.hear(Lease)
    assert again.start == lease.start
    scorer.say(answer(lease, V0))
    until(lambda: trainer.service.traffic.events["results that came late"] == 1)
    assert trainer.pool.refused() == {"no such lease": 1}
    assert trainer.pool.num_arrived == 0
    scorer.say(answer(again, V0))
    until(lambda: trainer.pool.num_arrived == 1)


def test_an_answer_of_an_earlier_life_does_not_count_and_is_told_from_a_late_one(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    scorer.say(answer(structs.replace(scorer.hear(Lease), lease=99), Version(GENERATION - 1, 8)))
    until(lambda: trainer.service.traffic.events["results of an earlier life"] == 1)
    assert trainer.pool.refused() == {"no such lease": 1}
    assert trainer.pool.num_arrived == 0


def test_candidates_without_a_finite_score_are_counted(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    lease = scorer.hear(Lease)
    dropped = np.zeros(lease.stop - lease.start, dtype=bool)
    dropped[:3] = True
    scorer.say(answer(lease, V0, dropped=pack_mask(dropped)))
    until(lambda: trainer.pool.num_arrived == 1)
    assert trainer.service.traffic.events["candidates without a finite score"] == 3


def test_the_answer_to_anothers_lease_does_not_count_and_the_lease_stays(trainer: Trainer) -> None:
    owner, thief = trainer.scorer(), trainer.scorer()
    owner.join()
    lease = owner.hear(Lease)
    thief.join()
    thief.say(answer(lease, V0))
    until(lambda: trainer.pool.refused() == {"no such lease": 1})
    owner.say(answer(lease, V0))
    until(lambda: trainer.pool.num_arrived == 1)


WRONG: dict[str, dict[str, Any]] = {
    "a version that was never announced": {"version": Version(GENERATION, 9)},
    "a version of an earlier life": {"version": Version(GENERATION - 1, 8)},
    "weights older than the lease allows": {"version": Version(GENERATION, 0)},
    "a score that is not finite and not listed": {"scores": [1.0, float("nan"), 2.0, 3.0]},
    "an infinite score": {"scores": [1.0, float("inf"), 2.0, 3.0]},
    "too few scores": {"scores": [1.0, 2.0, 3.0]},
    "a payload that nobody wants": {"inputs": Array.of(np.zeros((4, 2))), "targets": Array.of(np.zeros(4, np.int64))},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_an_answer_that_cannot_be_right_is_refused_and_its_chunk_issued_again(
    wrong: dict[str, Any], trainer: Trainer
) -> None:
    trainer.pool.advance(10)
    trainer.push(8)
    scorer = trainer.scorer()
    scorer.join()
    lease = scorer.hear(Lease)
    assert lease.oldest_step == 6
    scorer.hear(Lease)
    scorer.say(answer(lease, **({"version": Version(GENERATION, 8)} | wrong)))
    assert scorer.hear(Error).code == "malformed"
    assert trainer.events["malformed messages"] == 1
    trainer.tick(0.0)
    again = scorer.hear(Lease)
    assert again.start == lease.start
    assert again.lease != lease.lease
    assert trainer.pool.num_arrived == 0
    scorer.say(answer(again, Version(GENERATION, 8)))
    until(lambda: trainer.pool.num_arrived == 1)


def test_listed_candidates_may_be_anything(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    dropped = pack_mask(np.array([False, True, False, False]))
    scorer.say(answer(scorer.hear(Lease), V0, [1, float("nan"), 2, 3], dropped=dropped))
    (chunk,) = until(lambda: trainer.pool.take(0))
    assert chunk.scores["mms"].isnan().tolist() == [False, True, False, False]


# -- nonsense ---------------------------------------------------------------------------------------------------------

GARBAGE = {
    "noise": [b"\xde\xad\xbe\xef", b"noise"],
    "one frame": [b"x"],
    "nothing": [b""],
    "a truncated message": [encode(Heartbeat(1, None, (), 0))[0][:-1]],
    "another protocol": [b"GET / HTTP/1.1\r\n", b"\r\n"],
    "a map for a header": [MAGIC + b"\x01" + msgpack.encode({"protocol": 1})],
    "a message for scorers": encode(Revoke((1,))),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_scorer_that_keeps_sending_nonsense_loses_its_session(garbage: list[bytes], trainer: Trainer) -> None:
    scorer, other = trainer.scorer(), trainer.scorer()
    scorer.join()
    start = scorer.hear(Lease).start
    for _ in range(int(STRIKES_AT_ONCE) - 1):
        scorer.control.send_multipart(garbage)
        assert scorer.hear(Error).code == "malformed"
    assert len(trainer.service.sessions) == 1, "a few slips cost nothing"
    scorer.control.send_multipart(garbage)
    assert scorer.hear(Error).code == "malformed"
    until(lambda: len(trainer.service.sessions) == 0)
    scorer.say(Heartbeat(1, None, (), 0))
    assert scorer.hear(Error).code == "unknown-session"
    other.join()
    assert other.hear(Lease).start == start, "its chunks go to others"


def test_nonsense_does_not_fill_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("trainer.doorkeeper.LOG_EVERY_S", 1000.0)
    with Trainer() as trainer:
        scorer = trainer.scorer()
        for _ in range(5):
            scorer.control.send_multipart([b"noise"])
            assert scorer.hear(Error).code == "malformed"
    assert sum("sent nonsense" in line for line in caplog.messages) == 1


def test_nonsense_on_the_weights_channel_is_counted_and_answered_by_nothing(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    welcome = scorer.join()
    scorer.weights.send_multipart([b"noise", b"noise"])
    scorer.weights.send_multipart(encode(Heartbeat(1, None, (), 0)))
    scorer.fetch(welcome, V0)
    assert receive(scorer.weights, object)[1].version == V0  # type: ignore[attr-defined]
    assert trainer.events["malformed messages"] == 2


def test_whoever_is_not_welcomed_is_told_so_once_per_message_that_wants_an_answer(trainer: Trainer) -> None:
    stranger = trainer.scorer()
    for message in (Goodbye("I was never here"), Error("malformed", "you are"), Heartbeat(1, None, (), 0)):
        stranger.say(message)
    assert stranger.hear(Error).code == "unknown-session"
    stranger.join()
    assert not stranger.control.poll(0) or stranger.hear(Lease)
    assert trainer.events["errors from scorers"] == 0


# -- who may join -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINGERPRINT)
def test_a_scorer_whose_fingerprint_differs_is_refused_naming_the_field_and_the_remedy(
    name: str, trainer: Trainer
) -> None:
    for fingerprint in (FINGERPRINT | {name: "other"}, {key: FINGERPRINT[key] for key in FINGERPRINT if key != name}):
        scorer = trainer.scorer()
        scorer.say(hello(fingerprint=fingerprint))
        assert scorer.hear(Reject) == Reject(name, REMEDIES[name])
    assert len(trainer.service.sessions) == 0
    assert trainer.events["scorers rejected"] == 2


@pytest.mark.parametrize(
    ("changes", "name", "says"),
    [
        ({"num_samples": 99}, "data", "(100, 10) here, (99, 10) at the scorer"),
        ({"num_classes": 11}, "data", "(100, 10) here, (100, 11) at the scorer"),
        ({"run": "theirs"}, "run", "'mine', not 'theirs'"),
        ({"fingerprint": dict.fromkeys(FINGERPRINT, "other")}, "model", "--model"),
    ],
)
def test_a_scorer_of_another_run_is_refused_naming_the_first_cause(
    changes: dict[str, Any], name: str, says: str, trainer: Trainer
) -> None:
    scorer = trainer.scorer()
    scorer.say(hello(**changes))
    reject = scorer.hear(Reject)
    assert reject.field == name
    assert says in reject.message


def test_a_scorer_of_another_protocol_version_is_told_which_one_is_spoken_here(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    tag = bytes(encode(hello())[0])[:TAG_BYTES]
    scorer.control.send_multipart([tag + msgpack.encode([PROTOCOL_VERSION + 1, "fields", "of", "the", "future"])])
    reject = scorer.hear(Reject)
    assert reject.field == "protocol"
    assert f"protocol {PROTOCOL_VERSION}, not {PROTOCOL_VERSION + 1}" in reject.message


def test_a_synthetic_scorer_has_neither_model_nor_data_to_compare(trainer: Trainer) -> None:
    trainer.scorer().join(backend="synthetic", fingerprint={}, num_samples=0, num_classes=0)


# -- leaving, silence and standstill ----------------------------------------------------------------------------------


def test_a_goodbye_frees_the_leases_at_once(trainer: Trainer) -> None:
    leaver, stayer = trainer.scorer(), trainer.scorer()
    leaver.join()
    start = leaver.hear(Lease).start
    leaver.say(Goodbye("enough"))
    until(lambda: len(trainer.service.sessions) == 0)
    stayer.join()
    assert stayer.hear(Lease).start == start
    assert trainer.pool.account()["expired"] == 2


def test_silence_is_death_and_the_leases_go_to_others(trainer: Trainer) -> None:
    silent, alive = trainer.scorer(), trainer.scorer()
    silent.join()
    lease = silent.hear(Lease)
    trainer.tick(TERMS.silence_s - 1)
    assert len(trainer.service.sessions) == 1
    trainer.tick(TERMS.silence_s + 1)
    assert len(trainer.service.sessions) == 0
    alive.join()
    assert alive.hear(Lease).start == lease.start
    silent.say(answer(lease, V0))
    assert silent.hear(Error).code == "unknown-session"


def test_the_time_of_all_scorers_is_added_up_of_those_that_left_too(trainer: Trainer) -> None:
    first, second = trainer.scorer(), trainer.scorer()
    assert sum(trainer.service.sessions.spent) == 0
    for scorer, times in ((first, (1, 2, 3, 4, 5)), (first, (10, 20, 30, 40, 50)), (second, (1, 1, 1, 1, 1))):
        if scorer is second or times[0] == 1:
            scorer.join()
        scorer.say(Heartbeat(1, V0, (), 0, Spent(*map(float, times))))
    first.say(Goodbye("enough"))
    until(lambda: trainer.service.sessions.spent == (11, 21, 31, 41, 51) and len(trainer.service.sessions) == 1)


def test_sessions_that_ended_leave_nothing_behind_but_their_sums(trainer: Trainer) -> None:
    def held() -> list[int]:
        own = vars(trainer.service.sessions).values()
        return [len(value) for value in own if isinstance(value, dict | list | set)]

    sizes = []
    for num in range(1, 6):
        scorer = trainer.scorer()
        scorer.join()
        scorer.say(Heartbeat(1, V0, (), 0, Spent(1.0, 2.0, 3.0, 4.0, 5.0)))
        scorer.say(Goodbye("enough"))
        until(lambda num=num: trainer.service.sessions.spent == (num, 2 * num, 3 * num, 4 * num, 5 * num))
        until(lambda: len(trainer.service.sessions) == 0)
        sizes.append(trainer.call(held))
    assert sizes[0] == sizes[-1]


def test_a_peer_whose_connection_is_gone_is_noticed_at_the_next_message_to_it(trainer: Trainer) -> None:
    with HandMadeScorer(trainer.endpoint) as gone:
        gone.join()
    until(lambda: trainer.tick(2.0) or len(trainer.service.sessions) == 0)
    assert trainer.pool.account()["expired"] == 2


def test_a_scorer_that_beats_without_progress_is_set_aside_until_it_moves() -> None:
    with Trainer(replace(TERMS, lease_s=60.0)) as trainer:
        stuck, other = trainer.scorer(), trainer.scorer()
        stuck.join()
        leases = [stuck.hear(Lease), stuck.hear(Lease)]
        stuck.say(Heartbeat(0, V0, tuple(lease.lease for lease in leases), 0))
        until(lambda: trainer.service.sessions.num_resident)
        trainer.tick(59.0)
        assert trainer.events["scorers stuck"] == 0
        trainer.tick(61.0)
        assert trainer.events["scorers stuck"] == 1
        assert set(stuck.hear(Revoke).leases) == {lease.lease for lease in leases}
        other.join()
        assert [other.hear(Lease).start for _ in range(2)] == [lease.start for lease in leases]
        assert len(trainer.service.sessions) == 2, "it is alive"
        stuck.say(answer(leases[0], V0))
        until(lambda: trainer.pool.refused() == {"no such lease": 1})
        stuck.say(Heartbeat(1, V0, (), 0))
        until(lambda: trainer.tick(0.0) or trainer.pool.account()["outstanding"] == 4)
        assert stuck.hear(Lease).start == 8, "welcome back"


def test_a_scorer_set_aside_while_its_weights_were_on_their_way_serves_once_they_are_loaded() -> None:
    with Trainer(replace(TERMS, lease_s=60.0)) as trainer:
        scorer = trainer.scorer()
        scorer.join()
        trainer.tick(61.0)
        assert trainer.events["scorers stuck"] == 1
        assert len(scorer.hear(Revoke).leases) == 2
        scorer.say(Heartbeat(0, None, (), 0))
        scorer.say(Heartbeat(0, V0, (), 0))
        until(lambda: trainer.service.sessions.num_serving)
        trainer.tick(0.0)
        assert [scorer.hear(Lease).start for _ in range(2)] == [0, 4]


def test_a_slow_scorer_that_goes_on_is_not_stuck() -> None:
    with Trainer(replace(TERMS, lease_s=60.0)) as trainer:
        slow = trainer.scorer()
        slow.join()
        slow.hear(Lease)
        later = time.monotonic() + 59.0
        trainer.call(lambda: [setattr(one, "progress_at", later) for one in trainer.service.sessions])
        trainer.tick(100.0)
        assert trainer.events["scorers stuck"] == 0


def test_hello_again_from_the_same_peer_begins_a_new_session(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    first, lease = scorer.join(), scorer.hear(Lease)
    second = scorer.join()
    assert second.session != first.session
    assert scorer.hear(Lease).start == lease.start
    assert len(trainer.service.sessions) == 1


def test_a_scorer_that_comes_back_over_a_new_connection_replaces_itself(trainer: Trainer) -> None:
    before, after = trainer.scorer(), trainer.scorer()
    before.join(incarnation=55)
    start = before.hear(Lease).start
    after.join(incarnation=55)
    assert after.hear(Lease).start == start
    assert len(trainer.service.sessions) == 1


def test_when_selection_is_over_scorers_are_told_to_drop_what_they_hold(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    held = {scorer.hear(Lease).lease, scorer.hear(Lease).lease}
    leases = trainer.pool.finish()
    trainer.io.post(lambda: trainer.service.revoke(leases))
    assert set(scorer.hear(Revoke).leases) == held


def test_a_trainer_that_ends_says_goodbye_and_does_not_wait_for_the_deaf_for_long() -> None:
    with Trainer() as trainer:
        scorer = trainer.scorer()
        scorer.join()
        started = time.monotonic()
        trainer.io.stop()
        assert not trainer.io.alive
        assert time.monotonic() - started < 4.0
        scorer.hear(Goodbye)


# -- weights ----------------------------------------------------------------------------------------------------------


def fetch_whole(scorer: HandMadeScorer, session: Any, version: Version) -> tuple[bytes, list[Weights]]:
    got: list[Weights] = []
    while not got or len(got) < got[0].num_buckets:
        scorer.fetch(session, version, len(got), 4)
        asked = len(got)
        while len(got) < min(asked + 4, got[0].num_buckets if got else 1):
            got.append(receive(scorer.weights, Weights)[1])
    return b"".join(bytes(one.buffer) for one in got), got


def test_a_version_is_fetched_as_it_was_pushed_although_training_goes_on(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 1000)
    expected = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    scorer = trainer.scorer()
    welcome = scorer.join()
    with torch.no_grad():
        trainer.model.weight.zero_()
    flat, got = fetch_whole(scorer, welcome, V0)
    assert [one.bucket for one in got] == list(range(13))
    assert all(one.checksum == buckets.bucket_checksum(one.buffer) for one in got)
    model = nn.Linear(100, 30)
    load_flat(model, trainer.publisher.manifests["float32"], torch.frombuffer(bytearray(flat), dtype=torch.uint8))
    assert all(torch.equal(own, other) for own, other in zip(model.parameters(), expected, strict=True))


def test_a_push_is_announced_to_everyone_and_in_later_welcomes(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    version = trainer.push(3)
    hint = scorer.hear(VersionHint)
    assert (hint.version, hint.num_bytes) == (version, trainer.publisher.manifests["float32"].total_bytes)
    assert trainer.scorer().join().version == version
    trainer.tick(2.0)
    assert scorer.hear(Heartbeat).resident == version


def test_a_version_that_a_gpu_has_not_come_to_is_announced_when_it_has_and_the_thread_goes_on(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    scorer.join()
    event = FakeEvent()
    slots = [trainer.publisher.push(step) for step in (1, 2)]
    for slot in slots:
        slot.copied = event
        trainer.call(lambda slot=slot: trainer.service.announce(slot))
    assert trainer.scorer().join().version == V0
    assert trainer.publisher.push(3) is None, "one slot is the newest, two are on their way"
    event.is_over = True
    assert scorer.hear(VersionHint).version == Version(GENERATION, 2), "the first is overtaken"
    assert slots[0] in [trainer.publisher.push(step) for step in (3, 4)], "no longer on its way"


def test_a_version_that_was_overwritten_is_answered_by_the_newest(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    welcome = scorer.join()
    for step in (1, 2, 3):
        trainer.push(step)
    scorer.fetch(welcome, V0)
    assert receive(scorer.weights, WeightsGone)[1] == WeightsGone(V0, Version(GENERATION, 3))


def test_a_fetch_without_a_session_or_past_the_end_gets_nothing(trainer: Trainer) -> None:
    scorer = trainer.scorer()
    welcome = scorer.join()
    scorer.fetch(structs.replace(welcome, session=welcome.session ^ 1), V0)
    scorer.fetch(welcome, V0, first=5, num=4)
    scorer.fetch(welcome, V0)
    assert receive(scorer.weights, object)[1].bucket == 0  # type: ignore[attr-defined]
    assert not scorer.weights.poll(0)


def test_a_float32_scorer_waits_for_weights_that_were_not_rounded() -> None:
    with Trainer() as trainer:
        trainer.scorer().join(precision="bf16")
        assert trainer.service.weights.wire == "bf16"
        trainer.push(1, wire=trainer.service.weights.wire)
        exact = trainer.scorer()
        assert exact.join().version is None
        assert trainer.service.push_wanted
        version = trainer.push(2, wire=trainer.service.weights.wire)
        assert exact.hear(VersionHint).version == version
