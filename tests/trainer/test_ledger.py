"""The ledger: which visits need a forward, what is counted, what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from common.order import Order
from tests.trainer.visits import array, visit
from trainer.ledger import FIELDS, NEVER, Ledger


def slow_plan(visits: list[int], max_age: int, first_ages: dict[int, int]) -> list[bool]:
    """The rule, one visit at a time, where every forward gives a loss."""
    ages: dict[int, int] = {}
    needed = []
    for sample in visits:
        if sample not in ages:
            ages[sample] = first_ages[sample]
            needed.append(True)
        else:
            needed.append(ages[sample] + 1 >= max_age)
            ages[sample] = 0 if needed[-1] else ages[sample] + 1
    return needed


# -- which visits need a forward --------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_age", [1, 2, 3, 7, 250])
def test_after_its_first_forward_a_sample_needs_every_nth_visit(max_age: int) -> None:
    ledger = Ledger(1000, ("age",), seed=4)
    ids = np.arange(1000)
    plans = np.stack([ledger.plan_visit(ids, max_age) for _ in range(3 * max_age + 1)])
    assert plans[0].all()
    second = plans[1:].argmax(axis=0)
    assert second.max() < max_age
    assert set(second) == set(range(max_age)), "all offsets occur"
    for sample in ids:
        expected = (np.arange(3 * max_age) - second[sample]) % max_age == 0
        assert (plans[1:, sample] == expected).all(), sample


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 4, 6, 10])
@pytest.mark.parametrize("num_samples", [2900, 3000, 3001])
def test_with_n_3_a_third_of_the_visits_after_the_first_epoch_need_a_forward(num_samples: int, num_epochs: int) -> None:
    ledger, chunk = Ledger(num_samples, ("loss", "age"), seed=num_epochs), 128
    num_chunks = -(-num_samples * (num_epochs + 1) // chunk)
    plans = visit(ledger, Order(num_samples, 5, "candidates"), 0, num_chunks, max_age=3, chunk=chunk)
    assert plans[:num_samples].all()
    later = plans[num_samples : num_samples * (num_epochs + 1)].reshape(num_epochs, num_samples)
    assert later.mean() == pytest.approx(1 / 3, rel=0.02)
    assert np.abs(later.sum(axis=1) - num_samples / 3).max() <= 5, "each epoch has its share"


@pytest.mark.parametrize("late", [1, 20, 40])
def test_forwards_stay_spread_when_results_come_late(late: int) -> None:
    """In a small data set the second visits are planned while the first results are still on their way."""
    num_samples, num_epochs, chunk = 3000, 8, 128
    ledger, order = Ledger(num_samples, ("loss", "age")), Order(3000, 5, "candidates")
    plans, out = [], []
    for start in range(0, num_epochs * num_samples, chunk):
        ids = order.ids(np.arange(start, start + chunk))
        plans.append(ledger.plan_visit(ids, 3))
        out.append(ids[plans[-1]])
        if len(out) > late:
            answered = out.pop(0)
            ledger.scored(answered, losses=np.ones(len(answered)))
    shares = np.concatenate(plans)[: num_epochs * num_samples].reshape(num_epochs, num_samples).mean(axis=1)
    assert shares[3:] == pytest.approx(np.full(num_epochs - 3, 1 / 3), abs=0.03)


@pytest.mark.parametrize("part", range(4))
def test_a_chunk_of_a_later_epoch_needs_about_its_share(part: int) -> None:
    ledger, order = Ledger(4096, ("age",)), Order(4096, 1, "candidates")
    visit(ledger, order, 0, 4, max_age=4, chunk=1024)
    share = visit(ledger, order, 4 + part, 5 + part, max_age=4, chunk=1024).mean()
    assert share == pytest.approx(1 / 4, abs=0.05)


def test_first_ages_depend_on_the_seed_and_not_on_the_order_of_visits() -> None:
    ids = np.arange(500)
    ages = []
    for seed, order in ((0, ids), (0, ids[::-1]), (1, ids)):
        ledger = Ledger(500, ("age",), seed=seed)
        ledger.plan_visit(order, 5)
        ages.append(ledger.age.copy())
    assert (ages[0] == ages[1]).all()
    assert (ages[0] != ages[2]).any()
    assert (np.bincount(ages[0]) == 100).all()


def test_an_unknown_loss_needs_a_forward_at_the_next_visit_where_losses_are_kept() -> None:
    ids = array(3, 4)
    ledger = Ledger(10, ("loss", "age"))
    assert ledger.plan_visit(ids, 200).all()
    assert ledger.plan_visit(ids, 200).all(), "no result came"
    ledger.scored(ids, losses=array(0.5, np.nan))
    assert ledger.plan_visit(ids, 200).tolist() == [False, True]
    ledger.trained(array(4), array(1.5))
    assert ledger.plan_visit(ids, 200).tolist() == [False, False], "a training loss is a loss"

    without = Ledger(10, ("age",))
    assert without.plan_visit(ids, 200).all()
    assert not without.plan_visit(ids, 200).any()


def test_training_refreshes_the_loss_and_not_the_age() -> None:
    ledger, ids = Ledger(8, ("loss", "age")), np.arange(8)
    ledger.plan_visit(ids, 4)
    ledger.scored(ids, losses=np.ones(8))
    before = ledger.age.copy()
    ledger.trained(array(1, 2, 3), array(5.0, np.nan, 7.0))
    assert (ledger.age == before).all()
    assert ledger.losses_of(array(0, 1, 2, 3)).tolist() == [1, 5, 1, 7]


def test_a_repeated_id_is_visited_repeatedly() -> None:
    rng = np.random.default_rng(0)
    for fields in (("age",), ("age", "loss")):
        ledger = Ledger(40, fields)
        first_ages = Ledger(40, ("age",))
        first_ages.plan_visit(np.arange(40), 3)
        visits: list[int] = []
        plans: list[bool] = []
        if "loss" in fields:
            ledger.loss[:] = 1
        for num in (1, 7, 64, 0, 300):
            ids = rng.integers(0, 40, num)
            visits += ids.tolist()
            plans += ledger.plan_visit(ids, 3).tolist()
        assert plans == slow_plan(visits, 3, dict(enumerate(first_ages.age.tolist())))


def test_a_smaller_max_age_holds_from_the_next_visit_on() -> None:
    ledger, ids = Ledger(300, ("age",)), np.arange(300)
    for _ in range(100):
        ledger.plan_visit(ids, 250)
    old = ledger.age >= 9
    assert old.any()
    assert ledger.plan_visit(ids, 10)[old].all()
    assert ledger.age.max() <= 9


# -- what is counted --------------------------------------------------------------------------------------------------


def test_visits_and_selections_are_counted_with_their_repeats() -> None:
    ledger = Ledger(6, ("seen", "selected"))
    ledger.visited(array(1, 1, 5))
    ledger.visited(array(1, 0))
    ledger.trained(array(5, 5, 2), array(1.0, 2.0, 3.0))
    assert ledger.seen.tolist() == [1, 3, 0, 0, 0, 1]
    assert ledger.selected.tolist() == [0, 0, 1, 0, 0, 2]


def test_results_are_remembered_and_nan_forgets_them() -> None:
    ledger = Ledger(4, ("loss", "score"))
    assert np.isnan(ledger.losses_of(np.arange(4))).all()
    ledger.scored(array(0, 2), losses=array(0.25, 4.0), scores=array(1.0, -2.0))
    ledger.scored(array(2), scores=array(np.nan))
    np.testing.assert_array_equal(ledger.loss, array(0.25, np.nan, 4.0, np.nan))
    np.testing.assert_array_equal(ledger.score, array(1.0, np.nan, np.nan, np.nan))
    ledger.scored(array(0), losses=array(np.nan))
    np.testing.assert_array_equal(copy := ledger.losses_of(array(2, 0)), array(4.0, np.nan))
    copy[:] = 9
    assert ledger.loss[2] == 4


def test_the_last_known_loss_of_a_repeated_id_stays() -> None:
    ledger = Ledger(4, ("loss",))
    ledger.trained(array(2, 2, 2), array(1.0, 3.0, np.nan))
    assert ledger.losses_of(array(2)).tolist() == [3]


@pytest.mark.parametrize(("fields", "bytes_per_sample"), [(FIELDS, 17), (("age", "loss"), 5), (("seen",), 4), ((), 0)])
def test_memory_is_what_the_fields_asked_for_take(fields: tuple[str, ...], bytes_per_sample: int) -> None:
    ledger = Ledger(1003, fields)
    assert ledger.nbytes == 1003 * bytes_per_sample <= 1003 * 24
    assert set(ledger.fields) == set(fields)
    arrays = {name: getattr(ledger, name) for name in FIELDS}
    assert [name for name in FIELDS if arrays[name] is not None] == list(ledger.fields)
    assert sum(kept.nbytes for kept in arrays.values() if kept is not None) == ledger.nbytes


def test_news_for_fields_that_are_not_kept_are_ignored() -> None:
    ledger = Ledger(4, ("age",))
    ledger.scored(array(1), losses=array(1.0), scores=array(2.0))
    ledger.trained(array(1), array(1.0))
    ledger.visited(array(1))
    assert ledger.age.tolist() == [NEVER] * 4


# -- errors -----------------------------------------------------------------------------------------------------------

EVERY_CALL: list[Callable[[Ledger, np.ndarray], object]] = [
    lambda ledger, ids: ledger.plan_visit(ids, 3),
    lambda ledger, ids: ledger.scored(ids, losses=np.ones(len(ids)), scores=np.ones(len(ids))),
    lambda ledger, ids: ledger.visited(ids),
    lambda ledger, ids: ledger.trained(ids, np.ones(len(ids))),
    lambda ledger, ids: ledger.losses_of(ids),
]


@pytest.mark.parametrize("call", EVERY_CALL)
@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (array(0, -1), IndexError),
        (array(0, 9), IndexError),
        (array(0.0, 1.0), ValueError),
        (np.array([0, 1], dtype=np.int32), ValueError),
        (np.array([[0, 1]]), ValueError),
    ],
)
def test_ids_that_are_none_are_refused_and_change_nothing(
    call: Callable[[Ledger, np.ndarray], object], ids: np.ndarray, error: type[Exception]
) -> None:
    ledger = Ledger(9, FIELDS)
    before = ledger.state_dict()
    with pytest.raises(error, match="sample ids must be"):
        call(ledger, ids)
    torch.testing.assert_close(ledger.state_dict(), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("call", EVERY_CALL)
def test_no_ids_are_no_news(call: Callable[[Ledger, np.ndarray], object]) -> None:
    ledger = Ledger(9, FIELDS)
    before = ledger.state_dict()
    call(ledger, np.arange(0))
    torch.testing.assert_close(ledger.state_dict(), before, rtol=0, atol=0, equal_nan=True)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="at least one sample, got 0"):
        Ledger(0, FIELDS)
    with pytest.raises(ValueError, match=r"unknown ledger fields \['grade'\]; there are loss, score"):
        Ledger(3, ("loss", "grade"))
    ledger = Ledger(3, ("loss", "age", "selected"))
    for max_age in (0, 251):
        with pytest.raises(ValueError, match=f"from 1 to 250 visits, got {max_age}"):
            ledger.plan_visit(array(0), max_age)
    with pytest.raises(ValueError, match=r"losses must be \(2,\), one for each id, got \(1,\)"):
        ledger.trained(array(0, 1), array(1.0))
    assert ledger.selected.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="the field 'age'"):
        Ledger(3, ("loss",)).plan_visit(array(0), 3)
    with pytest.raises(ValueError, match="the field 'loss'"):
        Ledger(3, ("age",)).losses_of(array(0))
