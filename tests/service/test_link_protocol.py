"""The scorer's side of the protocol over real sockets, tried by a trainer that a test drives message by message."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zmq
from msgspec.structs import replace

import scorer.dialogue
from common.errors import PeerTimeout, Rejected
from common.protocol import (
    Candidates,
    Error,
    Feedback,
    Fetch,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    PredictorState,
    Reject,
    Return,
    Revoke,
    Version,
    VersionHint,
    Weights,
    WeightsGone,
    Welcome,
)
from common.security.credentials import Insecure
from scorer.inbox import MAX_FEEDBACK
from scorer.link import Link
from scorer.staging import StagedWeights
from tests.service.peers import WITHIN_S, HandMadeTrainer, answer, bytes_of, hello, until

GENERATION = 7

pytestmark = pytest.mark.usefixtures("small_buckets")


def version(step: int) -> Version:
    return Version(GENERATION, step)


def lease(number: int, *, oldest_step: int = 0, generation: int = GENERATION) -> Lease:
    return Lease(number, generation, 4 * number, 4 * number + 4, b"", oldest_step, 60.0)


def make_link(trainer: HandMadeTrainer, connect_s: float = WITHIN_S, backend: str = "torch") -> Link:
    return Link(
        trainer.endpoint,
        hello(incarnation=99, backend=backend),
        connect_s=connect_s,
        check_manifest=lambda message: None,
        wants_weights=backend == "torch",
        security=Insecure(),
    )


@pytest.fixture
def link(trainer: HandMadeTrainer) -> Iterator[Link]:
    with make_link(trainer) as opened:
        yield opened


def load(link: Link) -> Version:
    """Take the next version, as the scorer's loop does."""
    staged = link.next_work()
    assert isinstance(staged, StagedWeights)
    assert staged.flat.tobytes() == bytes_of(staged.version)
    link.loaded(staged)
    return staged.version


def resident(trainer: HandMadeTrainer, link: Link, step: int = 0, session: int = 1) -> Welcome:
    """Welcome the scorer and have it load a version."""
    welcome = trainer.welcome(session=session, version=version(step))
    trainer.serve_whole(version(step))
    assert load(link) == version(step)
    return welcome


# -- the way it should be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_a_scorer_says_hello_fetches_weights_and_answers_its_leases(scheme: str) -> None:
    with HandMadeTrainer(scheme) as trainer, make_link(trainer) as link:
        welcome = resident(trainer, link)
        trainer.say(lease(1))
        work = link.next_work()
        assert work == (lease(1), welcome, version(0), ())
        link.answer(lease(1), answer(lease(1), version(0)))
        got = trainer.hear(Candidates)
        assert (got.lease, got.version) == (1, version(0))
        assert got.finite_scores()[0].tolist() == [4, 5, 6, 7]


def test_heartbeats_tell_progress_residence_and_leases(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link, 3)
    trainer.say(lease(1, oldest_step=3))
    trainer.say(lease(2, oldest_step=3))
    assert link.next_work()[0] == lease(1, oldest_step=3)  # type: ignore[index]
    link.answer(lease(1), answer(lease(1), version(3)))
    while (beat := trainer.hear(Heartbeat)).leases != (2,):
        pass
    assert (beat.progress, beat.resident) == (1, version(3))


def test_whoever_holds_no_lease_tells_at_once_which_weights_it_has_loaded(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(version=version(0), heartbeat_s=1000.0)
    trainer.hear(Heartbeat)  # the first one comes with the session
    trainer.serve_whole(version(0))
    assert load(link) == version(0)
    beat = trainer.hear(Heartbeat)
    assert (beat.resident, beat.leases) == (version(0), ())


def test_heartbeats_tell_where_the_time_of_this_session_went(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(session=1)

    def loaded_s() -> float:
        spent = trainer.hear(Heartbeat).spent
        assert spent is not None
        return spent.load_s

    with link.stopwatch.during("load_s"):
        until(lambda: loaded_s() >= 0.05)
    trainer.say(Error("unknown-session", "say HELLO first"))
    trainer.welcome(session=2)
    until(lambda: loaded_s() == 0)


def test_a_lease_waits_for_weights_that_are_new_enough(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link, 0)
    trainer.say(lease(1, oldest_step=5))
    trainer.say(VersionHint(version(5), 1000))
    trainer.serve_whole(version(5))
    assert load(link) == version(5), "weights come first"
    assert link.next_work()[0].lease == 1  # type: ignore[index]


def test_a_lease_that_can_be_served_goes_before_one_that_cannot(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link, 0)
    trainer.say(lease(1, oldest_step=5))
    trainer.say(lease(2, oldest_step=0))
    assert link.next_work()[0].lease == 2  # type: ignore[index]


def test_a_revoked_lease_is_not_answered_and_yet_counts_as_progress(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    trainer.say(lease(1))
    assert link.next_work()[0].lease == 1  # type: ignore[index]
    trainer.say(Revoke((1,)))
    trainer.say(lease(2))
    while trainer.hear(Heartbeat).leases != (2,):
        pass
    link.answer(lease(1), answer(lease(1), version(0)))
    link.answer(lease(2), answer(lease(2), version(0)))
    assert trainer.hear(Candidates).lease == 2
    while trainer.hear(Heartbeat).progress != 2:
        pass


def test_leases_of_another_generation_are_ignored(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    trainer.say(lease(1, generation=GENERATION - 1))
    trainer.say(lease(2))
    assert link.next_work()[0].lease == 2  # type: ignore[index]


def test_a_lease_can_be_given_back(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    trainer.say(lease(1))
    link.next_work()
    link.give_back(lease(1))
    assert trainer.hear(Return).leases == (1,)


# -- weights ----------------------------------------------------------------------------------------------------------


def spoilt(message: Weights) -> Weights:
    if message.bucket != 2:
        return message
    return replace(message, buffer=bytes(reversed(message.buffer)))


def test_a_bucket_with_a_wrong_checksum_is_never_loaded_and_the_version_is_fetched_again(
    trainer: HandMadeTrainer, link: Link
) -> None:
    trainer.welcome(version=version(0))
    trainer.serve(trainer.fetched(), spoilt)
    assert "checksum of bucket 2" in trainer.hear(Error).text
    while (fetch := trainer.fetched()).first_bucket != 0:
        pass  # asked for before the checksum was looked at
    trainer.serve(fetch)
    trainer.serve_whole(version(0))
    assert load(link) == version(0)


def test_a_version_that_is_gone_leads_to_the_newest(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(version=version(1))
    assert trainer.fetched().version == version(1)
    trainer.reply(WeightsGone(version(1), version(4)))
    trainer.serve_whole(version(4))
    assert load(link) == version(4)


def test_the_latest_version_wins(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(version=version(1))
    fetch = trainer.fetched()
    for step in (2, 3, 4):
        trainer.say(VersionHint(version(step), 1000))
    trainer.say(lease(1, oldest_step=4))
    while trainer.hear(Heartbeat).leases != (1,):
        pass
    trainer.serve(fetch)
    trainer.serve_whole(version(1))
    trainer.serve_whole(version(4))  # and neither 2 nor 3
    while (loaded := load(link)) != version(4):
        assert loaded == version(1)


def test_a_lost_hint_is_made_good_by_a_heartbeat(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link, 1)
    trainer.say(Heartbeat(0, version(6), (), 6))
    trainer.serve_whole(version(6))
    assert load(link) == version(6)


def test_weights_and_leases_of_an_earlier_session_are_not_taken_for_those_of_the_next(
    trainer: HandMadeTrainer, link: Link
) -> None:
    resident(trainer, link, 5)
    trainer.say(lease(1))
    trainer.say(Error("unknown-session", "say HELLO first"))
    trainer.welcome(session=2, version=version(2))
    trainer.say(lease(9))
    trainer.serve_whole(version(2))
    assert load(link) == version(2), "an older step, of another trainer's weights"
    assert link.next_work()[0].lease == 9  # type: ignore[index]


def test_an_answer_out_of_an_earlier_session_is_not_sent_for_a_lease_of_the_same_number(
    trainer: HandMadeTrainer, link: Link
) -> None:
    """A trainer that starts anew in another folder counts generations, versions and leases from the beginning."""
    resident(trainer, link, 0)
    trainer.say(lease(1))
    assert link.next_work()[0].lease == 1  # type: ignore[index]
    trainer.say(Error("unknown-session", "say HELLO first"))
    resident(trainer, link, 0, session=2)
    for number in (1, 2):
        trainer.say(lease(number))
    while trainer.hear(Heartbeat).leases != (1, 2):
        pass
    link.answer(lease(1), answer(lease(1), version(0)))  # scored with the weights of before
    assert link.next_work()[0].lease == 1, "it is still to be scored"  # type: ignore[index]


# -- scorers without weights ------------------------------------------------------------------------------------------


@pytest.fixture
def predictor(trainer: HandMadeTrainer) -> Iterator[Link]:
    with make_link(trainer, backend="predictor") as opened:
        yield opened


def test_without_weights_a_version_is_resident_as_soon_as_it_is_known_and_never_fetched(
    trainer: HandMadeTrainer, predictor: Link
) -> None:
    welcome = trainer.welcome(version=version(0))
    news = (lambda: None, lambda: trainer.say(VersionHint(version(5), 1000)), lambda: beat(trainer, version(9)))
    for number, (oldest_step, tell) in enumerate(zip((0, 5, 9), news, strict=True), start=1):
        trainer.say(lease(number, oldest_step=oldest_step))
        tell()
        work = predictor.next_work()
        assert work == (lease(number, oldest_step=oldest_step), welcome, version(oldest_step), ())
        predictor.answer(lease(number), answer(lease(number), version(oldest_step)))
    while trainer.hear(Heartbeat).resident != version(9):
        pass
    assert not trainer.weights.poll(0)


def beat(trainer: HandMadeTrainer, resident: Version) -> None:
    trainer.say(Heartbeat(0, resident, (), resident.step))


def feedback(number: int) -> Feedback:
    return Feedback.of(np.array([number]), np.ones(1, np.float32), np.full((1, 10), np.nan, np.float32))


def test_parameters_come_first_then_feedback_and_leases_in_turns(trainer: HandMadeTrainer, predictor: Link) -> None:
    trainer.welcome(version=version(0))
    for number in (1, 2, 3):
        trainer.say(feedback(number))
    for number in (1, 2):
        trainer.say(PredictorState(number, np.full(3, number, np.float32).tobytes()))
    trainer.say(lease(1))
    while trainer.hear(Heartbeat).leases != (1,):
        pass
    orders = [predictor.next_work().order for _ in range(4)]  # type: ignore[union-attr]
    assert [type(order) for order in orders] == [PredictorState, Feedback, Lease, Feedback]
    assert orders[0].updates == 2, "the latest"
    assert [orders[1].ids.as_numpy().item(), orders[3].ids.as_numpy().item()] == [1, 2]


def test_feedback_of_an_earlier_session_is_not_learned_in_the_next(trainer: HandMadeTrainer, predictor: Link) -> None:
    trainer.welcome(version=version(0))
    trainer.say(feedback(1))
    trainer.say(Error("unknown-session", "say HELLO first"))
    trainer.welcome(session=2, version=version(0))
    trainer.say(feedback(2))
    work = predictor.next_work()
    assert work.order.ids.as_numpy().item() == 2  # type: ignore[union-attr]


def test_of_feedback_that_nobody_has_time_for_the_newest_is_kept(trainer: HandMadeTrainer, predictor: Link) -> None:
    trainer.welcome(version=version(0))
    for number in range(MAX_FEEDBACK + 3):
        trainer.say(feedback(number))
    trainer.say(lease(1))
    while trainer.hear(Heartbeat).leases != (1,):
        pass
    assert predictor.next_work().order.ids.as_numpy().item() == 3  # type: ignore[union-attr]


# -- ends -------------------------------------------------------------------------------------------------------------


def test_a_rejected_scorer_learns_the_field_and_ends_with_a_code_of_its_own(
    trainer: HandMadeTrainer, link: Link
) -> None:
    trainer.hear(Hello)
    trainer.say(Reject("augmentation", "give both the same --augment options"))
    with pytest.raises(Rejected, match="refused this scorer: augmentation: give both the same --augment") as refused:
        link.next_work()
    assert (refused.value.field, refused.value.exit_code) == ("augmentation", 3)


def test_a_trainer_that_falls_silent_is_looked_for_again(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome(silence_s=0.05)
    assert trainer.hear(Hello).incarnation == 99


@pytest.mark.parametrize(("scheme", "is_fresh"), [("tcp", True), ("ipc", False)])
def test_a_trainer_that_stays_silent_is_looked_for_over_a_fresh_connection_where_there_is_a_network(
    scheme: str, is_fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer.dialogue, "FRESH_AFTER_S", 0.3)
    monkeypatch.setattr(scorer.dialogue, "HELLO_EVERY_S", 0.05)
    with HandMadeTrainer(scheme) as trainer, make_link(trainer):
        trainer.welcome(silence_s=0.05)
        peers = set()
        for _ in range(8):  # one for each tick, of a tenth of a second
            trainer.hear(Hello)
            peers.add(trainer.peer)
        assert (len(peers) > 1) == is_fresh


def test_a_scorer_whose_session_is_unknown_says_hello_again(trainer: HandMadeTrainer, link: Link) -> None:
    trainer.welcome()
    trainer.say(Error("unknown-session", "say HELLO first"))
    trainer.hear(Hello)


def test_without_a_trainer_the_deadline_names_the_endpoint(trainer: HandMadeTrainer) -> None:
    trainer.control.close(0)
    with make_link(trainer, connect_s=0.05) as link, pytest.raises(PeerTimeout, match=trainer.endpoint) as timeout:
        link.next_work()
    assert timeout.value.exit_code == 4


def test_a_trainer_that_is_silent_for_too_long_ends_the_scorer(trainer: HandMadeTrainer) -> None:
    with make_link(trainer, connect_s=0.3) as link:
        trainer.welcome()
        with pytest.raises(PeerTimeout):
            link.next_work()


def test_a_goodbye_ends_the_scorer_and_is_answered_at_once(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link)
    trainer.say(Goodbye("the trainer has ended"))
    trainer.hear(Goodbye)
    assert link.next_work() is None


def test_a_stop_from_another_thread_ends_the_wait_for_work(trainer: HandMadeTrainer) -> None:
    with make_link(trainer) as link:
        trainer.welcome()
        timer = threading.Timer(0.01, link.stop, args=("signal",))
        timer.start()
        assert link.next_work() is None
        timer.join()
    trainer.hear(Goodbye)


NONSENSE: dict[str, Callable[[HandMadeTrainer], None]] = {
    "noise": lambda trainer: trainer.control.send_multipart([trainer.peer, b"\x00", b"noise"]),
    "one frame": lambda trainer: trainer.control.send_multipart([trainer.peer, b"noise"]),
    "a message for trainers": lambda trainer: trainer.say(Fetch(1, version(0), 0, 1)),
    "a message for predictors": lambda trainer: trainer.say(feedback(1)),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_from_the_trainer_is_answered_by_an_error_and_survived(
    nonsense: Callable[[HandMadeTrainer], Any], trainer: HandMadeTrainer, link: Link
) -> None:
    resident(trainer, link)
    nonsense(trainer)
    assert trainer.hear(Error).code == "malformed"
    trainer.say(lease(1))
    assert link.next_work()[0].lease == 1  # type: ignore[index]


def test_a_second_welcome_of_the_same_session_changes_nothing(trainer: HandMadeTrainer, link: Link) -> None:
    welcome = resident(trainer, link)
    trainer.say(lease(1))
    trainer.say(welcome)
    while trainer.hear(Heartbeat).leases != (1,):
        pass
    assert link.next_work() == (lease(1), welcome, version(0), ())


def test_a_restarted_trainer_at_the_same_endpoint_is_found(trainer: HandMadeTrainer, link: Link) -> None:
    resident(trainer, link, 5)
    endpoint = trainer.endpoint
    trainer.control.unbind(endpoint)
    trainer.control.close(0)
    trainer.control = trainer.open(zmq.ROUTER)
    trainer.control.bind(endpoint)
    trainer.hear(Heartbeat)
    trainer.say(Error("unknown-session", "say HELLO first"))
    trainer.welcome(session=2, generation=GENERATION + 1, version=Version(GENERATION + 1, 0))
    trainer.serve_whole(Version(GENERATION + 1, 0))
    assert load(link) == Version(GENERATION + 1, 0)
