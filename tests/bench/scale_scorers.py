"""What more scorers cost: synthetic ones that sleep for each chunk, and a trainer that does no more than take them."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import ScorerOptions
from common.data.sources import open_source
from common.devices import pinned
from common.models import find_head
from common.processes import end, private_folder, start
from tests.bench.arms import DIGITS, trainer_options
from tests.bench.measure import Cores
from trainer.assembly import assemble
from trainer.link import ScorerLink
from trainer.loop import make_model
from trainer.plan import Plan

CHUNK_SIZE = 256
CHUNKS_PER_STEP = 4  # at most 6 times as many are leased or ready at a time: enough for 8 scorers with 2 leases each
FOREVER = 10**9  # steps; also as staleness: the weights of the start serve all chunks
START_S = 60.0


@dataclass(frozen=True)
class Drained:
    """Of one number of scorers: what came, over what they could give, and the trainer's I/O thread's work for each."""

    chunks_per_s: float
    delivered_fraction: float
    io_us_per_chunk: float


def drained(num_scorers: Sequence[int], cores: Cores, *, chunk_s: float, block_s: float) -> dict[int, Drained]:
    """For each number of scorers of one run, in ascending order; scorers join until there are enough."""
    results = {}
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        opened.enter_context(pinned(cores.trainer))
        link = opened.enter_context(_link(f"ipc://{folder}/t"))
        step = 0
        for num in sorted(num_scorers):
            while link.num_scorers < num:
                opened.enter_context(_scorer(folder, link.num_scorers, chunk_s, cores.scorer))
                step = _drain_until(link, step, joined=link.num_scorers + 1)
            step = _drain(link, step, block_s / 4)
            arrived, busy_s, started = link.pool.num_arrived, link._io.busy_s, time.perf_counter()
            step = _drain(link, step, block_s)
            elapsed_s = time.perf_counter() - started
            num_chunks = max(1, link.pool.num_arrived - arrived)
            results[num] = Drained(
                num_chunks / elapsed_s,
                num_chunks / elapsed_s * chunk_s / num,
                1e6 * (link._io.busy_s - busy_s) / num_chunks,
            )
    return results


def _link(endpoint: str) -> ScorerLink:
    options = trainer_options(
        DIGITS,
        mode="stale",
        listen=endpoint,
        chunk_size=CHUNK_SIZE,
        candidates=CHUNKS_PER_STEP * CHUNK_SIZE,
        max_staleness=FOREVER,
    )
    source = open_source(options)
    model = make_model(options, source)
    head, plan = find_head(model, options.head), Plan.of(options)
    return ScorerLink(options, source, model, head, plan, 1, assemble(options, source, model, head, plan))


@contextlib.contextmanager
def _scorer(folder: Path, number: int, chunk_s: float, core: int | None) -> Iterator[None]:
    sleeping: dict[str, Any] = {"backend": "synthetic", "synthetic_backend": {"chunk_s": chunk_s}}
    options = ScorerOptions(**DIGITS, **sleeping, connect=f"ipc://{folder}/t")
    with (folder / f"log-{number}").open("wb") as log:
        with pinned(core):
            process = start("scorer", options, folder / f"scorer-{number}.toml", output=log)
        try:
            yield
        finally:
            end(process)


def _drain(link: ScorerLink, step: int, seconds: float) -> int:
    """Take every chunk as it comes; returns the next step."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if link.pool.take(step):
            step += 1
            link.pool.advance(step)
        else:
            link.pool.wait(0.05)
    return step


def _drain_until(link: ScorerLink, step: int, *, joined: int) -> int:
    deadline = time.perf_counter() + START_S
    while link.num_scorers < joined:
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{link.num_scorers} of {joined} synthetic scorers joined in {START_S:.0f} s")
        step = _drain(link, step, 0.05)
    return step
