"""Scorers that need no weights: who is let in, who trains the predictor of losses, and whole runs with each of them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from common.order import Order
from common.protocol import Error, Feedback, Goodbye, Lease, PredictorState, Reject, Revoke, VersionHint
from tests.service.peers import FINGERPRINT, HandMadeScorer, hello, until
from tests.service.processes import Processes, assert_balanced
from tests.service.test_service_protocol import TERMS, V0, Trainer, answer
from trainer.agreed import histories_by_position
from trainer.prediction import LossHistories

PREDICTING = replace(TERMS, scores=("predicted-loss",), lowest_is_hard=False, backend="predictor")
PARTS = {name: digest for name, digest in FINGERPRINT.items() if name != "model"}


def histories_of(start: int, stop: int, wanted: np.ndarray | None) -> np.ndarray:
    """Of position p: p, then nothing."""
    positions = np.arange(start, stop)
    kept = positions if wanted is None else positions[wanted]
    return np.stack([kept, np.full(len(kept), np.nan)], axis=1).astype(np.float32)


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    with Trainer(PREDICTING, histories_of=histories_of) as opened:
        yield opened


def predictor(trainer: Trainer) -> HandMadeScorer:
    scorer = trainer.scorer()
    scorer.join(backend="predictor", fingerprint=PARTS)
    return scorer


def feed(trainer: Trainer, number: int) -> None:
    feedback = Feedback.of(np.array([number]), np.ones(1, np.float32), np.full((1, 10), np.nan, np.float32))
    trainer.io.post(lambda: trainer.service.send_feedback(feedback))


def learned(scorer: HandMadeScorer) -> int:
    """Number of the next feedback."""
    return int(scorer.hear(Feedback).ids.as_numpy().item())


def state(updates: int) -> PredictorState:
    return PredictorState(updates, np.full(3, updates, np.float32).tobytes())


# -- who may join -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "proxy"])
def test_a_run_on_predicted_losses_refuses_scorers_with_a_model_and_names_the_remedy(
    backend: str, trainer: Trainer
) -> None:
    scorer = trainer.scorer()
    scorer.say(hello(backend=backend))
    reject = scorer.hear(Reject)
    assert reject.field == "backend"
    assert f"wants predicted-loss, which --backend {backend} cannot give; use --backend predictor" in reject.message


def test_a_run_on_margins_refuses_predictors_and_names_the_remedy() -> None:
    with Trainer() as trainer:
        scorer = trainer.scorer()
        scorer.say(hello(backend="predictor", fingerprint=PARTS))
        reject = scorer.hear(Reject)
    assert reject.field == "backend"
    assert "wants mms, and a predictor gives predicted losses only; use --backend torch or proxy" in reject.message


def test_a_proxy_has_another_model_and_the_same_data() -> None:
    with Trainer() as trainer:
        trainer.scorer().join(backend="proxy", fingerprint=PARTS)
        other = trainer.scorer()
        other.say(hello(backend="proxy", fingerprint=PARTS | {"data": "other"}))
        assert other.hear(Reject).field == "data"


def test_embeddings_are_of_one_model_so_a_proxy_is_refused() -> None:
    with Trainer(replace(TERMS, embeddings=True)) as trainer:
        scorer = trainer.scorer()
        scorer.say(hello(backend="proxy", fingerprint=PARTS))
        assert scorer.hear(Reject).field == "backend"


def test_the_loss_of_a_proxy_is_not_taken_for_the_model_s() -> None:
    with Trainer() as trainer:
        scorer = trainer.scorer()
        scorer.join(backend="proxy", fingerprint=PARTS)
        scorer.say(answer(scorer.hear(Lease), V0, loss_mean=0.5, accuracy=0.25))
        until(lambda: trainer.pool.num_arrived == 1)
        assert list(trainer.service.candidates.uniform) == []


@pytest.mark.parametrize("backend", ["proxy", "synthetic"])
def test_only_scorers_that_compute_with_the_weights_decide_their_precision_on_the_wire(backend: str) -> None:
    with Trainer() as trainer:
        trainer.scorer().join(precision="bf16")
        rounded = trainer.push(1, wire=trainer.service.weights.wire)
        other = trainer.scorer()
        welcome = other.join(backend=backend, fingerprint=PARTS, precision="float32")
        assert welcome.version == rounded, "it need not wait for an exact one"
        assert not trainer.service.push_wanted
        assert trainer.service.weights.wire == "bf16"
        trainer.push(2, wire="bf16")
        assert other.hear(VersionHint).version.step == 2


# -- who learns -------------------------------------------------------------------------------------------------------


def test_leases_bring_the_histories_of_their_positions(trainer: Trainer) -> None:
    scorer = predictor(trainer)
    for start in (0, 4):
        histories = scorer.hear(Lease).histories
        assert histories is not None
        np.testing.assert_array_equal(histories.as_numpy(), histories_of(start, start + 4, None))


def test_histories_of_a_lease_are_those_of_the_samples_at_its_wanted_positions() -> None:
    order, losses = Order(100, 3, "candidates"), LossHistories(100)
    losses.append(np.arange(100), np.arange(100, dtype=np.float32))
    of = histories_by_position(losses, order)
    ids = order.ids(np.arange(98, 102))
    assert of(98, 102, None)[:, -1].tolist() == ids.tolist()
    assert of(98, 102, np.array([False, True, True, False]))[:, -1].tolist() == ids[1:3].tolist()


def test_leases_of_other_runs_bring_no_histories() -> None:
    with Trainer() as trainer:
        scorer = trainer.scorer()
        scorer.join()
        assert scorer.hear(Lease).histories is None


def test_feedback_goes_to_the_oldest_predictor_and_moves_on_with_its_parameters_when_it_leaves(
    trainer: Trainer,
) -> None:
    trainer.scorer().join(backend="synthetic", fingerprint={}, num_samples=0, num_classes=0)
    first, second = predictor(trainer), predictor(trainer)
    for number in (1, 2):
        feed(trainer, number)
        assert learned(first) == number
    first.say(state(100))
    assert second.hear(PredictorState) == state(100)
    assert trainer.service.predictor_state == state(100)
    late = predictor(trainer)
    assert late.hear(PredictorState) == state(100), "before it has any lease or feedback"
    first.say(Goodbye("enough"))
    until(lambda: len(trainer.service.sessions) == 3)
    feed(trainer, 3)
    assert learned(second) == 3, "and not 1 or 2"
    second.say(state(200))
    assert late.hear(PredictorState) == state(200)
    second.say(Goodbye("enough"))
    until(lambda: len(trainer.service.sessions) == 2)
    feed(trainer, 4)
    assert learned(late) == 4
    until(lambda: trainer.events["feedback sent"] == 4)


def test_without_a_predictor_feedback_is_counted_and_lost(trainer: Trainer) -> None:
    feed(trainer, 1)
    until(lambda: trainer.events["feedback without a predictor"] == 1)
    scorer = predictor(trainer)
    feed(trainer, 2)
    assert learned(scorer) == 2


def test_a_stuck_predictor_is_passed_over(trainer: Trainer) -> None:
    stuck, other = predictor(trainer), predictor(trainer)
    trainer.call(lambda: [setattr(one, "stuck", True) for one in list(trainer.service.sessions)[:1]])
    feed(trainer, 1)
    assert learned(other) == 1
    other.say(state(100))
    assert stuck.hear(PredictorState) == state(100)


def test_parameters_count_only_from_whoever_learns(trainer: Trainer) -> None:
    first, second = predictor(trainer), predictor(trainer)
    first.say(state(100))
    assert second.hear(PredictorState) == state(100)
    second.say(state(300))
    second.say(Revoke((1,)))  # is for scorers: the answer shows that what came before it was read
    assert second.hear(Error).code == "malformed"
    assert trainer.service.predictor_state == state(100)
    synthetic = trainer.scorer()
    synthetic.join(backend="synthetic", fingerprint={}, num_samples=0, num_classes=0)
    synthetic.say(state(400))
    assert synthetic.hear(Error).code == "malformed"
    assert trainer.service.predictor_state == state(100)
    first.say(state(200))
    assert second.hear(PredictorState) == state(200)


def test_the_parameters_of_a_restored_run_are_there_for_the_first_predictor(trainer: Trainer) -> None:
    trainer.service.predictor_state = state(500)
    assert predictor(trainer).hear(PredictorState) == state(500)


# -- whole runs -------------------------------------------------------------------------------------------------------

DIGITS = ("--data", "digits", "--fallback", "wait")


def test_biased_importance_trains_on_losses_that_a_scorer_predicts(processes: Processes) -> None:
    flags = ("--method", "biased-importance", "--model", "small", "--steps", "300")
    service = processes.service("out", *DIGITS, *flags)
    service.succeeds()
    summary = processes.summary("out")
    assert summary["accuracy"] >= 0.9
    assert summary["events"]["feedback sent"] == 300
    assert summary["steps_by_origin"] == {"plain": 45, "stale": 255}
    assert summary["scored_elsewhere"] == {"predictor": summary["samples_scored"]}
    assert summary["staleness_max"] <= 64
    assert "predictor: 200 updates" in service.scorers[0].output
    assert_balanced(summary)


def test_a_small_proxy_scores_for_a_larger_model(processes: Processes) -> None:
    flags = ("--method", "mms", "--model", "resnet8", "--backend", "proxy", "--proxy-model", "small")
    processes.service("out", *DIGITS, *flags, "--steps", "40", "--max-staleness", "16").succeeds()
    summary = processes.summary("out")
    assert summary["steps_by_origin"] == {"plain": 6, "stale": 34}
    assert 0 < summary["staleness_max"] <= 16
    assert summary["scored_elsewhere"] == {"proxy": summary["samples_scored"]}  # and costs the model nothing
    assert summary["flops"]["scoring"] == {}
    assert_balanced(summary)


def test_a_backend_that_cannot_serve_the_method_ends_with_a_sentence(processes: Processes) -> None:
    endpoint = processes.endpoint()
    trainer = processes.trainer("out", *DIGITS, "--method", "biased-importance", "--listen", endpoint)
    trainer.says("scorers connect with")
    scorer = processes.scorer("scorer", endpoint, "--data", "digits", "--backend", "torch")
    assert scorer.code() == 3
    assert "backend: this run wants predicted-loss" in scorer.output
