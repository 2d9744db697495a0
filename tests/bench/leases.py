"""Scoring through leases beside the bare forward pass of the same precision, on the same core."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from common.devices import pinned
from tests.bench.arms import trainer_options
from tests.bench.forms import Subject
from tests.bench.measure import Cores, Pairs
from tests.bench.sink import Sink, open_sink

UNLIMITED = 1e9  # chunks a second
SETTLE_CHUNKS = 4
IDLE_CHUNKS = 3  # times a chunk without an arrival: the scorer has nothing more to do
STALL_S = 60.0


def measure_service(
    subject: Subject, precision: str, workload: dict[str, Any], cores: Cores, *, num_pairs: int, block_s: float
) -> Pairs:
    """Pairs of (a chunk leased, read, scored and answered; its forward pass alone) seconds.

    A scorer process keeps one core and a sink's trainer the other; the bare loop runs in this process, on the scorer's
    core while the scorer has nothing to do. A chunk is a batch, so that both do the same work at a time.
    """
    options = trainer_options(
        workload,
        model=subject.name,
        precision=precision,
        batch_size=subject.batch,
        candidates=subject.batch,
        chunk_size=subject.batch,
    )
    with pinned(cores.scorer):
        form_s = subject.form_s(precision, block_s)
        idle_s = IDLE_CHUNKS * form_s()
    with open_sink(options, cores.trainer, scorer_core=cores.scorer) as sink:

        def bare() -> float:
            with pinned(cores.scorer):
                return form_s()

        def leased() -> float:
            with pinned(cores.trainer), _running(sink, idle_s):
                return _chunk_s(sink, block_s)

        leased()
        return Pairs.measure(num_pairs, leased, bare)


@contextlib.contextmanager
def _running(sink: Sink, idle_s: float) -> Iterator[None]:
    sink.set_rate(UNLIMITED)
    try:
        yield
    finally:
        sink.set_rate(0.0)
        _await_idle(sink, idle_s)


def _chunk_s(sink: Sink, block_s: float) -> float:
    """Seconds between two chunks, from the arrival of one to that of another about a block later."""
    first = sink.chunks
    _await(lambda: sink.chunks >= first + SETTLE_CHUNKS)
    begun, started = _next_arrival(sink)
    time.sleep(block_s)
    over, ended = _next_arrival(sink)
    return (ended - started) / (over - begun)


def _next_arrival(sink: Sink) -> tuple[int, float]:
    before = sink.chunks
    _await(lambda: sink.chunks > before)
    return sink.chunks, time.perf_counter()


def _await_idle(sink: Sink, idle_s: float) -> None:
    """Until the leases that are out have come back: nothing has arrived for so long."""
    _await(lambda: _same_after(sink, idle_s))


def _same_after(sink: Sink, seconds: float) -> bool:
    before = sink.chunks
    time.sleep(seconds)
    return sink.chunks == before


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STALL_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the scorer's chunks did not come as expected within {STALL_S:.0f} s")
        time.sleep(0.0005)
