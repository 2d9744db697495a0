"""Several trainers of a run are started, watched, resumed and ended as one."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from common.experiment import ranks as ranks_module
from common.experiment import supervise
from common.experiment.children import Child
from common.experiment.members import restarts_in_words
from common.experiment.ranks import Environment, Ranks
from tests.common.experiment.members import Process
from tests.common.experiment.small_ranks import Group

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
DIES = "os.kill(os.getpid(), signal.SIGKILL)\n"
SAVES = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); stays()\n"

Make = Callable[..., Group]


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Ranks that run these programs; those that are to end are not waited for long."""
    monkeypatch.setattr(ranks_module, "TERM_S", 0.3)
    monkeypatch.setattr(supervise, "LEAVE_S", 0.3)
    monkeypatch.setattr(supervise, "TICK_S", 0.01)
    return lambda *programs: Group(tmp_path, programs)


def ended(*codes: int | None) -> Ranks:
    """Ranks whose processes have ended with these codes, negative for a signal; None: it runs."""

    def begin(rank: int, name: str, resume: bool, environment: Environment) -> Child:
        process = Process()
        process.code = codes[rank]
        return Child(name, cast("subprocess.Popen[bytes]", process), Path(f"{name}.log"))

    with Ranks(len(codes), begin) as made:
        made.start()
    return made


@pytest.mark.parametrize(
    ("codes", "blamed"),
    [
        ((1, -signal.SIGKILL), "trainer-1"),  # an exception is what a rank gets whose peer was killed
        ((-signal.SIGABRT, 5), "trainer-1"),  # and its backend may abort it
        ((1, 1), "trainer-0"),
        ((None, 2, 2), "trainer-1"),
        ((None, -signal.SIGTERM), "trainer-1"),  # it had no time to save
        ((0, 1), "trainer-1"),
        ((7, 1), "trainer-1"),  # 7: another rank is lost
        ((7, 7), "trainer-0"),
    ],
)
def test_of_ranks_that_fail_at_once_the_one_is_blamed_that_failed_by_itself(
    codes: tuple[int, ...], blamed: str
) -> None:
    ranks = ended(*codes)
    assert not ranks.is_running
    assert ranks.failed is not None
    assert ranks.failed.name == blamed
    assert ranks.code == ranks.failed.now.code


def test_of_ranks_that_end_for_one_reason_the_one_is_blamed_that_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trainer-1.log").write_text("error: --data-root: no folder x\n")
    failed = ended(2, 2, 2).failed
    assert failed is not None
    assert failed.now.error() == "error: --data-root: no folder x"


@pytest.mark.parametrize("codes", [(None, 0), (None, 128 + signal.SIGTERM), (None, None)])
def test_ranks_that_came_to_their_end_leave_rank_0_the_time_for_its_own(codes: tuple[int | None, ...]) -> None:
    ranks = ended(*codes)
    assert ranks.is_running
    assert ranks.code is None


def test_when_one_rank_is_killed_the_others_are_ended_and_all_go_on_once(group: Make) -> None:
    waits = f"if not resumed:\n    {DEAF}    record(20)\n    stays()\n"
    dies = f"if not resumed:\n    until(lambda: is_there('stays-0'))\n    {DIES}"
    made = group(waits, dies)
    assert made.supervise().code == 0
    assert made.ends == [["SIGKILL", "exit code 0"]] * 2
    (said,) = made.said.lines
    assert said.startswith("trainer-1 was ended by SIGKILL after step 20; all trainers are resumed once from their ")
    assert said.endswith(f"last checkpoint, if there is one, see {made.folder}/trainer-1.log")
    assert restarts_in_words([made.ranks]) == "Started again: 2 trainers (once, after SIGKILL of trainer-1)"


def test_ranks_meet_at_a_port_that_is_theirs_and_another_one_in_each_life(group: Make) -> None:
    made = group(f"if not resumed:\n    record(20)\n    {DIES}", "if not resumed: stays()")
    made.supervise()
    first, second = made.environments[:2], made.environments[2:]
    assert [life["RANK"] for life in first] == [life["LOCAL_RANK"] for life in second] == ["0", "1"]
    assert {life["WORLD_SIZE"] for life in made.environments} == {"2"}
    assert {life["MASTER_ADDR"] for life in made.environments} == {"127.0.0.1"}
    (port,), (other) = ({life["MASTER_PORT"] for life in lives} for lives in (first, second))
    assert {port}.isdisjoint(other)
    assert len(other) == 1


def test_one_trainer_is_told_of_no_group_not_even_of_one_that_we_are_in(group: Make) -> None:
    made = group("")
    made.supervise()
    (environment,) = made.environments
    assert environment["RANK"] is environment["WORLD_SIZE"] is environment["TORCHELASTIC_RUN_ID"] is None


def test_a_rank_that_fails_again_ends_the_run_with_its_code(group: Make) -> None:
    made = group("record(20)\nstays()", f"until(lambda: is_there('stays-0'))\n{DIES}")
    outcome = made.supervise()
    assert outcome.code == 128 + signal.SIGKILL
    assert outcome.failed is made.ranks.members[1].now
    assert made.ends == [["SIGTERM"] * 2, ["SIGKILL"] * 2]


def test_ranks_of_which_one_ended_for_a_reason_are_not_resumed(group: Make) -> None:
    made = group("record(20)\nstays()", "until(lambda: is_there('stays-0')); sys.exit(5)")
    outcome = made.supervise()
    assert (outcome.code, made.said.lines) == (5, [])
    assert made.ends == [["SIGTERM"], ["exit code 5"]]


def test_others_may_end_by_themselves_for_the_reason_that_one_had(group: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "LEAVE_S", 20.0)
    made = group("until(lambda: is_there('gone')); sys.exit(6)", "(folder / 'gone').touch(); sys.exit(6)")
    assert made.supervise().code == 6
    assert made.ends == [["exit code 6"]] * 2


def test_a_signal_reaches_every_rank(group: Make) -> None:
    made = group("record(20)\n" + SAVES, SAVES)
    both = [made.folder / "stays-0", made.folder / "stays-1"]
    outcome = made.supervise(stop=lambda: all(path.exists() for path in both))
    assert (outcome.code, outcome.failed) == (128 + signal.SIGINT, None)
    assert made.ends == [["exit code 143"]] * 2


def test_a_rank_that_fails_while_it_saves_is_told_as_such_and_the_others_are_not_waited_for(group: Make) -> None:
    made = group(DEAF + "record(20)\nstays()", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\nstays()")
    both = [made.folder / "stays-0", made.folder / "stays-1"]
    started = time.monotonic()
    outcome = made.supervise(stop=lambda: all(path.exists() for path in both))
    assert (outcome.code, outcome.failed) == (128 + signal.SIGINT, made.ranks.members[1].now)
    assert made.ends == [["SIGKILL"], ["exit code 1"]]
    assert time.monotonic() - started < 8


def test_a_rank_that_crashes_behind_the_last_step_takes_no_summary_along(group: Make) -> None:
    ends = "record(100)\n(folder / 'complete').touch()\nuntil(lambda: is_buried('id'))\n"
    ends += "(folder / 'summary.json').write_text('{}')"
    made = group(ends, f"until(lambda: is_there('complete'))\n(folder / 'id').write_text(str(os.getpid()))\n{DIES}")
    outcome = made.supervise()
    assert outcome.code == 128 + signal.SIGKILL
    assert made.ends == [["exit code 0"], ["SIGKILL"]]
    assert (made.folder / "summary.json").exists()


def test_a_rank_that_stays_behind_is_ended_and_not_blamed(group: Make) -> None:
    made = group("until(lambda: is_there('stays-1'))", DEAF + "stays()")
    outcome = made.supervise()
    assert (outcome.code, outcome.failed) == (0, None)
    assert made.ends == [["exit code 0"], ["SIGKILL"]]
