"""The order of samples is a shuffled bijection in every epoch, and keyed numbers are uniform and independent."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.order import Order, held_out_mask, integers_below, keyed_uint64


def epoch_ids(order: Order, epoch: int) -> np.ndarray:
    return order.ids(np.arange(order.num_samples) + epoch * order.num_samples)


@settings(deadline=None, max_examples=80)
@given(
    num=st.one_of(st.integers(1, 40), st.integers(1, 5000)),
    seed=st.integers(-(2**63), 2**64),
    epoch=st.integers(0, 10**6),
)
def test_every_epoch_visits_every_sample_once(num: int, seed: int, epoch: int) -> None:
    ids = epoch_ids(Order(num, seed, "candidates"), epoch)
    np.testing.assert_array_equal(np.sort(ids), np.arange(num))


@settings(deadline=None)
@given(num=st.integers(1, 2**62), start=st.integers(0, 2**40))
def test_ids_of_any_size_of_data_are_in_range_and_do_not_repeat_within_an_epoch(num: int, start: int) -> None:
    order = Order(num, 1, "plain")
    positions = np.arange(start, start + 300)
    ids, epochs = order.ids(positions), order.epochs(positions)
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < num
    assert len(set(zip(epochs.tolist(), ids.tolist(), strict=True))) == 300


def test_the_id_at_a_position_does_not_depend_on_what_else_is_asked_for() -> None:
    order = Order(1437, 7, "candidates")
    positions = np.random.default_rng(0).permutation(6 * 1437)[:2000]
    together = order.ids(positions)
    alone = [order.ids(np.array([position]))[0] for position in positions[:200]]
    np.testing.assert_array_equal(together[:200], alone)


def test_a_lease_that_crosses_epochs_continues_in_the_next_one() -> None:
    order = Order(100, 0, "candidates")
    lease = np.arange(60, 360)
    expected = np.concatenate([epoch_ids(order, epoch) for epoch in range(4)])[60:360]
    np.testing.assert_array_equal(order.ids(lease), expected)
    np.testing.assert_array_equal(order.epochs(lease), lease // 100)


@settings(deadline=None)
@given(num=st.integers(1, 5000), start=st.integers(0, 20_000), length=st.integers(0, 5000))
def test_ids_of_a_run_of_positions_are_those_of_its_positions(num: int, start: int, length: int) -> None:
    order = Order(num, 3, "candidates")
    ids = order.ids_between(start, start + length)
    np.testing.assert_array_equal(ids, order.ids(np.arange(start, start + length)))
    ids += 1  # the caller's own
    np.testing.assert_array_equal(order.ids_between(start, start + length), ids - 1)


def test_epochs_seeds_and_streams_give_different_orders() -> None:
    orders = [epoch_ids(Order(500, 0, "candidates"), epoch) for epoch in range(4)]
    orders += [epoch_ids(Order(500, 1, "candidates"), 0), epoch_ids(Order(500, 0, "plain"), 0)]
    for number, one in enumerate(orders):
        for other in orders[:number]:
            assert (one == other).mean() < 0.02, "two orders should agree in about 1 of 500 places"


@pytest.mark.parametrize("num", [5, 64, 1437])
def test_every_sample_is_equally_likely_at_every_place(num: int) -> None:
    num_epochs, bins = 4000, 5
    positions = np.arange(num_epochs)[:, None] * num + np.linspace(0, num - 1, 5).astype(int)
    ids = Order(num, 3, "candidates").ids(positions.reshape(-1)).reshape(num_epochs, 5)
    expected = np.bincount(np.arange(num) * bins // num, minlength=bins) / num * num_epochs
    for place in range(5):
        counts = np.bincount(ids[:, place] * bins // num, minlength=bins)
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < 23.5, f"place {place}: {counts}"  # p < 1e-4 at four degrees of freedom


def test_neighbours_in_the_order_are_not_neighbours_in_the_data() -> None:
    ids = epoch_ids(Order(50_000, 0, "candidates"), 0)
    assert abs(np.corrcoef(ids[:-1], ids[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(ids, np.arange(50_000))[0, 1]) < 0.02
    assert (np.abs(np.diff(ids)) == 1).sum() < 15, "two are expected by chance"


def test_an_order_of_a_billion_samples_needs_no_memory() -> None:
    tracemalloc.start()
    Order(10**9 + 7, 0, "candidates").ids(np.arange(5 * 10**9, 5 * 10**9 + 1280))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 500_000


def test_order_refuses_no_samples_and_negative_positions() -> None:
    with pytest.raises(ValueError, match="1 to 2"):
        Order(0, 0, "candidates")
    with pytest.raises(ValueError, match=">= 0, got -3"):
        Order(5, 0, "candidates").ids(np.array([4, -3]))
    assert len(Order(5, 0, "candidates").ids(np.array([], dtype=np.int64))) == 0


def test_ids_do_not_change_between_releases() -> None:
    """A resumed run and a scorer of another version go on in the same order: changing these numbers breaks both."""
    assert Order(1437, 0, "candidates").ids(np.arange(4)).tolist() == [216, 1009, 1159, 941]
    assert keyed_uint64(0, "x", 1, 2) == 11611192707791999229


def test_keyed_numbers_are_uniform_and_depend_on_every_argument() -> None:
    numbers = keyed_uint64(0, "test", np.arange(200)[:, None], np.arange(100))
    assert numbers.shape == (200, 100)
    assert len(np.unique(numbers)) == 20_000
    bits = (numbers[..., None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=(0, 1)) - 0.5).max() < 0.02
    assert numbers[1, 2] == keyed_uint64(0, "test", 1, 2)
    others = [keyed_uint64(0, "test", 2, 1), keyed_uint64(1, "test", 1, 2), keyed_uint64(0, "tests", 1, 2)]
    assert numbers[1, 2] not in others


@given(seed=st.integers(-(2**63), 2**64), counters=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=3))
def test_a_single_keyed_number_is_the_one_of_an_array(seed: int, counters: list[int]) -> None:
    arrays = [np.array([counter % 2**64], dtype=np.uint64) for counter in counters]
    assert int(keyed_uint64(seed, "a", *counters)) == int(keyed_uint64(seed, "a", *arrays)[0])


def test_integers_below_a_limit_are_uniform() -> None:
    counts = np.bincount(integers_below(keyed_uint64(0, "die", np.arange(60_000)), 6))
    assert len(counts) == 6
    assert np.abs(counts - 10_000).max() < 400


@pytest.mark.parametrize(
    ("num", "fraction", "expected"), [(1797, 0.2, 360), (100, 0.07, 7), (10, 0, 0), (3, 1.0, 3), (0, 0.5, 0)]
)
def test_held_out_mask_has_the_share_asked_for_rounded_up(num: int, fraction: float, expected: int) -> None:
    assert held_out_mask(num, fraction, "digits").sum() == expected


def test_held_out_mask_depends_on_its_key_and_refuses_a_fraction_past_one() -> None:
    assert (held_out_mask(1000, 0.5, "digits") == held_out_mask(1000, 0.5, "digits")).all()
    assert 400 < (held_out_mask(1000, 0.5, "digits") == held_out_mask(1000, 0.5, "mnist")).sum() < 600
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
        held_out_mask(10, 1.5, "digits")


def test_order_does_not_import_torch() -> None:
    code = "import sys, common.order; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
