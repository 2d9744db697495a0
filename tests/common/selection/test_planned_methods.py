"""Methods that draw from what is known of all samples: rank and infobatch, with the numbers of their formulas."""

import math

import pytest
import torch

from tests.common.selection.offers import Way, make, numbers, offer_of
from tests.common.selection.strategies import keyed

NAN = float("nan")


@pytest.mark.parametrize(("progress", "pressure"), [(0.0, 100.0), (0.5, 10.0), (1.0, 1.0)])
def test_the_example_of_ranks_and_its_decay(progress, pressure):
    method = make("rank", num_samples=4, batch_size=2, steps=20)
    selection = method.select(offer_of(Way("rank"), numbers(1, 4, 3, 2), progress=progress), 4, keyed(0))
    by_rank = {100.0: [0.690679, 0.218412, 0.069068, 0.021841], 1.0: [0.25] * 4}
    by_rank[10.0] = [10 ** (-i / 4) / sum(10 ** (-j / 4) for j in range(1, 5)) for i in range(1, 5)]
    probability = dict(zip(selection.indices.tolist(), selection.probability.tolist(), strict=True))
    assert [probability[i] for i in (1, 2, 3, 0)] == pytest.approx(by_rank[pressure], abs=1e-6)
    assert method.figures()["pressure"] == pytest.approx(pressure)
    assert selection.weights.tolist() == [1] * 4


@pytest.mark.parametrize("unknown", [NAN, float("inf")])
def test_unknown_losses_rank_with_the_highest(unknown):
    offer = offer_of(Way("rank"), numbers(1, unknown, 3, unknown))
    selection = make("rank", num_samples=4).select(offer, 4, keyed(0))
    probability = dict(zip(selection.indices.tolist(), selection.probability.tolist(), strict=True))
    assert sorted(probability, key=probability.get) == [0, 3, 2, 1]


def most_likely(method, losses_N, step, *, num=40, taken=None):
    offer = offer_of(Way("rank"), losses_N, progress=step / 100, taken=taken)
    selection = method.select(offer, num, keyed(0))
    return int(selection.indices[selection.probability.argmax()])


def test_ranks_are_renewed_ten_times_an_epoch():
    method = make("rank", num_samples=40, batch_size=2, steps=100)  # every second step
    losses_N = torch.arange(40.0)
    first = method.select(offer_of(Way("rank"), losses_N), 40, keyed(0)).probability.sum()
    assert float(first) == pytest.approx(1, abs=1e-5)
    assert [most_likely(method, -losses_N, step) for step in (1, 2, 3)] == [39, 0, 0]
    assert [most_likely(method, losses_N, step) for step in (3, 7, 8, 9)] == [0, 39, 39, 39]


def test_further_draws_of_a_step_neither_renew_the_ranks_nor_change_the_pressure():
    often, once = (make("rank", num_samples=40, batch_size=2, steps=100) for _ in range(2))
    losses_N, taken = torch.arange(40.0), torch.arange(40) == 39
    most_likely(once, losses_N, 50)
    for _ in range(2):
        most_likely(often, losses_N, 50, num=2, taken=taken)
    assert often.figures() == once.figures()
    for step, expected in [(51, 39), (52, 0)]:
        assert most_likely(often, -losses_N, step) == most_likely(once, -losses_N, step) == expected


def test_infobatch_keeps_a_share_below_the_mean_and_weighs_it_up():
    losses_N = torch.cat([torch.full((4000,), 1.0), torch.full((1000,), 6.0)])  # mean 2
    method = make("infobatch", num_samples=5000, keep=0.25)
    selection = method.select(offer_of(Way("infobatch"), losses_N), 1, keyed(0))
    num_kept = round(method.figures()["kept_fraction"] * 5000)
    assert abs(num_kept - 2000) <= 5.5 * math.sqrt(4000 * 0.25 * 0.75)
    rest = method.select(offer_of(Way("infobatch"), losses_N), num_kept - 1, keyed(1))
    ids, weights = torch.cat([selection.indices, rest.indices]), torch.cat([selection.weights, rest.weights])
    assert len(ids.unique()) == num_kept
    assert torch.equal(weights, torch.where(ids < 4000, 4.0, 1.0))
    assert torch.equal(torch.cat([selection.probability, rest.probability]), 1 / weights)
    assert set(range(4000, 5000)) <= set(ids.tolist())
    assert rest.indices.tolist() != sorted(rest.indices.tolist())


@pytest.mark.parametrize("unknown", [NAN, float("inf")])
def test_infobatch_takes_3_for_a_loss_that_it_does_not_know(unknown):
    for known, weights in [(5.0, {2.0}), (1.0, {1.0})]:
        losses_N = torch.full((100,), known)
        losses_N[:50] = unknown
        selection = make("infobatch", num_samples=100, keep=0.5).select(
            offer_of(Way("infobatch"), losses_N), 40, keyed(0)
        )
        of_unknown = selection.weights[selection.indices < 50]
        assert set(of_unknown.tolist()) == weights


def test_annealing_resets_all_weights_in_the_middle_of_an_epoch():
    way, losses_N = Way("infobatch"), torch.arange(100.0)
    method = make(way.name, num_samples=100, keep=0.5)

    def weights(num, progress):
        offer = offer_of(way, losses_N, progress=progress)
        return set(method.select(offer, num, keyed(0)).weights.tolist())

    assert weights(20, 0.0) == {1, 2}
    assert weights(20, 0.8749) == {1, 2}
    assert weights(10, 0.875) == {1}
    assert weights(10, 0.9) == {1}
    left = len(method.state_dict()["ids"])
    assert 0 < left < 30
    selection = method.select(offer_of(way, losses_N, progress=0.95), left + 100, keyed(0))
    assert sorted(selection.indices[left:].tolist()) == list(range(100))  # and nothing is pruned any more
    assert set(selection.weights.tolist()) == {1}
