"""On a machine whose cores are shared out, the threads that talk to scorers run on the scorers' cores."""

import os
import threading
from pathlib import Path

import pytest

from common.config import TrainerOptions
from common.data.sources import open_source
from common.models import build_model
from common.scheduling import TALKING_CORES
from trainer.stream import SelectedBatches

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
TASKS = Path("/proc/self/task")


@pytest.mark.skipif(len(CORES) < 2 or not TASKS.is_dir(), reason="needs two cores, pinning and /proc")
def test_what_talks_is_on_the_scorers_core_and_what_trains_and_selects_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = TrainerOptions(data="synthetic", steps=2)
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    monkeypatch.setenv(TALKING_CORES, str(CORES[1]))
    known = set(os.listdir(TASKS))
    os.sched_setaffinity(0, {CORES[0]})
    try:
        with SelectedBatches(options, source, model):
            begun = {name: (TASKS / name / "comm").read_text().strip() for name in set(os.listdir(TASKS)) - known}
            python = {str(thread.native_id): thread.name for thread in threading.enumerate()}
            names = [python.get(task, name) for task, name in begun.items()]
            cores = [os.sched_getaffinity(int(task)) for task in begun]
            assert os.sched_getaffinity(0) == {CORES[0]}
    finally:
        os.sched_setaffinity(0, CORES)
    assert {"feeder", "trainer-io"} <= set(names)
    assert any(name.startswith("ZMQ") for name in names), names
    for name, found in zip(names, cores, strict=True):
        assert found == ({CORES[0] if name == "feeder" else CORES[1]}), name
