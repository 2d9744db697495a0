"""One summary, and one ledger, of all ranks at rank 0.

counts                      sums over the ranks: of samples, of batches, of leases, of what happened
shares of time              means: every rank made the same steps in the same time
shares of samples, batches  out of the counts of all
longest, oldest             the largest of any rank
all else                    rank 0's: accuracy, seconds, pushes, audits, checkpoints
ranks                       each rank's own figures
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.ledger import Ledger
from trainer.ranks.group import Group
from trainer.ranks.ledgers import merged_ledger
from trainer.ranks.sums import summed

log = logging.getLogger(__name__)

Summary = Mapping[str, Any]

SUMS = frozenset(
    {"samples_trained", "samples_scored", "samples_reused", "scored_elsewhere", "candidates_offered"}
    | {"scores_remembered", "queue_expired", "staleness_counts", "fallbacks", "degraded_steps", "short_batches"}
    | {"steps_by_origin", "leases", "refused", "events", "alarms", "wire_bytes_in", "wire_bytes_out"}
)
MEANS = frozenset({"waited_fraction", "io_thread_fraction"})
LARGEST = frozenset({"staleness_max", "start_wait_s", "degraded_s"})
OF_ALL = frozenset(
    {"mode", "method", "data", "model", "seed", "generation", "resumed_at_step", "stopped_by", "accuracy", "loss"}
    | {"evaluated_at_step", "agreement", "staleness_counts", "checkpoints", "flops"}
)
"""What is no figure of a rank's own, or too long to be told of each."""


def merged(summary: Summary, group: Group) -> dict[str, Any]:
    """The summary of all ranks at rank 0, this rank's own elsewhere. Ranks call it together."""
    all_of = group.collect(_plain(summary))
    if not group.is_first:
        return dict(summary)
    return merged_summary([summary, *all_of[1:]])


def merged_summary(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Of the ranks' summaries, in the order of ranks."""
    first = summaries[0]
    if len({summary["parameters"] for summary in summaries}) > 1:
        log.error("ALARM: the ranks' parameters differ; gradients were not the same on all of them")
    whole = {name: value for name, value in first.items() if name != "parameters"}
    for name in SUMS & first.keys():
        whole[name] = summed(_values(summaries, name))
    for name in MEANS & first.keys():
        whole[name] = _mean(_values(summaries, name))
    for name in LARGEST & first.keys():
        whole[name] = max(_values(summaries, name))
    counts = whole["staleness_counts"] = dict(sorted(whole["staleness_counts"].items()))
    num = sum(counts.values())
    whole["staleness_mean"] = sum(steps * count for steps, count in counts.items()) / num if num else 0.0
    whole["selected_fraction"] = _selected_fraction(whole["steps_by_origin"])
    whole["candidates_per_selected"] = _candidates_per_selected(summaries)
    whole["flops"] = first["flops"] | {
        name: summed([summary["flops"][name] for summary in summaries]) for name in ("training", "scoring", "audit")
    }
    whole["profile"] = _mean_profile([summary["profile"] for summary in summaries])
    whole["ranks"] = [
        {"rank": rank, **{name: value for name, value in summary.items() if name not in OF_ALL}}
        for rank, summary in enumerate(summaries)
    ]
    return whole


def _selected_fraction(origins: Mapping[str, int]) -> float:
    """Of batches; plain ones are those outside the steps that select."""
    num = sum(origins.values()) - origins.get("plain", 0)
    return 1 - origins.get("fallback", 0) / num if num else 0.0


def _candidates_per_selected(summaries: Sequence[Summary]) -> float:
    """Each rank's counts by the batches that it selected, which are of one size."""
    origins = _values(summaries, "steps_by_origin")
    weights = [steps.get("fresh", 0) + steps.get("stale", 0) for steps in origins]
    total = sum(weights)
    shares = _values(summaries, "candidates_per_selected")
    return sum(weight * share for weight, share in zip(weights, shares, strict=True)) / total if total else 0.0


def _mean_profile(profiles: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Mean shares of the trainers' time; of the scorers', who tell every rank all that they did, as rank 0 heard it."""
    means: dict[str, Any] = {}
    for part in ("trainer", "beside"):
        names = dict.fromkeys(name for profile in profiles for name in profile[part])
        means[part] = {name: _mean([profile[part].get(name, 0.0) for profile in profiles]) for name in names}
    return means | {"scorers": dict(profiles[0]["scorers"])}


def _values(summaries: Sequence[Summary], name: str) -> list[Any]:
    return [summary[name] for summary in summaries]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _plain(value: Any) -> Any:
    """With numbers of Python's own in place of numpy's, as what travels between ranks has to be."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value


def joint_ledger(ledger: Ledger | None, group: Group) -> Ledger | None:
    """At rank 0 that of all samples; None where nothing is kept, and elsewhere. Ranks call it together."""
    if ledger is None or group.size == 1:
        return ledger
    parts = group.collect(ledger.state_dict())
    return merged_ledger(parts) if group.is_first else None
