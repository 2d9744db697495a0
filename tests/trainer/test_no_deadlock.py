"""Waiting never deadlocks, and every promise about chunks holds: hundreds of simulated runs of any allowed options."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.protocol import Version
from tests.trainer.chunks import GENERATION
from tests.trainer.simulation import CHUNK, Options, Simulation
from trainer.chunks import ScoredChunk
from trainer.leases import LeaseBook, Pace
from trainer.pool import Pool


@st.composite
def any_options(draw: st.DrawFn) -> Options:
    push_every = draw(st.integers(1, 9))
    steps = draw(st.integers(1, 40))
    first_step = draw(st.integers(0, steps))
    return Options(
        steps=steps,
        chunks_per_step=draw(st.integers(1, 5)),
        exact=draw(st.booleans()),
        push_every=push_every,
        max_staleness=push_every - 1 + draw(st.integers(0, 12)),
        leases_per_scorer=draw(st.integers(1, 4)),
        scorers=draw(st.integers(1, 3)),
        first_step=first_step,
        stop_step=draw(st.integers(first_step, steps)),
        deaths=draw(st.integers(0, 6)),
        seed=draw(st.integers(0, 2**32)),
    )


@settings(max_examples=200, deadline=None)
@given(any_options())
def test_waiting_never_deadlocks_and_every_promise_about_chunks_holds(options: Options) -> None:
    simulation = Simulation(options)
    simulation.run()
    starts = [chunk.start for chunk in simulation.used]
    account = simulation.pool.account()
    assert len(set(starts)) == len(starts) == account["consumed"], "no chunk is consumed twice"
    assert all(0 <= staleness <= options.max_staleness for staleness in simulation.staleness)
    if options.exact:
        assert len(starts) == options.chunks_per_step * (options.stop_step - options.first_step)
    if options.stop_step < options.steps:
        assert account["outstanding"] == 0


@settings(max_examples=200, deadline=None)
@given(any_options(), st.integers(1, 4), st.integers(0, 10))
def test_a_stream_never_deadlocks_whatever_it_needs_and_whatever_is_remembered(
    options: Options, appetite: int, remembered: int
) -> None:
    simulation = Simulation(replace(options, kind="stream", appetite=appetite, remembered=remembered))
    simulation.run()
    check_promises(simulation)


@settings(max_examples=100, deadline=None)
@given(any_options(), st.integers(0, 40), st.floats(0, 3), st.integers(0, 10))
def test_a_sweep_never_deadlocks_and_scores_no_more_than_its_rate(
    options: Options, at_once: int, rate: float, remembered: int
) -> None:
    sweep = (1 + at_once, rate)
    simulation = Simulation(replace(options, kind="planned", sweep=sweep, remembered=remembered))
    simulation.run()
    check_promises(simulation)
    assert simulation.book.next_position < sweep[0] + rate * (options.steps + 1) + CHUNK


@settings(max_examples=100, deadline=None)
@given(any_options(), st.integers(1, 10))
def test_remembered_scores_change_nothing_of_the_promises_about_pools(options: Options, remembered: int) -> None:
    simulation = Simulation(replace(options, remembered=remembered))
    simulation.run()
    check_promises(simulation)
    if options.exact:
        assert len(simulation.used) == options.chunks_per_step * (options.stop_step - options.first_step)


def check_promises(simulation: Simulation) -> None:
    options, account = simulation.options, simulation.pool.account()
    starts = [chunk.start for chunk in simulation.used]
    assert len(set(starts)) == len(starts) == account["consumed"], "no chunk is consumed twice"
    assert all(0 <= staleness <= options.max_staleness for staleness in simulation.staleness)
    assert all(chunk.wanted is simulation.planned[chunk.start] for chunk in simulation.used)
    if options.stop_step < options.steps:
        assert account["outstanding"] == 0


@pytest.mark.parametrize("remembered", [0, 5, 9])
@pytest.mark.parametrize("appetite", [1, 3])
def test_a_lockstep_stream_drops_nothing_and_takes_every_chunk_in_order(appetite: int, remembered: int) -> None:
    options = Options(
        steps=60, chunks_per_step=1, exact=True, push_every=1, max_staleness=0, leases_per_scorer=2,
        scorers=1, first_step=3, stop_step=57, deaths=3, seed=5, kind="stream", appetite=appetite,
        remembered=remembered,
    )  # fmt: skip
    simulation = Simulation(options)
    simulation.run()
    needed = sum(1 + (options.seed + step) % appetite for step in range(3, 57))
    assert [chunk.start for chunk in simulation.used] == [CHUNK * index for index in range(needed)]
    assert set(simulation.staleness) == {0}
    assert simulation.pool.account()["dropped"] == 0


@pytest.mark.parametrize("chunks_per_step", [1, 3])
def test_lockstep_uses_every_chunk_in_order_with_the_weights_of_its_own_step(chunks_per_step: int) -> None:
    options = Options(
        steps=30, chunks_per_step=chunks_per_step, exact=True, push_every=1, max_staleness=0, leases_per_scorer=2,
        scorers=1, first_step=3, stop_step=27, deaths=3, seed=5,
    )  # fmt: skip
    simulation = Simulation(options)
    simulation.run()
    assert [chunk.start for chunk in simulation.used] == [CHUNK * index for index in range(24 * chunks_per_step)]
    assert set(simulation.staleness) == {0}


def test_without_deaths_pacing_alone_keeps_almost_every_chunk_fresh_enough() -> None:
    dropped = consumed = 0
    for seed in range(20):
        options = Options(
            steps=200, chunks_per_step=3, exact=True, push_every=8, max_staleness=16, leases_per_scorer=2,
            scorers=2, first_step=0, stop_step=200, deaths=0, seed=seed,
        )  # fmt: skip
        simulation = Simulation(options)
        simulation.run()
        dropped += simulation.pool.account()["dropped"]
        consumed += simulation.pool.account()["consumed"]
    assert dropped <= 0.01 * consumed, f"dropping is an alarm and not a control: {dropped} of {consumed}"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_account_balances_under_any_sequence_of_calls(data: st.DataObject) -> None:
    """Issue, answer, expire, take, drop and finish in any order, with wrong answers among them."""
    cps = data.draw(st.integers(1, 3))
    some_remembered = data.draw(st.booleans())

    def plan_visit(start: int, stop: int) -> np.ndarray | None:
        return np.arange(start, stop) % 12 > 5 if some_remembered else None  # of each third chunk nothing, or half

    book = LeaseBook(CHUNK, Pace(cps, 3, 1, 0, 10**6), plan_visit)
    pool = Pool(book, min_candidates=CHUNK, chunks_per_step=cps, exact=data.draw(st.booleans()))
    pool.announce(Version(GENERATION, 0))
    step, taken, issued = 0, [], []
    for call in data.draw(st.lists(st.sampled_from("iiiaaaewttfs"), max_size=60)):
        if call == "i":
            held = pool.issue(data.draw(st.integers(1, 2)), credits=data.draw(st.integers(0, 6)))
            issued += [held] if held is not None else []
        elif call in "aw" and issued:
            held = data.draw(st.sampled_from(issued))
            session = held.session if call == "a" else held.session + 1
            scores = {"mms": torch.zeros(CHUNK)}
            chunk = ScoredChunk(held.start, held.stop, Version(GENERATION, held.oldest_step), scores, held.wanted)
            current = pool.lease(session, held.lease) is not None
            assert pool.put(session, held.lease, chunk) == current
        elif call == "e" and issued:
            pool.expire([held.lease for held in data.draw(st.lists(st.sampled_from(issued), max_size=3))])
        elif call == "t":
            taken += pool.take(step)
        elif call == "f":
            first = pool.take_first(step)
            taken += [first] if first is not None else []
        elif call == "s":
            step += data.draw(st.integers(1, 4))
            pool.announce(Version(GENERATION, step))
            pool.advance(step)
        account = pool.account()
        assert account.pop("leased") == sum(account.values())
        assert account["outstanding"] == book.account.outstanding()
    starts = [chunk.start for chunk in taken]
    assert len(set(starts)) == len(starts) == pool.account()["consumed"]
    pool.finish()
    account = pool.account()
    assert account["outstanding"] == 0
    assert account.pop("leased") == sum(account.values())
