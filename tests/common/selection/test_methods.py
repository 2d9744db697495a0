"""The registry, and the numbers of the papers' formulas as each method gives them."""

import typing
from fractions import Fraction

import pytest
import torch
from pydantic import ValidationError

from common.config import SelectionOptions, TrainerOptions
from common.scoring import SCORES
from common.selection.compose import Composed
from common.selection.method import Offer, Setting
from common.selection.methods import load_method
from common.selection.registry import METHODS, Kind
from common.selection.scores import cross_entropy_score, entropy_score, minimal_margin_score
from common.selection.select import diverse
from tests import reference_select
from tests.common.selection.offers import Way, make, numbers, offer_of
from tests.common.selection.strategies import keyed, uniforms
from trainer.ledger import FIELDS

NAN = float("nan")


# -- the registry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_each_line_of_the_registry_names_a_method_and_things_that_exist(name):
    entry, method = METHODS[name], make(name)
    assert set(method.scores) <= {*SCORES, "predicted-loss"}
    assert set(entry.parameters) <= set(SelectionOptions.model_fields)
    assert set(entry.ledger) <= set(FIELDS)
    assert entry.kind in typing.get_args(Kind)
    assert isinstance(method.lowest_is_hard, bool)
    assert entry.needs_scorer or not method.scores or entry.ledger
    assert entry.backend == ("predictor" if "predicted-loss" in method.scores else "torch")
    assert not (entry.kind == "planned" or entry.reuses_scores) or "loss" in entry.ledger


def test_method_accepts_the_names_of_the_registry_and_no_other(tmp_path):
    for name in METHODS:
        table = tmp_path if name == "rho-loss" else None
        assert TrainerOptions(method=name, irreducible=table).entry is METHODS[name]
    with pytest.raises(ValidationError, match="nearest: loss"):
        TrainerOptions(method="los")


def test_the_registry_holds_the_methods_that_are_documented():
    assert {name: entry.candidates_per_selected for name, entry in METHODS.items() if entry.kind == "pool"} == (
        {"uniform": 1, "gradient-norm": 3, "cdf-loss": 8, "cdf-gradnorm": 8}
        | dict.fromkeys(["mms", "loss", "loss-balanced", "entropy", "biased-importance", "rho-loss", "divbs"], 10)
    )
    assert {name: entry.kind for name, entry in METHODS.items() if entry.kind != "pool"} == {
        "selective-backprop": "stream",
        "stale-selective-backprop": "stream",
        "rank": "planned",
        "infobatch": "planned",
    }


# -- the hardest ------------------------------------------------------------------------------------------------------

WEIGHT = numbers(1, 0, 0, 1, -1, -1).reshape(3, 2)
FEATURES = numbers(2, 1, 3, -1, -0.75, -0.375, 0.2, 0.1, -2, 1, 0, 0).reshape(6, 2)
TARGETS = torch.tensor([0, 1, 2, 1, 2, 0])


def test_the_example_of_the_minimal_margin_paper():
    logits_BC = FEATURES @ WEIGHT.T
    scores = {
        "mms": minimal_margin_score(logits_BC, WEIGHT),
        "loss": cross_entropy_score(logits_BC, TARGETS),
        "entropy": entropy_score(logits_BC),
    }
    torch.testing.assert_close(scores["mms"], numbers(0.707107, 2.828427, 0.670820, 0.070711, 0, 0), atol=1e-6, rtol=0)
    offer = Offer(scores, torch.arange(6))
    assert make("mms").select(offer, 4, keyed(0)).indices.tolist() == [4, 5, 3, 2]
    assert make("loss").select(offer, 4, keyed(0)).indices.tolist() == [1, 5, 3, 4]
    assert make("entropy").select(offer, 2, keyed(0)).indices.tolist() == [5, 3]
    assert make("mms").select(offer, 4, keyed(0)).weights.tolist() == [1, 1, 1, 1]


def test_rho_loss_subtracts_the_table_by_id():
    table = numbers(0, 0.5, 5, 0)
    method = load_method("rho-loss", Setting(4, 3, 2, 10, {}, table))
    offer = Offer({"loss": numbers(6, 3, 2, 1)}, torch.tensor([2, 1, 3, 0]))  # excess 1, 2.5, 2, 1
    assert method.select(offer, 3, keyed(0)).indices.tolist() == [1, 2, 0]


@pytest.mark.parametrize("epoch", [0, 2, 4, 9, 30])
def test_the_balanced_hard_share_grows_by_a_tenth_each_epoch(epoch):
    losses_B = torch.rand(40, generator=keyed(1))
    offer = offer_of(Way("loss-balanced"), losses_B, epoch=epoch)
    generator = keyed(7)
    order = torch.randperm(3, generator=generator).tolist()
    hard = min(Fraction(1), Fraction(epoch + 1, 10))
    uniforms_B = torch.rand(40, generator=generator, dtype=torch.float64)
    expected = reference_select.class_balanced_hardest(losses_B, offer.targets, 10, hard, order, uniforms_B)
    assert make("loss-balanced").select(offer, 10, keyed(7)).indices.tolist() == expected.tolist()


def test_divbs_equals_the_greedy_choice_on_outer_products():
    errors_BC, features_BD = (torch.randn(20, size, generator=keyed(size)).half() for size in (3, 5))
    losses_B = torch.ones(20)
    losses_B[4], features_BD[9, 0] = NAN, torch.inf
    gradients_BK = (errors_BC.float()[:, :, None] * features_BD.float()[:, None, :]).flatten(1)
    gradients_BK[4] = NAN
    offer = Offer({"loss": losses_B}, torch.arange(20), errors=errors_BC, features=features_BD)
    chosen = make("divbs").select(offer, 8, keyed(0)).indices
    assert chosen.tolist() == diverse(gradients_BK, 8).tolist()
    assert not {4, 9} & set(chosen.tolist())


# -- by chance --------------------------------------------------------------------------------------------------------


def until(condition, method, offer, num):
    """The first selection of a keyed row of them that meets a condition."""
    for seed in range(500):
        selection = method.select(offer, num, keyed(seed))
        if condition(selection.indices.tolist()):
            return selection
    raise AssertionError("never drawn")


@pytest.mark.parametrize(("power", "expected"), [(1.0, [2.5, 0.625]), (0.5, [1.666667, 0.833333]), (0.0, [1, 1])])
def test_the_example_of_biased_weights(power, expected):
    offer = offer_of(Way("biased-importance"), numbers(1, 2, 3, 4))
    selection = until([0, 3].__eq__, make("biased-importance", bias_power=power), offer, 2)
    torch.testing.assert_close(selection.weights, numbers(*expected), atol=1e-6, rtol=0)
    torch.testing.assert_close(selection.probability, numbers(0.1, 0.4))


def test_predictions_are_floored_and_a_temperature_floors_both_probability_and_weight():
    offer = offer_of(Way("biased-importance"), numbers(-1, 0, 1e-7, 1e-6))
    selection = make("biased-importance", bias_power=1.0).select(offer, 4, keyed(0))
    assert selection.probability.tolist() == [0.25] * 4
    assert selection.weights.tolist() == [1] * 4
    offer = offer_of(Way("biased-importance"), numbers(0, *[0] * 98, 1))  # 1e-6 of the largest, not its square
    method = make("biased-importance", bias_power=1.0, temperature=0.5)
    probability = numbers(*[1e-6] * 99, 1) / (1 + 99e-6)
    selection = method.select(offer, 4, keyed(0))
    torch.testing.assert_close(selection.probability, probability[selection.indices])
    torch.testing.assert_close(selection.weights, 1 / (100 * probability[selection.indices]))


def test_tau_is_a_moving_average_from_0_of_values_between_1_and_the_root_of_n():
    for bounds_B, tau in [(torch.ones(16), 1.0), (torch.eye(16)[3], 4.0), (torch.zeros(16), 1.0)]:
        method, offer = make("gradient-norm"), offer_of(Way("gradient-norm"), bounds_B)
        assert method.figures()["tau_smoothed"] == 0
        for num_seen in range(1, 4):
            method.observe(offer)
            assert method.figures()["tau_smoothed"] == pytest.approx(tau * (1 - 0.9**num_seen))


@pytest.mark.parametrize("uniform_fraction", [0.0, 0.5])
def test_importance_begins_when_tau_exceeds_the_threshold_of_the_whole_step(uniform_fraction):
    """B = 24, b = 4: (B + 3b)/(3b) = 3. √24·(1 - .9^m) exceeds it with the ninth offer; 2.790 is the eighth."""
    inner = make("gradient-norm", batch_size=4)
    method = Composed(inner, uniform_fraction=uniform_fraction)
    offer = offer_of(Way("gradient-norm"), torch.eye(24)[20])
    sampled = []
    for _ in range(10):
        method.observe(offer)
        sampled.append(20 in method.select(offer, 4, keyed(0)).indices)
    assert sampled == [False] * 8 + [True] * 2


def test_the_threshold_of_tau_can_be_set():
    method = make("gradient-norm", tau_threshold=1.5, tau_smoothing=0.0)
    for high, expected in [(1.0, [0, 1]), (1e6, [3, 3]), (1.0, [0, 1])]:
        offer = offer_of(Way("gradient-norm"), numbers(1, 1, 1, high))
        method.observe(offer)
        assert method.select(offer, 2, keyed(0)).indices.tolist() == expected


@pytest.mark.parametrize(("beta", "expected"), [(1.0, [1 / 3, 5 / 6]), (2.0, [1 / 9, 25 / 36])])
def test_the_example_of_percentiles(beta, expected):
    way = Way("selective-backprop")
    method = make(way.name, beta=beta)
    method.observe(offer_of(way, numbers(0.1, 0.2, 0.3, 0.4)))
    offer = offer_of(way, numbers(0.25, 0.5))
    method.observe(offer)  # the batch's own losses are in the history before its coins are tossed
    assert until([0, 1].__eq__, method, offer, 2).probability.tolist() == pytest.approx(expected)


def test_the_history_forgets_the_oldest_losses():
    way = Way("selective-backprop")
    method = make(way.name, history=4)
    for row in (numbers(5, 5, 5), numbers(1, 2), numbers(3, 4)):
        method.observe(offer_of(way, row))
    assert method.state_dict()["history"].tolist() == [1, 2, 3, 4]
    assert until([0].__eq__, method, offer_of(way, numbers(3.5)), 1).probability.tolist() == [0.75]
    assert len(_after(make(way.name), offer_of(way, torch.rand(3000))).state_dict()["history"]) == 1024


def _after(method, offer):
    method.observe(offer)
    return method


def test_the_first_epoch_trains_on_everything():
    way = Way("selective-backprop", epoch=0)
    offer = offer_of(way, numbers(0.1, 0.1, NAN, 9))
    selection = _after(way.make(), offer).select(offer, 2, keyed(0))
    assert selection.indices.tolist() == [0, 1, 3]
    assert selection.probability.tolist() == [1, 1, 1]


def test_the_cdf_switches_once_when_the_smoothed_loss_is_below_its_share_of_the_first_ten():
    """Ten offers of mean loss 4, then 1: 1 + 3·.9^m is below half of 4 with the eleventh of them."""
    way = Way("cdf-loss")
    method = make(way.name, switch_share=0.5)
    switched = []
    for loss in [8.0, 0.0] * 5 + [1.0] * 12 + [1000.0] * 3:
        method.observe(offer_of(way, numbers(loss, NAN, loss)))
        switched.append(method.figures()["switched"])
    assert switched == [0.0] * 20 + [1.0] * 5
    offer = offer_of(way, numbers(1, 5, NAN, 3))
    expected = reference_select.inverse_cdf(offer.scores["loss"], uniforms(3, 5))
    selection = method.select(offer, 3, keyed(5))
    assert selection.indices.tolist() == expected.tolist()
    assert selection.weights.tolist() == [1, 1, 1]


def test_the_cdf_of_gradient_norms_switches_by_the_loss_and_draws_by_the_norm():
    method = make("cdf-gradnorm")
    bounds_B, losses_B = numbers(0, 1, 0, 0), numbers(1, 0, 9, 9)
    for scale in [1.0] * 10 + [0.0] * 20:
        method.observe(Offer({"gradient-norm": bounds_B, "loss": scale * losses_B}, torch.arange(4)))
    offer = Offer({"gradient-norm": bounds_B, "loss": losses_B}, torch.arange(4))
    assert method.select(offer, 3, keyed(0)).indices.tolist() == [1, 1, 1]
    half_dropped = Offer({"gradient-norm": numbers(1, 9, 1, 1), "loss": numbers(1, NAN, 1, 1)}, torch.arange(4))
    assert 1 not in method.select(half_dropped, 3, keyed(0)).indices
