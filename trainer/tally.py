"""What a run did so far, put together from those who count it: for log lines, curves, metrics and the summary."""

import time
from collections.abc import Mapping
from typing import Any

from common.config import TrainerOptions
from common.data.source import Source
from common.protocol import Spent
from trainer.accounting import Account, Cost
from trainer.agreement import Agreement, mean_agreement
from trainer.batch import Batch
from trainer.curves import SelectedSamples, UniformCandidates
from trainer.feeder import Feeder
from trainer.figures import Figures
from trainer.fresh import FreshSelecting
from trainer.link import ScorerLink
from trainer.plan import Plan
from trainer.profile import Profile
from trainer.selector import Selector


class Tally:
    """Owned by the training thread.

    Args:
        uniform: filled by `fresh` as it scores; from the link's service by `curves`.
        link, fresh: whoever has candidates scored; None where the mode has no such thing.

    Attributes:
        cost: of one sample; unknown until it is counted.
        start_wait_s: seconds that scorers were waited for before step 1.
        phases: seconds of the training thread by phase of `trainer.profile`, without waiting; filled by the loop.
    """

    def __init__(
        self,
        options: TrainerOptions,
        source: Source,
        selector: Selector,
        feeder: Feeder[Any],
        uniform: UniformCandidates,
        *,
        link: ScorerLink | None,
        fresh: FreshSelecting | None,
    ) -> None:
        self._options = options
        self._selector = selector
        self._feeder = feeder
        self._uniform = uniform
        self._link = link
        self._fresh = fresh
        self._plan = Plan.of(options)
        self._before_s = self._io_earlier_s = 0.0  # in earlier lives of the run, since their first steps
        self._first_step_at: float | None = None
        self._last_step_at = 0.0
        self._io_before_s = 0.0
        self.phases: dict[str, float] = {}
        self.figures = Figures()
        self.selected = SelectedSamples(source.is_noisy)
        self.cost = Cost()
        self.start_wait_s = 0.0

    def begin(self) -> None:
        """The first step begins."""
        self._last_step_at = time.perf_counter()
        self._first_step_at = self._last_step_at - self._before_s
        self._io_before_s = self._io_busy_s() - self._io_earlier_s

    def add(self, phase: str, seconds: float) -> None:
        """The training thread spent time on a phase of `trainer.profile`."""
        self.phases[phase] = self.phases.get(phase, 0.0) + seconds

    def count(self, batch: Batch) -> None:
        """A batch was trained."""
        now = time.perf_counter()
        self.figures.count(
            batch,
            selecting=self._plan.selects(batch.step),
            batch_size=self._options.batch_size,
            is_served=lambda: self._link is None or self._link.service.sessions.num_serving > 0,
            step_s=now - self._last_step_at,
        )
        self.selected.add(batch)
        self._last_step_at = now

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first step began; 0 before."""
        return 0.0 if self._first_step_at is None else time.perf_counter() - self._first_step_at

    @property
    def since_step_s(self) -> float | None:
        """Seconds since a step ended or the first began; None before. Any thread."""
        return None if self._first_step_at is None else time.perf_counter() - self._last_step_at

    @property
    def waited_fraction(self) -> float:
        """Share of the time since the first step in which the training thread stood still for a batch."""
        if self._first_step_at is None:
            return 0.0
        until = max(self._last_step_at, self._feeder.waited_until)
        return self._feeder.waited_s / max(until - self._first_step_at, 1e-9)

    def profile(self) -> Profile:
        """Where the time since the first step went."""
        beside = {"feeder": self._feeder.busy_s}
        spent = Spent(0, 0, 0, 0, 0)
        if self._link is not None:
            beside["io"] = self._io_busy_s() - self._io_before_s
            spent = self._link.service.sessions.spent
        return Profile.of(self.elapsed_s, {**self.phases, "wait": self._feeder.waited_s}, beside, spent)

    def account(self) -> Account:
        """What was trained and scored, and what it cost."""
        scored: dict[tuple[str, str], int] = {}
        if self._fresh is not None:
            scored = {("torch", self._fresh.precision): self._fresh.num_scored}
        elif self._link is not None:
            scored = dict(self._link.service.traffic.scored)
        audited = self._link.audits.num_forward if self._link is not None else 0
        return Account(self.cost, self.figures.samples_trained, scored, audited)

    def end_audits(self) -> None:
        """Before the closing figures: what comes later would be in some of them and not in others."""
        if self._link is not None:
            self._link.audits.end()

    @property
    def agreement(self) -> list[Agreement]:
        """What audits found."""
        return [] if self._link is None else self._link.audits.results

    def curves(self) -> dict[str, float]:
        """Figures for a log line, by curve; those over uniform candidates are means since the last call."""
        self._note_uniform()
        return {
            **self._uniform.take(),
            **self.selected.take(),
            **{f"selection/{name}": value for name, value in self._selector.method.figures().items()},
            **self.figures.curves(),
            "time/waited_fraction": self.waited_fraction,
            **self.profile().curves(),
            "scorers": self._link.num_scorers if self._link is not None else 0,
        }

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Counts and times since the first step; for a state between two steps."""
        self._note_uniform()
        return {
            "figures": self.figures.state_dict(),
            "selected": self.selected.state_dict(),
            "uniform": self._uniform.state_dict(),
            "num_scored": 0 if self._fresh is None else self._fresh.num_scored,
            "start_wait_s": self.start_wait_s,
            "elapsed_s": self.elapsed_s,
            "io_s": self._io_busy_s() - self._io_before_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Before `begin`."""
        self.figures.load_state_dict(state["figures"])
        self.selected.load_state_dict(state["selected"])
        self._uniform.load_state_dict(state["uniform"])
        if self._fresh is not None:
            self._fresh.num_scored = state["num_scored"]
        self.start_wait_s, self._before_s, self._io_earlier_s = (
            state[name] for name in ("start_wait_s", "elapsed_s", "io_s")
        )

    def _io_busy_s(self) -> float:
        return 0.0 if self._link is None else self._link.figures.io_busy_s

    def _note_uniform(self) -> None:
        if self._link is not None:
            while self._link.service.candidates.uniform:
                self._uniform.add(*self._link.service.candidates.uniform.popleft())

    # -- figures ------------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Figures of the whole run, for summary.json."""
        return {
            **self.figures.summary(),
            **self.account().summary(),
            "candidates_offered": self._selector.num_offered,
            "scores_remembered": self._selector.num_remembered,
            "queue_expired": self._selector.queue.num_expired,
            "waited_fraction": self.waited_fraction,
            "start_wait_s": self.start_wait_s,
            "profile": self.profile().summary(),
            "agreement": mean_agreement(self.agreement),
            **(self._link.figures.summary() if self._link is not None else {}),
        }
