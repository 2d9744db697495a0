"""The host waits for its device before a batch is handed out, and never on the CPU."""

import pytest
import torch
from torch import nn

from common.config import TrainerOptions
from common.data.sources import open_source
from trainer.feeder import Feeder
from trainer.run_ahead import RunAhead
from trainer.stream import SelectedBatches

STEPS = 6


class FakeDevice:
    """Notes which steps were waited for, by number."""

    def __init__(self) -> None:
        self.num_launched = 0
        self.over: list[int] = []

    def mark(self) -> "FakeEvent":
        self.num_launched += 1
        return FakeEvent(self, self.num_launched - 1)


class FakeEvent:
    def __init__(self, device: FakeDevice, step: int) -> None:
        self._device, self._step = device, step

    def synchronize(self) -> None:
        self._device.over.append(self._step)


def test_a_step_is_handed_out_once_the_device_is_over_with_the_one_before_the_last() -> None:
    device = FakeDevice()
    ahead = RunAhead(device.mark)
    for step in range(STEPS):
        ahead.catch_up()
        assert device.over == list(range(step - 1)), f"before step {step}"
        ahead.stepped()


def test_on_the_cpu_nothing_is_marked_or_waited_for() -> None:
    ahead = RunAhead.of(torch.device("cpu"))
    for _ in range(STEPS):
        ahead.catch_up()
        ahead.stepped()
    assert not ahead._queued


def test_any_loop_over_selected_batches_waits_for_its_device_before_a_batch_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = TrainerOptions(data="digits", model="small", mode="stale", steps=STEPS, batch_size=8, device="cpu")
    options = options.model_copy(update={"service": options.service.model_copy(update={"start_wait_s": 0.01})})
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    device, over_when_asked, get = FakeDevice(), [], Feeder.get
    monkeypatch.setattr(Feeder, "get", lambda *args: over_when_asked.append(len(device.over)) or get(*args))
    with SelectedBatches(options, open_source(options), model) as batches:
        batches._run_ahead = RunAhead(device.mark)
        for batch in batches:
            batches.step(torch.zeros(len(batch)))
    assert over_when_asked == [0, 0, 1, 2, 3, 4]
    assert device.num_launched == STEPS


@pytest.mark.gpu
def test_on_a_gpu_no_more_than_one_whole_step_is_queued_when_a_batch_is_handed_out() -> None:
    device = torch.device("cuda")
    ahead, ends = RunAhead.of(device), []
    for _ in range(STEPS):
        ahead.catch_up()
        assert all(end.query() for end in ends[:-1])
        torch.cuda._sleep(10_000_000)
        ends.append(torch.cuda.Event())
        ends[-1].record()
        ahead.stepped()
