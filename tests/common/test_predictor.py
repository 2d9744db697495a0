"""The predictor of losses: learns what is there to learn, reads any history, and travels as one row of numbers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.predictor import HISTORY, LEAST_PREDICTION, LossPredictor, PredictorTraining

NAN = math.nan
NUM_CLASSES = 4


class Process:
    """Losses of 400 samples that decay at a rate of their class, each from a start of its own, with noise."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(NUM_CLASSES, (400,), generator=self._draw)
        self.losses = 1 + 3 * torch.rand(400, generator=self._draw)
        self.histories = torch.full((400, HISTORY), NAN)
        self._decay = torch.tensor([0.5, 0.8, 0.9, 1.0])[self.targets]

    def visit(self, num: int = 64) -> tuple[Tensor, Tensor, Tensor]:
        """(histories before, targets, losses) of some samples, whose histories then know these losses."""
        ids = torch.randperm(400, generator=self._draw)[:num]
        self.losses[ids] *= self._decay[ids]
        seen = self.losses[ids] + 0.05 * torch.randn(num, generator=self._draw)
        before = self.histories[ids]
        self.histories[ids] = torch.cat([before[:, 1:], seen.unsqueeze(1)], dim=1)
        return before, self.targets[ids], seen


def trained(updates: int = 200, seed: int = 0) -> tuple[PredictorTraining, Process]:
    training, process = PredictorTraining(LossPredictor(NUM_CLASSES, seed=seed), lr=3e-3), Process(seed)
    for _ in range(updates):
        training.update(*process.visit())
    return training, process


def test_it_learns_how_losses_go_on_far_better_than_their_mean() -> None:
    training, process = trained()
    histories, targets, losses = process.visit(400)
    error = (training.predictor.predict(histories, targets) - losses).square().mean()
    of_the_mean = losses.var(unbiased=False)
    assert error < 0.1 * of_the_mean, (error, of_the_mean)


def test_without_a_history_the_class_tells() -> None:
    draw = torch.Generator().manual_seed(0)
    training = PredictorTraining(LossPredictor(2, seed=0), lr=1e-2)
    for _ in range(150):
        targets = torch.randint(2, (64,), generator=draw)
        training.update(torch.full((64, HISTORY), NAN), targets, 1.0 + 2.0 * targets)
    easy, hard = training.predictor.predict(torch.full((2, HISTORY), NAN), torch.tensor([0, 1])).tolist()
    assert easy == pytest.approx(1.0, abs=0.2)
    assert hard == pytest.approx(3.0, abs=0.2)


def test_only_the_known_of_the_last_ten_losses_count_and_their_order() -> None:
    predictor, zero = trained(30)[0].predictor, torch.tensor([0])

    def predict(*history: float) -> float:
        return predictor(torch.tensor([history]).reshape(1, len(history)), zero).item()  # without the floor

    padded = predict(*[NAN] * 8, 0.3, 0.7)
    assert predict(0.3, 0.7) == padded
    assert predict(NAN, 0.3, NAN, 0.7, NAN) == padded
    assert predict(*[NAN] * 7, 0.3, math.inf, 0.7) == padded
    assert predict(5.0, *[NAN] * 8, 0.3, 0.7) == padded
    assert predict(0.7, 0.3) != padded
    assert predict(*[0.0] * 8, 0.3, 0.7) != padded, "a loss of 0 is a loss"
    assert predict() == predict(NAN) == predict(*[NAN] * HISTORY) != predict(0.0)


def test_each_row_is_predicted_for_itself() -> None:
    training, process = trained(30)
    histories, targets, _ = process.visit(16)
    together = training.predictor.predict(histories, targets)
    alone = torch.cat([training.predictor.predict(histories[i : i + 1], targets[i : i + 1]) for i in range(16)])
    torch.testing.assert_close(together, alone)
    assert training.predictor.predict(torch.empty(0, HISTORY), torch.empty(0, dtype=torch.int64)).shape == (0,)


def test_predictions_have_a_floor() -> None:
    training = PredictorTraining(LossPredictor(1, seed=0), lr=1e-1)
    histories, targets = torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64)
    for _ in range(60):
        training.update(histories, targets, torch.full((8,), -5.0))
    predicted = training.predictor.predict(histories, targets)
    assert (training.predictor(histories, targets) < 0).all()
    assert torch.equal(predicted, torch.full((8,), LEAST_PREDICTION))


def test_losses_that_are_not_finite_teach_nothing_and_huge_ones_spoil_nothing() -> None:
    (one, process), (other, _) = trained(5), trained(5)
    histories, targets, losses = process.visit(8)
    bad = losses.clone()
    bad[3:] = torch.tensor([NAN, math.inf, -math.inf, NAN, NAN])
    assert one.update(histories, targets, bad) == other.update(histories[:3], targets[:3], losses[:3])
    assert np.array_equal(one.predictor.flat_state(), other.predictor.flat_state())
    assert one.update(histories, targets, torch.full((8,), NAN)) is None
    assert one.num_updates == 6
    for _ in range(3):
        one.update(torch.full((8, 4), 3e38), targets, torch.full((8,), 3e38))
    assert np.isfinite(one.predictor.flat_state()).all()
    assert all(state["exp_avg_sq"].isfinite().all() for state in one._optimizer.state.values())


def test_a_state_gives_another_predictor_the_same_predictions() -> None:
    training, process = trained(20)
    histories, targets, _ = process.visit(32)
    state = training.predictor.flat_state()
    assert state.nbytes == training.predictor.num_state_bytes
    other = LossPredictor(NUM_CLASSES, seed=99)
    assert not torch.equal(other.predict(histories, targets), training.predictor.predict(histories, targets))
    other.load_flat_state(np.frombuffer(state.tobytes(), dtype="<f4"))
    assert torch.equal(other.predict(histories, targets), training.predictor.predict(histories, targets))
    training.update(*process.visit())
    assert np.array_equal(other.flat_state(), state), "a state is a copy"


@pytest.mark.parametrize("wrong", [np.zeros(3), np.full(1, NAN), np.zeros((2, 2))], ids=["short", "NaN", "shape"])
def test_a_state_of_another_model_is_refused(wrong: np.ndarray) -> None:
    predictor = LossPredictor(NUM_CLASSES, seed=0)
    state = predictor.flat_state()
    if wrong.shape == (1,):
        wrong = np.concatenate([state[:-1], wrong])
    with pytest.raises(ValueError, match=f"{len(state)} finite parameters"):
        predictor.load_flat_state(wrong)
    assert np.array_equal(predictor.flat_state(), state)


def test_equal_seeds_learn_equal_parameters_and_the_global_generator_stays() -> None:
    before = torch.random.get_rng_state()
    states = [trained(10, seed)[0].predictor.flat_state() for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])
