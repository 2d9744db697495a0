"""A checkpoint of W ranks for another number of them: what is known by id is shared out anew, the rest is carried on.

ledger, loss histories          by id, to whoever owns it now
positions in the orders         go on where the old ranks together were
method, predictor, times        of old rank r mod W; a planned method begins a new pass over its samples
counters, accounts, curves      their sums, at rank 0
leases, queue, batches ahead    begun anew: their candidates come again in a later epoch
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common.config import TrainerOptions
from common.protocol import unpack_mask
from common.shard import Shard, merged
from trainer.plan import Plan
from trainer.ranks.sums import summed, zeroed

State = Mapping[str, Any]
NO_SAMPLES = {"positions": torch.empty(0, dtype=torch.int64), "inputs": [], "targets": []}  # of ShippedBatches


def resharded(states: Sequence[State], shard: Shard, options: TrainerOptions) -> dict[str, Any]:
    """The state of `BatchesState` for a rank of the new group.

    Args:
        states: of all ranks of the old group, by rank, each as `BatchesState.take` gave it; they stay as they are.
        shard: of the new rank.
        options: of the run; its number of ranks is no part of them.

    Raises:
        ValueError: the states are not of one moment of one run.
    """
    if len(steps := {state["step"] for state in states}) > 1:
        raise ValueError(f"the ranks' states are of different steps: {sorted(steps)}")
    step: int = states[0]["step"]
    own = states[shard.rank % len(states)]
    parts: dict[str, Any] = {
        "selector": _selector(states, shard, options),
        "sourcing": _sourcing(states, shard, options),
        "tally": _tally(states, shard),
    }
    if "histories" in own["parts"]:
        parts["histories"] = {"losses": _by_id([state["parts"]["histories"]["losses"] for state in states], shard)}
    if "prediction" in own["parts"]:
        parts["prediction"] = own["parts"]["prediction"]
    if "link" in own["parts"]:
        parts["pool"] = _pool(states, shard, options)
        parts["link"] = _link(states, shard)
    return {"step": step, "parts": parts, "ready": {}, "feeder": own["feeder"]}


def _by_id(arrays: Sequence[Tensor], shard: Shard) -> Tensor:
    """What the new rank owns of an array that the old ranks had by local id."""
    return torch.from_numpy(merged([array.numpy() for array in arrays])[shard.rows].copy())


def _of(states: Sequence[State], part: str) -> list[Any]:
    return [state["parts"][part] for state in states]


def _at_first(values: Sequence[Any], shard: Shard) -> Any:
    """The sum at rank 0, nothing elsewhere: over all ranks the numbers stay what they were."""
    return summed(values) if shard.rank == 0 else zeroed(values[0])


# -- what is selected -------------------------------------------------------------------------------------------------


def _selector(states: Sequence[State], shard: Shard, options: TrainerOptions) -> dict[str, Any]:
    old = _of(states, "selector")
    is_planned = options.entry.kind == "planned"
    num_offered = sum(int(state["num_offered"]) for state in old)
    fair = num_offered // shard.num_ranks + (shard.rank < num_offered % shard.num_ranks)  # it also says: any known?
    ledgers = _with_lost_scores([dict(state["ledger"]) for state in old], states, options)
    return {
        "method": None if is_planned else old[shard.rank % len(old)]["method"],
        "queue": {"num_expired": _at_first([state["queue"]["num_expired"] for state in old], shard)},
        "num_offered": torch.tensor(fair),
        "num_remembered": _at_first([state["num_remembered"] for state in old], shard),
        "ledger": {name: _by_id([ledger[name] for ledger in ledgers], shard) for name in ledgers[0]},
    }


def _with_lost_scores(
    ledgers: list[dict[str, Tensor]], states: Sequence[State], options: TrainerOptions
) -> list[dict[str, Tensor]]:
    """A score that was booked as planned and now never comes would let the remembered loss outlive its age."""
    if "age" not in ledgers[0] or "loss" not in ledgers[0] or "pool" not in states[0]["parts"]:
        return ledgers
    num_samples = sum(len(ledger["loss"]) for ledger in ledgers)
    for rank, (ledger, state) in enumerate(zip(ledgers, states, strict=True)):
        book, size = state["parts"]["pool"]["book"], options.resolved_chunk_size
        order = Shard(rank, len(states)).candidates(num_samples, options.seed)
        ledger["loss"] = ledger["loss"].clone()
        for start in book["due"]:
            ids = order.ids_between(start, start + size)
            if start in book["wanted"]:
                ids = ids[unpack_mask(book["wanted"][start], size)]
            ledger["loss"][torch.from_numpy(ids)] = torch.nan
    return ledgers


def _sourcing(states: Sequence[State], shard: Shard, options: TrainerOptions) -> dict[str, Any]:
    plain = _plain(states)
    if "gathering" in states[0]["parts"]["sourcing"]:
        return {"gathering": -1, "offered": 0, "num_empty": 0, "plain": plain}
    size = options.resolved_chunk_size
    unused = [sum(len(saved.get("starts", ())) for saved in state["ready"].values()) for state in states]
    taken = [old["next_position"] - size * num for old, num in zip(_of(states, "sourcing"), unused, strict=True)]
    return {"next_position": _position(sum(taken), shard, size), "plain": plain}


def _position(total: int, shard: Shard, chunk_size: int) -> int:
    """Where a new rank goes on in its order of candidates, after `total` positions of all old ranks' orders."""
    return max(0, total) // shard.num_ranks // chunk_size * chunk_size


def _plain(states: Sequence[State]) -> dict[str, Any]:
    """The furthest that any rank was in the order that all share; batches that were ready have not been trained on."""
    old = [sourcing["plain"] for sourcing in _of(states, "sourcing")]
    if "positions" in old[0]:
        return dict(NO_SAMPLES)
    furthest = 0
    for plain, state in zip(old, states, strict=True):
        ready = [saved for saved in state["ready"].values() if saved.get("origin") in ("plain", "fallback")]
        furthest = max(furthest, plain["next_position"] - len(states) * sum(len(saved["ids"]) for saved in ready))
    return {"next_position": furthest}


# -- what scorers did -------------------------------------------------------------------------------------------------


def _pool(states: Sequence[State], shard: Shard, options: TrainerOptions) -> dict[str, Any]:
    """An empty one. What was out or ready counts as expired, as in every saved account."""
    pools, size, step = _of(states, "pool"), options.resolved_chunk_size, states[0]["step"]
    books = [pool["book"] for pool in pools]
    total = sum(book["next_position"] - size * len(book["due"]) for book in books)
    book = {
        "next_position": _position(total, shard, size),
        "due": [],
        "wanted": {},
        "account": _at_first([book["account"] for book in books], shard),
        "refused": _at_first([Counter(book["refused"]) for book in books], shard),
        "last_lease": max(book["last_lease"] for book in books),
    }
    is_closed = all(pool["closed"] for pool in pools) and step > Plan.of(options).stop_step  # at it, it is closed anew
    return {"book": book, "next_step": step, "closed": is_closed}


def _link(states: Sequence[State], shard: Shard) -> dict[str, Any]:
    old = _of(states, "link")
    own = old[shard.rank % len(old)]
    audits = old[0]["audits"]  # rank 0's alone
    nothing = {"counts": zeroed(audits["counts"]), "num_forward": 0, "results": []}
    return {
        "predictor": own["predictor"],
        "audits": audits if shard.rank == 0 else nothing,
        **{name: _at_first([link[name] for link in old], shard) for name in ("events", "scored", "bytes", "pushes")},
        "spent": own["spent"],  # scorers tell every rank all that they did
    }


def _tally(states: Sequence[State], shard: Shard) -> dict[str, Any]:
    old = _of(states, "tally")
    own = old[shard.rank % len(old)]
    figures = _at_first([state["figures"] for state in old], shard)
    selected = [state["selected"] for state in old]
    return {
        "figures": {**figures, "steps": states[0]["step"], "is_degraded": False},
        "selected": {
            "means": _at_first([state["means"] for state in selected], shard),
            "recent": selected[0]["recent"] if shard.rank == 0 else [],
        },
        "uniform": _at_first([state["uniform"] for state in old], shard),
        "num_scored": _at_first([state["num_scored"] for state in old], shard),
        "start_wait_s": max(state["start_wait_s"] for state in old),
        "elapsed_s": max(state["elapsed_s"] for state in old),
        "io_s": own["io_s"],
    }
