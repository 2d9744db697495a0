"""Curves that cannot be written do not end the run, and go on when there is room."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from common import curves as module
from common.curves import Curves


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread tells stderr
def test_points_on_a_full_disk_are_left_out_and_later_ones_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "RETRY_S", 0.0)
    curves = Curves(tmp_path / "tensorboard")
    curves.add({"loss": 1.0}, 1)
    with monkeypatch.context() as patched:
        patched.setattr(RecordWriter, "write", full)
        for step in range(2, 30):  # more than TensorBoard queues
            curves.add({"loss": 1.0}, step)
    for step in (50, 51):  # the first may meet the thread that died
        curves.add({"loss": 2.0}, step)
    curves.close()
    assert "ALARM: tensorboard is not written: No space left on device; the run goes on" in caplog.text
    assert "curves are written again" in caplog.text
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("loss")[-1].step == 51
