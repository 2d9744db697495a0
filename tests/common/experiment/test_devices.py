"""Who computes where, and how many GPUs there are."""

import os
import subprocess
import sys
import time

import pytest

from common.config import RunOptions
from common.errors import ConfigError
from common.experiment import devices
from common.experiment.devices import Layout, count_gpus, find_layout, lay_out


def layout(num_gpus: int, **options: object) -> tuple[str, list[str]]:
    found = lay_out(RunOptions.model_validate(options), num_gpus)
    return found.trainer, list(found.scorers)


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


def test_the_layout_is_put_in_words() -> None:
    assert Layout("cuda:0", ("cuda:1", "cuda:2", "cuda:1")).words == (
        "trainer on cuda:0, 2 scorers on cuda:1, 1 scorer on cuda:2"
    )
    assert Layout("cpu", ()).words == "trainer on cpu"


def test_gpus_are_not_looked_for_where_options_leave_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise AssertionError("looked for GPUs")

    monkeypatch.setattr(devices, "count_gpus", fail)
    named = {"device": "cuda:7", "scorer_device": "cpu"}
    assert find_layout(RunOptions.model_validate(named)) == Layout("cuda:7", ("cpu",))
    assert find_layout(RunOptions(device="cpu", mode="uniform")) == Layout("cpu", ())
    with pytest.raises(AssertionError, match="looked"):
        find_layout(RunOptions(device="cpu"))


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert count_gpus() == 0


def test_a_driver_that_hangs_is_an_error_that_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_COUNT", "import signal; signal.pause()")
    monkeypatch.setattr(devices, "COUNT_S", 0.1)
    monkeypatch.setattr(devices.metadata, "version", lambda name: "2.11.0+cu130")
    with pytest.raises(ConfigError, match="name the devices with --device and --scorer-device"):
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
