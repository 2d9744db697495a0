"""Means between two log lines: of uniform candidates and of selected samples."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.batch import Batch, Origin
from trainer.curves import SelectedSamples, UniformCandidates

NAN = float("nan")


def batch(
    *, origin: Origin = "stale", margins: list[float] | None = None, worth: float = NAN, ids: range = range(4)
) -> Batch:
    ones = torch.ones(len(ids))
    made = Batch(ones, ones.long(), ones, np.array(ids), 0, origin, effective_size=worth)
    return replace(made, margins=torch.tensor([] if margins is None else margins))


def nobody(ids: np.ndarray) -> None:
    return None


def test_the_mean_margin_is_that_of_the_ten_smallest_of_each_batch() -> None:
    selected = SelectedSamples(nobody)
    selected.add(batch(margins=[float(value) for value in (*range(30, 10, -1), 5)]))
    assert selected.take() == {"selection/mean_margin": pytest.approx((5 + sum(range(11, 20))) / 10)}
    selected.add(batch(margins=[1.0, 3.0, NAN]))
    assert selected.take() == {"selection/mean_margin": 2.0}, "of those whose margin is known, be they few"


def test_the_mean_margin_averages_batches_and_starts_anew() -> None:
    selected = SelectedSamples(nobody)
    selected.add(batch(margins=[2.0] * 12))
    selected.add(batch(margins=[4.0] * 3))
    assert selected.take() == {"selection/mean_margin": 3.0}
    assert selected.take() == {}


def test_only_selected_batches_count() -> None:
    selected = SelectedSamples(lambda ids: ids < 2)
    for origin in ("plain", "fallback"):
        selected.add(batch(origin=origin, margins=[1.0], worth=4.0))
    assert selected.take() == {}
    for origin in ("fresh", "stale", "reused"):
        selected.add(batch(origin=origin, margins=[1.0], worth=4.0))
        assert selected.take() == {
            "selection/mean_margin": 1.0, "selection/effective_size": 4.0, "selection/noisy_fraction": 0.5
        }  # fmt: skip


def test_margins_that_nobody_knows_make_no_curve() -> None:
    selected = SelectedSamples(nobody)
    selected.add(batch(margins=[NAN] * 4))
    selected.add(batch(margins=[]))
    assert selected.take() == {}


def test_the_effective_size_is_averaged_over_batches() -> None:
    selected = SelectedSamples(nobody)
    for worth in (4.0, 1.6, NAN):
        selected.add(batch(worth=worth))
    assert selected.take() == {"selection/effective_size": pytest.approx(2.8)}


@pytest.mark.parametrize("num", [3, 16, 40])
def test_means_go_on_in_another_life_from_wherever_they_were(num: int) -> None:
    worths = [float(value) for value in range(num + 5)]
    whole, first, second = SelectedSamples(nobody), SelectedSamples(nobody), SelectedSamples(nobody)
    for index, worth in enumerate(worths):
        whole.add(batch(worth=worth))
        (first if index < num else second).add(batch(worth=worth))
        if index == num - 1:
            second.load_state_dict(first.state_dict())
    assert second.take() == whole.take() == {"selection/effective_size": pytest.approx(sum(worths) / len(worths))}


def test_the_noisy_share_is_over_samples_and_absent_where_nobody_knows() -> None:
    known = SelectedSamples(lambda ids: ids < 3)
    known.add(batch(ids=range(4)))
    known.add(batch(ids=range(2, 10)))
    assert known.take() == {"selection/noisy_fraction": pytest.approx((3 + 1) / 12)}
    unknown = SelectedSamples(nobody)
    unknown.add(batch())
    assert unknown.take() == {}


def test_no_noisy_sample_is_a_share_of_zero_and_not_an_absent_curve() -> None:
    selected = SelectedSamples(lambda ids: np.zeros(len(ids), dtype=bool))
    selected.add(batch())
    assert selected.take() == {"selection/noisy_fraction": 0.0}


def test_uniform_candidates_are_averaged_by_their_numbers() -> None:
    uniform = UniformCandidates()
    uniform.add(10, 2.0, 0.5, 3.0)
    uniform.add(30, 1.0, 0.9, 1.0)
    assert uniform.take() == {
        "loss/uniform": pytest.approx(1.25),
        "accuracy/uniform": pytest.approx(0.8),
        "selection/tau": pytest.approx(1.5),
    }
    assert uniform.take() == {}


def test_what_is_unknown_of_some_candidates_does_not_count() -> None:
    uniform = UniformCandidates()
    uniform.add(10, 2.0, None, None)
    uniform.add(10, NAN, NAN, NAN)
    uniform.add(0, 7.0, 0.0, 1.0)
    uniform.add(30, math.inf, 0.5, 2.0)
    assert uniform.take() == {"loss/uniform": 2.0, "accuracy/uniform": 0.5, "selection/tau": 2.0}
