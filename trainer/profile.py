"""Where the time of a run went: the training thread's, that of the threads beside it, and the scorers'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.protocol import Spent

WAIT = "wait"
TRAINER_WORDS = {
    "step": "steps",
    "score": "scoring",
    "push": "pushes",
    "evaluate": "evaluations",
    "checkpoint": "checkpoints",
    WAIT: "waiting",
    "other": "other",
}
SCORER_WORDS = {
    "read": "reading",
    "score": "scoring",
    "load": "loading weights",
    "answer": "answering",
    "idle": "idle",
}


@dataclass(frozen=True)
class Profile:
    """Shares of time, 0 to 1, by phase.

    Times are the host's: on a GPU `step` is what it takes to launch one, and the device is waited for in `other`, where
    losses are logged and before a batch that would be handed out too far ahead of the device.

    Attributes:
        trainer: of the training thread since the first step began; together 1.
        beside: of the same time, in which the thread that prepares batches computed ("feeder") and the one that talks
            to scorers worked ("io"). They overlap with training, and slow it where they share its core.
        scorers: of the time of all scorers since each was welcomed, as of their last heartbeats; together 1. Empty
            where none was heard, or not since it began to work.
    """

    trainer: Mapping[str, float]
    beside: Mapping[str, float]
    scorers: Mapping[str, float]

    @classmethod
    def of(cls, elapsed_s: float, phases: Mapping[str, float], beside: Mapping[str, float], spent: Spent) -> "Profile":
        """From seconds.

        Args:
            elapsed_s: since the first step began.
            phases, beside: by name; what is left of `elapsed_s` is "other".
            spent: by the scorers.
        """
        whole_s = max(elapsed_s, sum(phases.values()), 1e-9)
        trainer = {name: phases[name] / whole_s for name in TRAINER_WORDS if phases.get(name)}
        scoring_s = sum(spent)
        has_worked = scoring_s > spent.idle_s  # in a short run the last heartbeat may be from before all work
        scorers = dict(zip(SCORER_WORDS, (seconds / scoring_s for seconds in spent), strict=True)) if has_worked else {}
        return cls(
            trainer | {"other": max(0.0, 1.0 - sum(trainer.values()))},
            {name: min(1.0, seconds / whole_s) for name, seconds in beside.items()},
            scorers,
        )

    def curves(self) -> dict[str, float]:
        """For log lines, by curve; waiting has one of its own, time/waited_fraction."""
        return {
            **{f"time/{name}_fraction": share for name, share in self.trainer.items() if name != WAIT},
            **{f"time/{name}_fraction": share for name, share in self.beside.items()},
            **{f"scorer_time/{name}_fraction": share for name, share in self.scorers.items()},
        }

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        return {"trainer": dict(self.trainer), "beside": dict(self.beside), "scorers": dict(self.scorers)}


def profile_words(profile: Mapping[str, Mapping[str, float]]) -> str:
    """`Time of the trainer: steps 91.2%, ...`, of what `Profile.summary` gave."""
    words = f"Time of the trainer: {_shares(profile['trainer'], TRAINER_WORDS)}"
    beside = profile["beside"]
    if "io" in beside:
        words += (
            f"; beside it the thread that prepares batches was busy {beside['feeder']:.1%} of the time and the one "
            f"that talks to scorers {beside['io']:.1%}"
        )
    words += "."
    if profile["scorers"]:
        words += f" Time of the scorers: {_shares(profile['scorers'], SCORER_WORDS)}."
    return words


def _shares(shares: Mapping[str, float], names: Mapping[str, str]) -> str:
    return ", ".join(f"{word} {shares[name]:.1%}" for name, word in names.items() if name in shares)
