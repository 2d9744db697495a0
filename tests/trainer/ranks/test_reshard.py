"""A run of some ranks goes on with another number of them: nothing that was known is lost, nothing is counted twice."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from common.config import TrainerOptions
from common.data.sources import open_source
from common.models import build_model
from common.protocol import Version
from common.shard import Shard
from tests.trainer.chunks import scored
from tests.trainer.test_state import AT, OPTIONS, STEPS, Loop
from trainer.batch import Batch
from trainer.leases import Account
from trainer.ranks.group import Group
from trainer.ranks.ledgers import merged_ledger
from trainer.ranks.reshard import resharded
from trainer.stream import SelectedBatches

NUM, B, GENERATION = 120, 8, 1
CHANGES = [(1, 3), (2, 1), (2, 3), (3, 2)]


def make_options(**settings: Any) -> TrainerOptions:
    return TrainerOptions.model_validate({**OPTIONS, **settings})


def state_after(options: TrainerOptions, group: Group, at: int = AT) -> dict[str, Any]:
    loop = Loop(options, group)
    for _ in loop.steps():
        if loop.batches.completed == at:
            return loop.batches.state_dict()
    raise AssertionError("the run is shorter")


def states_of(options: TrainerOptions, size: int) -> list[dict[str, Any]]:
    return [state_after(options, Group(rank, size)) for rank in range(size)]


def ledger_of(states: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    whole = merged_ledger([state["parts"]["selector"]["ledger"] for state in states])
    return {name: tensor.numpy() for name, tensor in whole.state_dict().items()}


# -- whole loops, in fresh mode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2)])
@pytest.mark.parametrize("method", ["rank", "stale-selective-backprop"])
def test_a_run_goes_on_with_another_number_of_ranks(method: str, before: int, after: int) -> None:
    options = make_options(method=method)
    old = states_of(options, before)
    new = [resharded(old, Shard(rank, after), options) for rank in range(after)]
    np.testing.assert_equal(ledger_of(new), ledger_of(old))
    figures = [state["parts"]["tally"]["figures"] for state in new]
    assert [one["steps"] for one in figures] == [AT] * after
    assert sum(one["samples_trained"] for one in figures) == before * AT * B
    assert sum(int(state["parts"]["selector"]["num_offered"]) for state in new) == sum(
        int(state["parts"]["selector"]["num_offered"]) for state in old
    )
    is_new = {state["parts"]["selector"]["method"] is None for state in new}
    assert is_new == {method == "rank"}, "what a planned method knows is of the old shards"
    plain: list[int] = []
    for rank, state in enumerate(new):
        loop = Loop(options, Group(rank, after))
        loop.batches.load_state_dict(state)
        batches = list(loop.steps())
        assert [batch.step for batch in batches] == list(range(AT, STEPS))
        assert {batch.origin for batch in batches} == {"fresh", "plain"}
        for batch in batches:
            assert not batch.is_selected or (batch.ids % after == rank).all()
        plain += ids_of(batches, "plain")
    assert len(plain) == len(set(plain)), "within an epoch nobody trains on a plain sample that another one has"


def ids_of(batches: list[Batch], origin: str) -> list[int]:
    return [one for batch in batches if batch.origin == origin for one in batch.ids.tolist()][:B]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_uniform_training_goes_on_where_the_ranks_together_were(before: int, after: int) -> None:
    options = make_options(mode="uniform", method="uniform")
    old = states_of(options, before)
    new = [resharded(old, Shard(rank, after), options) for rank in range(after)]
    positions = {state["parts"]["sourcing"]["plain"]["next_position"] for state in new}
    assert positions == {before * AT * B}, "batches that were ready have not been trained on"


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_candidates_go_on_where_the_ranks_together_were(before: int, after: int) -> None:
    options = make_options(method="loss", candidates=24, chunk_size=8, selection={"warmup_fraction": 0.0})
    old = states_of(options, before)
    new = [resharded(old, Shard(rank, after), options) for rank in range(after)]
    positions = [state["parts"]["sourcing"]["next_position"] for state in new]
    assert positions == [before * AT * 24 // after // 8 * 8] * after


def test_histories_go_to_whoever_owns_the_samples() -> None:
    options = make_options(method="biased-importance")
    old = states_of(options, 2)
    new = [resharded(old, Shard(rank, 3), options) for rank in range(3)]
    whole = torch.empty(NUM, 10)
    for rank, state in enumerate(old):
        whole[rank::2] = state["parts"]["histories"]["losses"]
    assert whole.isfinite().any()
    for rank, state in enumerate(new):
        assert torch.equal(state["parts"]["histories"]["losses"].nan_to_num(), whole[rank::3].nan_to_num())


def test_states_of_different_moments_are_refused() -> None:
    options = make_options()
    states = [state_after(options, Group(rank, 2), at=AT + rank) for rank in range(2)]
    with pytest.raises(ValueError, match=r"different steps: \[11, 12\]"):
        resharded(states, Shard(0, 1), options)


# -- leases, in stale mode; nothing is started -------------------------------------------------------------------------


SELECTS = {"warmup_fraction": 0.0, "anneal_fraction": 0.2}  # all but the last five steps

Make = Callable[..., SelectedBatches]


@pytest.fixture
def stale() -> Iterator[Make]:
    made: list[SelectedBatches] = []

    def make(group: Group, **settings: Any) -> SelectedBatches:
        options = stale_options(**settings)
        source = open_source(options)
        model = build_model(options.model, source.sample, seed=0)
        made.append(SelectedBatches(options, source, model, generation=GENERATION, group=group))
        return made[-1]

    yield make
    for batches in made:
        assert batches._link is not None
        batches._link._io.stop()  # closes sockets that were never used


def stale_options(**settings: Any) -> TrainerOptions:
    return make_options(mode="stale", chunk_size=8, **{"selection": SELECTS, **settings})


def lease_some(batches: SelectedBatches, answered: int, taken: int, given_back: int) -> None:
    """Of `answered` chunks `taken` are consumed; as many leases are out as are given back."""
    assert batches._link is not None
    pool = batches._link.pool
    pool.announce(Version(GENERATION, 0))
    leases = [pool.issue(1, credits=64) for _ in range(answered + 2 * given_back)]
    for held in leases[:answered]:
        assert held is not None
        assert pool.put(1, held.lease, scored(held.start, 8, score="loss"))
    pool.expire([held.lease for held in leases[answered : answered + given_back] if held is not None])
    for _ in range(taken):
        assert pool.take_first(0) is not None
    batches._link.service.traffic.scored["torch", "bf16"] += 8 * answered
    batches._link.service.traffic.events["scorers joined"] += 1


@pytest.mark.parametrize("after", [1, 3])
def test_leases_begin_anew_and_the_account_balances_over_all_ranks(after: int, stale: Make) -> None:
    options, states = stale_options(method="loss"), []
    for rank in range(2):
        batches = stale(Group(rank, 2), method="loss")
        lease_some(batches, answered=3, taken=1 + rank, given_back=1)
        states.append(batches.state_dict())
    accounts, next_positions = [], set()
    for rank in range(after):
        batches = stale(Group(rank, after), method="loss")
        batches.load_state_dict(resharded(states, Shard(rank, after), options))
        assert batches._link is not None
        accounts.append(account := batches._link.pool.account())
        assert account["leased"] == sum(account.values()) - account["leased"]
        next_positions.add(batches._link.pool.state_dict()["book"]["next_position"])
        assert batches._link.figures.state_dict()["events"].get("scorers joined", 0) == (2 if rank == 0 else 0)
        assert batches.samples_scored == (48 if rank == 0 else 0)
    assert next_positions == {3 * 8 // after // 8 * 8}, "three chunks were used, all the others come again"
    total = {name: sum(account[name] for account in accounts) for name in accounts[0]}
    # Of each rank's five leases one was given back, and those that were out or ready expire with the state.
    assert total == {**vars(Account(leased=10, consumed=3, expired=7)), "outstanding": 0}


def test_a_score_that_was_booked_and_never_comes_is_forgotten(stale: Make) -> None:
    """Else the remembered loss would look younger than it is."""
    settings: dict[str, Any] = {"method": "stale-selective-backprop"}
    batches = stale(Group(1, 2), **settings)
    assert batches.ledger is not None
    own = np.arange(60)
    batches.ledger.scored(own, losses=np.ones(60, dtype=np.float32))
    lease_some(batches, answered=2, taken=1, given_back=0)
    states = [stale(Group(0, 2), **settings).state_dict(), batches.state_dict()]
    new = resharded(states, Shard(0, 1), stale_options(**settings))
    lost = Shard(1, 2).candidates(NUM, 0).ids(np.arange(8, 16)) * 2 + 1
    loss = new["parts"]["selector"]["ledger"]["loss"]
    assert sorted(lost.tolist()) == loss[1::2].isnan().nonzero().flatten().mul(2).add(1).tolist()
    assert not states[1]["parts"]["selector"]["ledger"]["loss"].isnan().any(), "the old state stays as it is"


@pytest.mark.parametrize(("step", "is_closed"), [(18, False), (19, False), (20, True)])
def test_the_pool_is_closed_once_the_run_is_past_selecting(step: int, is_closed: bool, stale: Make) -> None:
    """Nineteen steps select; the feeders had closed it before, as they are ahead."""
    state = stale(Group(0, 1), method="loss").state_dict() | {"step": step}
    state["parts"]["pool"]["closed"] = True
    new = resharded([state], Shard(1, 2), stale_options(method="loss"))
    assert new["parts"]["pool"]["closed"] is is_closed
    assert new["parts"]["pool"]["next_step"] == step
