"""Who computes where, and how many GPUs there are."""

import os
import subprocess
import sys
import time

import pytest

from common.config import RunOptions
from common.errors import ConfigError
from common.experiment import devices
from common.experiment.devices import Layout, count_gpus, find_layout, lay_out, trainer_names


def layout(num_gpus: int, **options: object) -> tuple[str, list[str]]:
    found = lay_out(RunOptions.model_validate(options), num_gpus)
    assert len(found.trainers) == 1
    return found.trainer, list(found.scorers)


def ranks(num_gpus: int, **options: object) -> tuple[list[str], list[str]]:
    found = lay_out(RunOptions.model_validate(options), num_gpus)
    return list(found.trainers), list(found.scorers)


def test_the_trainer_takes_the_first_gpu_and_scorers_the_others_in_turn() -> None:
    assert layout(3, scorers=5) == ("cuda:0", ["cuda:1", "cuda:2", "cuda:1", "cuda:2", "cuda:1"])
    assert layout(2, scorers=2) == ("cuda:0", ["cuda:1", "cuda:1"])


def test_one_gpu_is_shared_and_without_any_everything_is_on_the_cpu() -> None:
    assert layout(1, scorers=2) == ("cuda:0", ["cuda:0", "cuda:0"])
    assert layout(0, scorers=2) == ("cpu", ["cpu", "cpu"])


def test_device_options_decide_and_scorers_keep_off_the_trainers_gpu() -> None:
    assert layout(3, scorers=3, device="cuda:1") == ("cuda:1", ["cuda:0", "cuda:2", "cuda:0"])
    assert layout(3, scorers=2, device="cuda") == ("cuda", ["cuda:1", "cuda:2"])
    assert layout(2, scorers=2, device="cpu") == ("cpu", ["cuda:0", "cuda:1"])
    assert layout(4, scorers=2, scorer_device="cuda:0") == ("cuda:0", ["cuda:0", "cuda:0"])
    assert layout(0, device="mps") == ("mps", ["cpu"])


@pytest.mark.parametrize("mode", ["uniform", "fresh"])
def test_modes_without_scorers_lay_out_none(mode: str) -> None:
    assert layout(2, scorers=3, mode=mode) == ("cuda:0", [])


def test_named_devices_are_laid_out_like_gpus_of_the_machine_and_may_mix_kinds() -> None:
    assert layout(0, devices=["cuda:2", "cuda:3"]) == ("cuda:2", ["cuda:3"])
    assert layout(8, devices=["cuda:2", "cpu"], scorers=2) == ("cuda:2", ["cpu", "cpu"])
    assert layout(8, devices=["cpu", "cuda"]) == ("cpu", ["cuda"])
    assert layout(8, devices=["cuda:1", "cuda"], device="cuda:0") == ("cuda:0", ["cuda:1"])
    assert layout(2, devices=["auto"]) == layout(2, devices="auto") == layout(2)


def test_ranks_take_the_first_gpus_and_scorers_the_others_in_turn() -> None:
    assert ranks(4, trainers=2, scorers=3) == (["cuda:0", "cuda:1"], ["cuda:2", "cuda:3", "cuda:2"])
    assert ranks(0, trainers=2, devices=["cuda:3", "cuda:1", "cpu"]) == (["cuda:3", "cuda:1"], ["cpu"])
    assert ranks(3, trainers=2, scorer_device="cpu") == (["cuda:0", "cuda:1"], ["cpu"])


def test_scorers_share_the_gpus_of_ranks_where_none_is_left() -> None:
    assert ranks(2, trainers=2, scorers=3) == (["cuda:0", "cuda:1"], ["cuda:0", "cuda:1", "cuda:0"])


def test_ranks_share_the_cpu_where_there_is_no_gpu_or_it_is_asked_for() -> None:
    assert ranks(0, trainers=3) == (["cpu"] * 3, ["cpu"])
    assert ranks(2, trainers=2, scorers=3, device="cpu") == (["cpu"] * 2, ["cuda:0", "cuda:1", "cuda:0"])
    assert ranks(2, trainers=2, devices=["cpu"]) == (["cpu"] * 2, ["cpu"])


@pytest.mark.parametrize(
    ("num_gpus", "options", "found", "remedy"),
    [
        (1, {"trainers": 2}, "this machine has 1", "; lower --trainers, or let all train on the CPU with --device cpu"),
        (9, {"trainers": 2, "devices": ["cuda:7", "cpu"]}, "--devices names 1", "; name more, lower --trainers"),
        (9, {"trainers": 2, "devices": ["mps"]}, "--devices names 0", "; name more, lower --trainers"),
    ],
)
def test_too_few_gpus_for_the_ranks_are_counted_and_the_remedies_named(
    num_gpus: int, options: dict[str, object], found: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match="--trainers 2 need a GPU each, as NCCL lets no two") as error:
        ranks(num_gpus, **options)
    assert found + remedy in str(error.value)


def test_the_layout_is_put_in_words() -> None:
    assert Layout(("cuda:0",), ("cuda:1", "cuda:2", "cuda:1")).words == (
        "trainer on cuda:0, 2 scorers on cuda:1, 1 scorer on cuda:2"
    )
    assert Layout(("cpu",), ()).words == "trainer on cpu"
    assert Layout(("cuda:0", "cuda:1"), ("cuda:2",)).words == "2 trainers on cuda:0 and cuda:1, 1 scorer on cuda:2"
    assert Layout(("cuda:0", "cuda:1", "cuda:2"), ()).words == "3 trainers on cuda:0, cuda:1 and cuda:2"
    assert Layout(("cpu", "cpu"), ("cpu",)).words == "2 trainers on cpu, 1 scorer on cpu"


def test_one_trainer_has_no_number() -> None:
    assert trainer_names(1) == ("trainer",)
    assert trainer_names(2) == ("trainer-0", "trainer-1")


def test_gpus_are_not_looked_for_where_options_leave_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise AssertionError("looked for GPUs")

    monkeypatch.setattr(devices, "count_gpus", fail)
    named = {"device": "cuda:7", "scorer_device": "cpu"}
    assert find_layout(RunOptions.model_validate(named)) == Layout(("cuda:7",), ("cpu",))
    assert find_layout(RunOptions(device="cpu", mode="uniform")) == Layout(("cpu",), ())
    assert find_layout(RunOptions(devices=("cuda:1", "cuda:2"))) == Layout(("cuda:1",), ("cuda:2",))
    with pytest.raises(AssertionError, match="looked"):
        find_layout(RunOptions(device="cpu"))


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert count_gpus() == 0


def test_a_driver_that_hangs_is_an_error_that_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_COUNT", "import signal; signal.pause()")
    monkeypatch.setattr(devices, "COUNT_S", 0.1)
    monkeypatch.setattr(devices.metadata, "version", lambda name: "2.11.0+cu130")
    with pytest.raises(ConfigError, match="name them with --devices"):
        count_gpus()


def test_a_torch_without_cuda_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_COUNT", "print(4)")
    monkeypatch.setattr(devices.metadata, "version", lambda name: "2.11.0+cpu")
    assert count_gpus() == 0
    monkeypatch.setattr(devices.metadata, "version", lambda name: "2.11.0")
    assert count_gpus() == 4


@pytest.mark.gpu
def test_as_many_gpus_are_counted_as_torch_sees_but_sooner() -> None:
    started = time.perf_counter()
    counted = count_gpus()
    counting_s = time.perf_counter() - started
    code = "import time, torch; print(torch.cuda.device_count())"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ, timeout=100, check=True)
    assert counted == int(seen.stdout)
    assert counting_s < 5
