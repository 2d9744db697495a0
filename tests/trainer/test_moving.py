"""Batches onto the device: at once on the CPU, beside training on a GPU."""

import pytest
import torch

from trainer.moving import NOW, Mover, Ready


def test_on_the_cpu_nothing_is_copied_and_nothing_is_waited_for() -> None:
    mover, tensor = Mover(torch.device("cpu")), torch.arange(4)
    with mover.beside():
        assert mover.move(tensor) is tensor
        assert mover.ready() is NOW
    NOW.wait(tensor)


@pytest.mark.gpu
def test_what_was_moved_beside_training_is_whole_once_training_has_waited_for_it() -> None:
    device = torch.device("cuda:0")
    mover, sent = Mover(device), torch.arange(1 << 22, dtype=torch.uint8)
    for _ in range(5):
        torch.cuda._sleep(10_000_000)  # training is busy
        with mover.beside():
            moved = mover.move(sent).to(torch.float32).mul_(2.0)
            ready = mover.ready()
        assert isinstance(ready, Ready)
        ready.wait(moved, sent)
        total = moved.sum(dtype=torch.float64)
        del moved
        assert total.item() == 2.0 * sent.sum(dtype=torch.float64).item()


@pytest.mark.gpu
def test_moving_does_not_wait_for_training() -> None:
    device = torch.device("cuda:0")
    mover, busy, sent = Mover(device), torch.cuda.Event(), torch.zeros(1 << 20, dtype=torch.uint8)
    torch.cuda._sleep(2_000_000_000)
    busy.record()
    with mover.beside():
        mover.move(sent)
        mover.ready()._event.synchronize()  # type: ignore[union-attr]
    assert not busy.query(), "the copy was over first"
    busy.synchronize()
