"""What threads have handed to the I/O thread is counted in the summary of a run."""

import time

from common.config import TrainerOptions
from common.data.sources import open_source
from common.models import build_model
from trainer.stream import SelectedBatches


def test_a_summary_counts_what_the_io_thread_has_yet_to_do() -> None:
    options = TrainerOptions(data="synthetic", steps=2)
    source = open_source(options)
    with SelectedBatches(options, source, build_model(options.model, source.sample, seed=0)) as batches:
        link = batches.watched.link
        assert link is not None
        link._io.post(lambda: time.sleep(0.1))  # it is busy
        link._io.post(lambda: link.service.traffic.events.update(["feedback sent"]))
        assert batches.summary()["events"]["feedback sent"] == 1
    started = time.monotonic()
    batches.summary()
    assert time.monotonic() - started < 0.5, "there is nothing to wait for"
