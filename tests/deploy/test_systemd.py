"""The systemd units: their command lines with the environment files that come with them, and systemd's own check."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import ScorerOptions, TrainerOptions
from tests.deploy.commands import DEPLOY, read

SYSTEMD = DEPLOY / "systemd"
TRAINER, SCORER = SYSTEMD / "marginstream-trainer.service", SYSTEMD / "marginstream-scorer@.service"
KEYS = {"ACCESS": "--keys /etc/marginstream/keys"}


def settings(path: Path) -> dict[str, list[str]]:
    """Every setting of a unit or drop-in; of an environment file too."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(name, []).append(value)
    return found


def environment(name: str) -> dict[str, str]:
    return {key: values[-1] for key, values in settings(SYSTEMD / name).items()}


def words(path: Path, values: dict[str, str], instance: str = "") -> list[str]:
    """The command of ExecStart as systemd makes it: `${NAME}` is one word, `$NAME` as many as are in it."""
    command = settings(path)["ExecStart"][-1].replace("%i", instance)
    command = re.sub(r"\$\{(\w+)\}", lambda found: shlex.quote(values[found[1]]), command)
    return shlex.split(re.sub(r"\$(\w+)", lambda found: values[found[1]], command))


@pytest.mark.parametrize("elsewhere", [{}, KEYS | {"LISTEN": "tcp://192.0.2.10:5555"}], ids=["ipc", "tcp"])
@pytest.mark.parametrize("path", [TRAINER, SYSTEMD / "ranks.conf"], ids=["one", "ranks"])
def test_the_trainers_command_line_parses(path: Path, elsewhere: dict[str, str]) -> None:
    options = read(words(path, environment("trainer.env") | elsewhere), SYSTEMD / "run.toml")
    assert isinstance(options, TrainerOptions)
    assert options.resume
    assert str(options.out).startswith("/var/lib/marginstream/")


@pytest.mark.parametrize("elsewhere", [{}, KEYS | {"CONNECT": "tcp://192.0.2.10:5555"}], ids=["ipc", "tcp"])
def test_the_scorers_command_line_parses(elsewhere: dict[str, str]) -> None:
    options = read(words(SCORER, environment("scorer.env") | elsewhere, instance="3"), SYSTEMD / "run.toml")
    assert isinstance(options, ScorerOptions)
    assert options.metrics_port == 9423


def test_trainer_and_scorers_of_one_machine_meet_in_a_private_folder() -> None:
    listen, connect = environment("trainer.env")["LISTEN"], environment("scorer.env")["CONNECT"]
    assert listen == connect
    trainer = settings(TRAINER)
    assert listen.startswith(f"ipc:///run/{trainer['RuntimeDirectory'][0]}/")
    assert trainer["RuntimeDirectoryMode"] == ["0700"]


@pytest.mark.parametrize("path", [TRAINER, SCORER], ids=["trainer", "scorer"])
def test_no_unit_may_more_than_it_needs(path: Path) -> None:
    unit = settings(path)
    assert unit["User"] == ["marginstream"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["ProtectSystem"] == ["strict"]
    for name in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictNamespaces"):
        assert unit[name] == ["yes"]


def test_a_trainer_has_time_to_save_and_is_not_started_again_for_what_would_come_again() -> None:
    unit = settings(TRAINER)
    assert int(unit["TimeoutStopSec"][0]) > 120
    assert set(unit["RestartPreventExitStatus"][0].split()) == {"2", "5", "6"}
    assert "143" in unit["SuccessExitStatus"][0].split()
    assert settings(SCORER)["RestartPreventExitStatus"] == ["2 3"]


@pytest.mark.parametrize("drop_ins", [(), ("gpu.conf", "ranks.conf")], ids=["alone", "with drop-ins"])
def test_systemd_finds_nothing_wrong(drop_ins: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    here = f"{Path(sys.executable).parent}/"  # the programs must be there
    for path in (TRAINER, SCORER):
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/marginstream/bin/", here))
        for name in drop_ins if path == TRAINER else drop_ins[:1]:
            (tmp_path / f"{path.name}.d").mkdir(exist_ok=True)
            text = (SYSTEMD / name).read_text().replace("/opt/marginstream/bin/", here)
            (tmp_path / f"{path.name}.d" / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.glob("*.service")))]
    found = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(command, env=found, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
