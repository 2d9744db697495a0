"""Which batches have the graph captured anew, which are replayed and which run without it."""

import logging

import pytest
import torch
from torch import Tensor

from common.precision.capture import MOST_CAPTURES, Captured


class Pass:
    """Doubles its inputs; notes captures, replays and plain runs by their number of samples."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.captured: list[int] = []
        self.num_replayed = 0
        self.plain: list[int] = []
        monkeypatch.setattr(Captured, "_capture", self._capture)
        self.form = Captured(self._body)

    def _body(self, inputs: Tensor) -> Tensor:
        self.plain.append(len(inputs))
        return 2 * inputs

    def _capture(self, inputs: Tensor) -> None:
        self.captured.append(len(inputs))
        self.form._inputs, self.form._outputs = inputs.clone(), 2 * inputs
        self.form._graph = self

    def replay(self) -> None:
        self.num_replayed += 1
        torch.mul(self.form._inputs, 2, out=self.form._outputs)

    def __call__(self, *shape: int) -> None:
        inputs = torch.rand(shape)
        assert torch.equal(self.form(inputs), 2 * inputs)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Pass:
    return Pass(monkeypatch)


def test_larger_batches_have_the_graph_captured_again(counted: Pass) -> None:
    for num in (4, 64, 4, 64, 17):
        counted(num, 3)
    assert (counted.captured, counted.num_replayed, counted.plain) == ([4, 64], 5, [])


def test_batches_that_go_on_growing_run_without_the_graph_and_that_is_said_once(
    counted: Pass, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for num in range(1, MOST_CAPTURES + 3):
            counted(num, 3)
        counted(MOST_CAPTURES, 3)
    assert counted.captured == list(range(1, MOST_CAPTURES + 1))
    assert counted.plain == [MOST_CAPTURES + 1, MOST_CAPTURES + 2]
    assert [record.message.count("use chunks of one size") for record in caplog.records] == [1]


def test_batches_of_another_shape_leave_the_graph_as_it_is(counted: Pass) -> None:
    counted(8, 3), counted(9, 5), counted(8, 3)
    assert (counted.captured, counted.plain) == ([8], [9])
