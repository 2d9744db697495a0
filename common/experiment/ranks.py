"""The trainer processes of a run, its ranks: started, watched, resumed and ended as one, as none can train alone."""

import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType

from common.errors import RankLost
from common.experiment.children import ERROR_LINES, Child, await_end, end_all
from common.experiment.devices import trainer_names
from common.experiment.members import UNEXPECTED, Member
from common.processes import TERM_S

Environment = Mapping[str, str | None]
Begin = Callable[[int, str, bool, Environment], Child]

MASTER = "127.0.0.1"
# What torchrun, or a cluster, may have left in our own environment: of a group that is not this one.
_ELASTIC = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE")
_OF_OTHERS: Environment = dict.fromkeys(
    ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", *_ELASTIC)
)
_STOPPED = frozenset(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


class Ranks:
    """The places `trainer`, or `trainer-0`, `trainer-1`, …; with one rank all of this says what its `Member` says.

    Args:
        begin: starts the process of a rank, given its number and name, whether it goes on with what an earlier one
            saved, and what its environment gets on top of ours (None: taken out of it).

    Attributes:
        members: by rank.
    """

    def __init__(self, num: int, begin: Begin) -> None:
        self._begin = begin
        self.members = [Member(name, partial(self._start, rank, name)) for rank, name in enumerate(trainer_names(num))]
        self._meeting: socket.socket | None = None
        self._ended: list[Child] = []  # by us, as others had failed or left
        self._ends: list[str] = []  # what became of earlier lives of several ranks

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._meeting is not None:
            self._meeting.close()

    def start(self, *, resume: bool = False) -> None:
        self._meet_anew()
        for member in self.members:
            member.start(resume=resume)

    def restart(self) -> None:
        """All of them go on from the last checkpoint, because one failed. None may run any more."""
        failed = self.to_blame
        self._ends.append(f"{failed.now.ended_by} of {failed.name}")
        self._meet_anew()
        for member in self.members:
            member.restart(resume=True)

    def _meet_anew(self) -> None:
        """Chooses the port at which the ranks meet: that of an earlier life may still be taken.

        A socket of ours keeps it from others until rank 0 listens there: both allow that it is used again.
        """
        if len(self.members) == 1:
            return
        before, self._meeting = self._meeting, socket.socket(socket.AF_INET)
        self._meeting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._meeting.bind((MASTER, 0))
        if before is not None:
            before.close()

    def _start(self, rank: int, name: str, resume: bool) -> Child:
        return self._begin(rank, name, resume, {**_OF_OTHERS, **self._of_rank(rank)})

    def _of_rank(self, rank: int) -> dict[str, str | None]:
        if self._meeting is None:
            return {}
        num, port = str(len(self.members)), self._meeting.getsockname()[1]
        of_all = {"WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "MASTER_ADDR": MASTER, "MASTER_PORT": str(port)}
        return {"RANK": str(rank), "LOCAL_RANK": str(rank), **of_all}

    # -- how they are -------------------------------------------------------------------------------------------------

    @property
    def first(self) -> Member:
        """Rank 0, which keeps the run folder."""
        return self.members[0]

    @property
    def children(self) -> list[Child]:
        """The last process of each."""
        return [member.now for member in self.members]

    @property
    def is_running(self) -> bool:
        """Whether rank 0 runs and none has failed. Others may have come to their end before it."""
        return self.failed is None and self.first.is_running

    @property
    def failed(self) -> Member | None:
        """The one that failed by itself, as far as can be told; nobody who came to the end, or whom we ended."""
        failed = [one for one in self.members if one.now not in self._ended and _has_failed(one.now)]
        return min(failed, key=lambda one: _consequence(one.now), default=None)  # of several the lowest rank

    @property
    def has_crashed(self) -> bool:
        """Whether `failed` died, or lost one that hung, so that another try may go well."""
        failed = self.failed
        return failed is not None and (failed.has_crashed or failed.now.code == RankLost.exit_code)

    @property
    def to_blame(self) -> Member:
        """Whose exit code and words count: the one that failed, or rank 0."""
        return self.failed or self.first

    @property
    def code(self) -> int | None:
        """The exit code of all; None while they run."""
        return self.to_blame.now.code

    # -- their end ----------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """Asks all of them to save and end."""
        for child in self.children:
            child.terminate()

    def await_end(self, within_s: float, *, tick: Callable[[], bool]) -> bool:
        """Whether all ended by themselves within the time, which is `TERM_S` once one failed: others wait for it."""
        if await_end(self.children, within_s, tick=lambda: self.failed is None and tick()):
            return True
        return self.failed is not None and await_end(self.children, TERM_S, tick=tick)

    def end_rest(self, within_s: float, *, tick: Callable[[], bool]) -> None:
        """Gives those that still run this time to end by themselves; then ends them, also in the midst of a step."""
        rest = [child for child in self.children if child.is_running]
        if await_end(rest, within_s, tick=tick):
            return
        self._ended += [child for child in rest if child.is_running]
        end_all(rest, tick=tick, within_s=TERM_S)

    def kill(self) -> None:
        """Ends those that still run, at once."""
        self._ended += [child for child in self.children if child.is_running]
        for child in self.children:
            child.kill()

    # -- that they were started again ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.first.name if len(self.members) == 1 else f"{len(self.members)} trainers"

    @property
    def num_restarts(self) -> int:
        return self.first.num_restarts

    @property
    def ends(self) -> Sequence[str]:
        """What each restart came after."""
        return self.first.ends if len(self.members) == 1 else self._ends


def _has_failed(child: Child) -> bool:
    """Whether it ended, and neither came to its end nor was stopped and saved. A signal that ended it is a failure."""
    return child.code not in (None, 0) and (child.killed_by is not None or child.code not in _STOPPED)


def _consequence(child: Child) -> tuple[int, bool]:
    """How much its end looks like a consequence of another rank's, and whether it is silent: the least is to blame."""
    if child.code == RankLost.exit_code:
        likely = 2
    else:
        likely = int(child.code == UNEXPECTED or child.killed_by == signal.SIGABRT)  # by its backend
    return likely, not any(line.startswith("error: ") for line in child.says(ERROR_LINES))
