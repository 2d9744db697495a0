"""What torchrun tells a trainer, and what follows for its options."""

from pathlib import Path

import pytest
import torch

from common.config import TrainerOptions
from common.errors import ConfigError
from trainer.ranks import environment
from trainer.ranks.device import rank_device
from trainer.ranks.joining import joined_group

TOLD = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def options(**given: object) -> TrainerOptions:
    return TrainerOptions.model_validate(given)


def test_without_an_environment_there_is_one_rank_and_the_options_are_as_they_were() -> None:
    assert (environment.num_ranks(), environment.rank(), environment.local_rank()) == (1, 0, 0)
    given = options(metrics_port=9000)
    assert environment.for_rank(given, is_restarted=False) is given


def test_a_rank_knows_its_place(told: pytest.MonkeyPatch) -> None:
    assert (environment.num_ranks(), environment.rank(), environment.local_rank()) == (4, 3, 1)
    assert not environment.is_one_host()
    told.setenv("LOCAL_WORLD_SIZE", "4")
    assert environment.is_one_host()


def test_ranks_of_a_host_are_looked_after_at_a_port_each(told: pytest.MonkeyPatch) -> None:
    assert environment.for_rank(options(metrics_port=9000), is_restarted=False).metrics_port == 9001
    assert environment.for_rank(options(metrics_port=0), is_restarted=False).metrics_port == 0, "any free one"
    with pytest.raises(ConfigError, match="--metrics-port 65535: rank 3 would be at port 65536"):
        environment.for_rank(options(metrics_port=65535), is_restarted=False)


def test_a_group_that_was_started_again_goes_on_with_its_run(told: pytest.MonkeyPatch) -> None:
    told.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    for count in ("0", "1"):
        told.setenv("TORCHELASTIC_RESTART_COUNT", count)
        given = options(out=Path("mine"))
        assert environment.for_rank(given, is_restarted=environment.is_restart()).resume == (count == "1")


def test_a_group_that_may_be_started_again_needs_a_folder_to_find_again(told: pytest.MonkeyPatch) -> None:
    told.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ConfigError, match="torchrun --max-restarts needs --out"):
        environment.for_rank(options(), is_restarted=False)


def test_an_environment_that_makes_no_sense_is_named(told: pytest.MonkeyPatch) -> None:
    told.setenv("WORLD_SIZE", "two")
    assert not environment.has_others()
    with pytest.raises(ConfigError, match="WORLD_SIZE must be a number, got 'two'"):
        environment.num_ranks()


@pytest.mark.parametrize(
    ("own", "says"),
    [("4", "RANK must be below WORLD_SIZE, which is 4, got 4"), ("x", "RANK must be a number, got 'x'")],
)
def test_a_rank_that_cannot_be_is_refused_before_others_are_waited_for(
    own: str, says: str, told: pytest.MonkeyPatch
) -> None:
    told.setenv("RANK", own)
    with pytest.raises(ConfigError, match=says), joined_group():
        pass


@pytest.mark.parametrize(("name", "num", "expected"), [("auto", 2, "cuda:1"), ("cuda", 1, "cuda:0"), ("cpu", 2, "cpu")])
def test_ranks_of_a_host_get_a_gpu_each(name: str, num: int, expected: str, told: pytest.MonkeyPatch) -> None:
    """A host may show each of them one GPU only."""
    told.setattr(torch.cuda, "device_count", lambda: num)
    told.setattr(torch.cuda, "set_device", lambda device: None)
    assert rank_device(name) == torch.device(expected)


def test_more_ranks_than_gpus_are_refused(told: pytest.MonkeyPatch) -> None:
    told.setenv("LOCAL_RANK", "2")
    told.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="--device auto: rank 3 is number 2 on its host, which has 2 CUDA devices"):
        rank_device("auto")


def test_where_there_is_no_gpu_ranks_train_on_the_cpu(told: pytest.MonkeyPatch) -> None:
    told.setattr(torch.cuda, "device_count", lambda: 0)
    told.setattr(torch.cuda, "is_available", lambda: False)
    assert rank_device("auto") == torch.device("cpu")
