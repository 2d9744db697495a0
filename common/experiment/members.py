"""The places in a run, `trainer`, `scorer-0`, `scorer-1`, …, and the processes that fill them one after the other."""

import signal
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from common.experiment.children import Child

BAD_INPUT, REFUSED = 2, 3  # exit codes of processes for which another try would end the same way
UNEXPECTED = 1
_ASKED_TO_END = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Member:
    """One place.

    Args:
        begin: starts a process for it; the argument says whether it goes on with what an earlier one saved.

    Attributes:
        lives: its processes, the first one first; the last one may run.
        num_restarts: how often one was started because the one before had failed.
    """

    def __init__(self, name: str, begin: Callable[[bool], Child]) -> None:
        self.name = name
        self._begin = begin
        self.lives: list[Child] = []
        self.num_restarts = 0

    def start(self, *, resume: bool = False) -> None:
        self.lives.append(self._begin(resume))

    def restart(self, *, resume: bool = False) -> None:
        """`start`, because the last one failed."""
        self.num_restarts += 1
        self.start(resume=resume)

    @property
    def now(self) -> Child:
        """Its last process."""
        return self.lives[-1]

    @property
    def is_running(self) -> bool:
        return self.now.is_running

    @property
    def has_failed(self) -> bool:
        """Whether its last process ended, and not in order."""
        return self.now.code not in (None, 0)

    @property
    def ends(self) -> Sequence[str]:
        """How those before the last one ended, but for those that ended in order."""
        return [life.ended_by for life in self.lives[:-1] if life.code != 0]

    @property
    def has_crashed(self) -> bool:
        """Whether its last process died of an unexpected error or of a signal that asks nobody to end in order."""
        killed_by = self.now.killed_by
        return self.now.code == UNEXPECTED if killed_by is None else killed_by not in _ASKED_TO_END

    @property
    def is_hopeless(self) -> bool:
        """Whether its last process ended in a way in which another one would."""
        return self.now.code in (BAD_INPUT, REFUSED)

    def record(self) -> dict[str, Any]:
        """For summary.json: what became of each of its processes."""
        lives = [
            {"pid": life.process.pid, "ended_by": life.ended_by, "alive_s": round(life.alive_s, 1)}
            for life in self.lives
        ]
        return {"name": self.name, "restarts": self.num_restarts, "lives": lives}


class Restarted(Protocol):
    """One place, or several that are filled together."""

    @property
    def name(self) -> str: ...

    @property
    def num_restarts(self) -> int: ...

    @property
    def ends(self) -> Sequence[str]:
        """What each restart came after."""
        ...


def restarts_in_words(members: Sequence[Restarted]) -> str | None:
    """`Started again: scorer-0 (2 times: after SIGKILL, exit code 1)`; None if nothing was."""
    parts = []
    for member in members:
        if member.num_restarts:
            times = "once" if member.num_restarts == 1 else f"{member.num_restarts} times"
            parts.append(f"{member.name} ({times}, after {', '.join(member.ends)})")
    return f"Started again: {'; '.join(parts)}" if parts else None
