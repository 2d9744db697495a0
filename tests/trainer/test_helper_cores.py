"""On a machine whose cores are shared out, all that a trainer does beside training may use the scorers' too."""

import os
from pathlib import Path

import pytest

from common.config import TrainerOptions
from common.data.sources import open_source
from common.models import build_model
from common.scheduling import HELPER_CORES
from trainer.stream import SelectedBatches

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
TASKS = Path("/proc/self/task")


@pytest.mark.skipif(len(CORES) < 2 or not TASKS.is_dir(), reason="needs two cores, pinning and /proc")
def test_no_thread_but_the_one_that_trains_is_kept_on_its_core(monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainerOptions(data="synthetic", steps=2)
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    monkeypatch.setenv(HELPER_CORES, str(CORES[1]))
    known = set(os.listdir(TASKS))
    os.sched_setaffinity(0, {CORES[0]})
    try:
        with SelectedBatches(options, source, model):
            begun = {name: (TASKS / name / "comm").read_text().strip() for name in set(os.listdir(TASKS)) - known}
            cores = {name: os.sched_getaffinity(int(name)) for name in begun}
            assert os.sched_getaffinity(0) == {CORES[0]}
    finally:
        os.sched_setaffinity(0, CORES)
    assert len(begun) >= 3, begun  # feeder, I/O thread, ZeroMQ's
    assert any(name.startswith("ZMQ") for name in begun.values()), begun
    assert all(found == {CORES[0], CORES[1]} for found in cores.values()), (begun, cores)
