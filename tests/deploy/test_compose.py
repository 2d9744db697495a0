"""The compose files: their form, their command lines, and who gets what."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config import ScorerOptions, TrainerOptions
from tests.deploy.commands import DEPLOY, expanded, read

CONTAINER = DEPLOY / "container"
FILES = sorted(CONTAINER.glob("compose*.yaml"))
VALUES = {"MARGINSTREAM_USER": "1000:1000"}


def loaded(name: str) -> Any:
    return yaml.safe_load(expanded((CONTAINER / name).read_text(), VALUES))


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = loaded("compose.yaml")["services"]
    return found


def test_compose_files_have_the_form_that_is_published() -> None:
    pytest.importorskip("check_jsonschema", reason="the schema of compose files comes with check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_trainer_and_scorers_are_told_to_meet(services: dict[str, Any]) -> None:
    trainer, scorer = (options_of(services[name]) for name in ("trainer", "scorer"))
    assert isinstance(trainer, TrainerOptions)
    assert isinstance(scorer, ScorerOptions)
    assert trainer.listen is not None
    assert trainer.listen.rpartition(":")[2] == scorer.connect.rpartition(":")[2]
    assert scorer.connect.startswith("tcp://trainer:")
    assert trainer.resume


def options_of(service: dict[str, Any]) -> Any:
    return read([*service["entrypoint"], *service["command"]], CONTAINER / "run.toml")


def test_several_ranks_take_the_options_of_one(services: dict[str, Any]) -> None:
    ranks = loaded("compose.ranks.yaml")["services"]["trainer"]
    assert "--nproc-per-node=2" in ranks["entrypoint"]
    assert options_of(services["trainer"] | ranks) == options_of(services["trainer"])


def test_health_is_asked_for_at_the_port_that_each_opens(services: dict[str, Any]) -> None:
    for service in services.values():
        port = options_of(service).metrics_port
        assert service["healthcheck"]["test"] == ["CMD", "probe", str(port), "healthz"]


def test_no_process_may_more_than_it_needs(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["user"] == "1000:1000"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert "ports" not in service
        assert service["networks"] == ["wire"]
    assert loaded("compose.yaml")["networks"]["wire"]["internal"]


def test_whoever_runs_it_is_asked_who_owns_the_keys() -> None:
    with pytest.raises(AssertionError, match="MARGINSTREAM_USER is needed"):
        expanded((CONTAINER / "compose.yaml").read_text(), {})


def test_secret_keys_reach_their_owner_alone(services: dict[str, Any]) -> None:
    files = {name: Path(secret["file"]).name for name, secret in loaded("compose.yaml")["secrets"].items()}
    given = {
        name: {Path(secret["target"]).name: files[secret["source"]] for secret in service["secrets"]}
        for name, service in services.items()
    }
    assert given == {
        "trainer": {"trainer.key": "trainer.key", "scorer.pub": "scorer.pub"},
        "scorer": {"scorer.key": "scorer.key", "trainer.pub": "trainer.pub"},
    }


def test_what_dies_is_started_again_and_a_trainer_has_time_to_save(services: dict[str, Any]) -> None:
    assert services["trainer"]["restart"].startswith("on-failure")
    assert services["scorer"]["restart"] == "unless-stopped"
    assert int(services["trainer"]["stop_grace_period"].removesuffix("s")) > 120
