"""The scorer that predicts losses: what it predicts from, what it learns, and what it hands on."""

import numpy as np
import pytest
import torch

from common.errors import ConfigError, ProtocolError
from common.order import Order
from common.predictor import LossPredictor
from common.protocol import Candidates, Feedback, Lease, Limits, PredictorState, Welcome, decode, encode, pack_mask
from common.shard import Shard
from scorer.backend import Backend, Learner, make_backend
from scorer.predictor_backend import STATE_EVERY, PredictorBackend
from tests.scorer.leases import CHUNK, CLASSES, NUM, SEED, SOURCE, lease, options, version, welcome

WELCOME = welcome(("predicted-loss",))


def ready(begun: Welcome = WELCOME) -> PredictorBackend:
    backend = make_backend(options("predictor"))
    assert isinstance(backend, PredictorBackend)
    backend.begin(begun)
    backend.version = version()
    return backend


def past(num: int = CHUNK) -> np.ndarray:
    """(num, 10): rows with 0 to 10 known losses."""
    histories = np.random.default_rng(0).random((num, 10)).astype(np.float32)
    histories[np.arange(10)[None] < np.arange(num)[:, None] % 11] = np.nan
    return histories


def scored(backend: Backend, of: Lease) -> np.ndarray:
    """The scores, as the trainer gets them."""
    got = decode(encode(backend.score(of, WELCOME)))
    assert isinstance(got, Candidates)
    got.check(of, WELCOME)
    assert (got.version, got.loss_mean, got.accuracy, got.tau) == (version(), None, None, None)
    return got.finite_scores()[0].copy()


def feedback(loss: float, num: int = 32) -> Feedback:
    ids = np.arange(num)
    return Feedback.of(ids, np.full(num, loss, np.float32), past(num))


def test_scores_are_the_predictions_from_the_lease_s_histories_and_the_classes_of_its_samples() -> None:
    start = NUM - 20  # crosses into the second epoch
    ids = Order(NUM, SEED, "candidates").ids(np.arange(start, start + CHUNK))
    targets = SOURCE.train.fetch(torch.from_numpy(ids))[1]
    predictor = LossPredictor(CLASSES, seed=SEED)
    with torch.no_grad():
        predictor.embedding.weight.normal_(generator=torch.Generator().manual_seed(1))  # so that classes matter
    backend = ready()
    backend.load_state(PredictorState(1, predictor.flat_state().tobytes()))
    expected = predictor.predict(torch.from_numpy(past()), targets).numpy()
    assert len(set(expected.tolist())) > CHUNK // 2
    np.testing.assert_array_equal(scored(backend, lease(start, histories=past())), expected)


def test_a_masked_lease_is_scored_only_where_it_asks() -> None:
    wanted = np.arange(CHUNK) % 3 == 0
    every = scored(ready(), lease(histories=past()))
    some = scored(ready(), lease(mask=pack_mask(wanted), histories=past()[wanted]))
    np.testing.assert_allclose(some, every[wanted], rtol=1e-5)


@pytest.mark.parametrize("seed", [SEED, 4])
def test_all_predictors_of_a_run_start_alike_from_its_seed(seed: int) -> None:
    targets = SOURCE.targets(torch.from_numpy(Order(NUM, seed, "candidates").ids(np.arange(CHUNK))))
    expected = LossPredictor(CLASSES, seed=seed).predict(torch.from_numpy(past()), targets).numpy()
    got = scored(ready(welcome(("predicted-loss",), seed=seed)), lease(histories=past()))
    np.testing.assert_array_equal(got, expected)


def test_it_learns_from_feedback_and_hands_its_parameters_on_every_so_many_updates() -> None:
    backend, of = ready(), lease(histories=past())
    states = [backend.learn(feedback(3.0)) for _ in range(STATE_EVERY)]
    assert states[:-1] == [None] * (STATE_EVERY - 1)
    state = states[-1]
    assert state is not None
    assert state.updates == STATE_EVERY
    assert abs(scored(backend, of).mean() - 3.0) < 0.5
    other = ready()
    other.load_state(state)
    np.testing.assert_array_equal(scored(other, of), scored(backend, of))
    assert [other.learn(feedback(3.0)) for _ in range(STATE_EVERY)][-1].updates == 2 * STATE_EVERY  # type: ignore[union-attr]


def test_what_was_learned_holds_for_one_life_of_a_trainer() -> None:
    backend, of = ready(), lease(histories=past())
    for _ in range(3):
        backend.learn(feedback(3.0))
    learned = scored(backend, of)
    backend.begin(welcome(("predicted-loss",), session=2))
    np.testing.assert_array_equal(scored(backend, of), learned)
    backend.begin(welcome(("predicted-loss",), session=3, generation=8))
    np.testing.assert_array_equal(scored(backend, of), scored(ready(), of))


def test_each_rank_has_a_predictor_of_its_own_over_its_own_samples() -> None:
    begun = [welcome(("predicted-loss",), rank=rank, num_ranks=2, session=rank) for rank in (0, 1)]
    backend = ready(begun[0])
    backend.begin(begun[1])
    of = lease(histories=past())
    untaught = [decode(encode(backend.score(of, one))).finite_scores()[0].copy() for one in begun]  # type: ignore[union-attr]
    for _ in range(3):
        backend.learn(feedback(3.0), rank=1)
    taught = [decode(encode(backend.score(of, one))).finite_scores()[0].copy() for one in begun]  # type: ignore[union-attr]
    np.testing.assert_array_equal(taught[0], untaught[0])
    assert (taught[1] != untaught[1]).any()
    ids = Shard(1, 2).candidates(NUM, SEED).ids(np.arange(CHUNK)) * 2 + 1
    expected = backend._shares[1].training.predictor.predict(
        torch.from_numpy(past()), SOURCE.targets(torch.from_numpy(ids))
    )
    np.testing.assert_array_equal(taught[1], expected.numpy())


def test_parameters_and_samples_that_cannot_be_are_left_out() -> None:
    backend, of = ready(), lease(histories=past())
    before = scored(backend, of)
    backend.load_state(PredictorState(1, bytes(8)))
    assert backend.learn(Feedback.of(np.array([NUM]), np.ones(1, np.float32), past(1))) is None
    np.testing.assert_array_equal(scored(backend, of), before)


def test_another_score_is_refused_with_the_remedy() -> None:
    backend = make_backend(options("predictor"))
    for scores in (("mms",), ("predicted-loss", "mms")):
        with pytest.raises(ConfigError, match=r"wants .*mms; use --backend torch"):
            backend.begin(welcome(scores))


def test_a_lease_without_histories_is_an_error_of_the_trainer() -> None:
    with pytest.raises(ProtocolError, match="lease 5 brings no histories"):
        ready().score(lease(), WELCOME)


def test_more_classes_than_the_wire_holds_parameters_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorer.predictor_backend.DEFAULT_LIMITS", Limits(max_state_bytes=50_000))
    with pytest.raises(ConfigError, match=r"10 classes .* 53256 bytes.*; use another --method"):
        make_backend(options("predictor"))


def test_it_wants_no_weights_and_learns_and_has_no_model_to_compare() -> None:
    backend = ready()
    assert isinstance(backend, Learner)
    assert not backend.wants_weights
    assert "model" not in backend.fingerprint
    assert (backend.num_samples, backend.num_classes) == (NUM, CLASSES)
