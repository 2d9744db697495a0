"""A trainer's endpoint that trains nothing: leases chunks at a set rate and throws the scores away.

Keeps a scorer as busy as a training run would, in a process of its own, so that plain training can be timed beside the
same load. `python -m tests.bench.sink` reads one JSON object of trainer options, then commands, from stdin:
`rate R` chunks a second (0 pauses), `count` answers with the chunks scored so far.
"""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from common.config import TrainerOptions
from common.data.sources import open_source
from common.devices import pinned
from common.models import find_head
from common.processes import private_folder
from tests.bench.arms import scorer_process
from trainer.assembly import assemble
from trainer.link import ScorerLink
from trainer.loop import make_model
from trainer.plan import Plan

FOREVER = 10**9  # steps; also as staleness, since a sink never pushes again
START_S = 120.0  # for importing torch, opening the data and the first chunk


class Sink:
    """Talks to a sink process. `chunks` counts what its scorer has scored."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def set_rate(self, chunks_per_s: float) -> None:
        self._tell(f"rate {chunks_per_s}")

    @property
    def chunks(self) -> int:
        assert self._process.stdout is not None
        self._tell("count")
        return int(self._process.stdout.readline())

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def open_sink(options: TrainerOptions, core: int | None, *, scorer_core: int | None = None) -> Iterator[Sink]:
    """A sink and a scorer for it, on one core unless the scorer has its own; paused after the first chunk's scores."""
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        options = options.model_copy(
            update={
                "listen": f"ipc://{folder}/s",
                "candidates": options.resolved_chunk_size,
                "chunk_size": options.resolved_chunk_size,
                "max_staleness": FOREVER,
            }
        )
        with pinned(core):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert process.stdin is not None
        assert process.stdout is not None
        opened.callback(process.stdout.close)
        opened.callback(process.wait)
        opened.callback(process.stdin.close)  # its end of the commands ends the sink
        process.stdin.write(json.dumps(options.dump()) + "\n")
        process.stdin.flush()
        opened.enter_context(
            scorer_process(options, options.listen or "", core if scorer_core is None else scorer_core)
        )
        sink = Sink(process)
        sink.set_rate(0.0)
        deadline = time.monotonic() + START_S
        while sink.chunks == 0:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the sink's scorer scored nothing in {START_S:.0f} s")
            time.sleep(0.05)
        yield sink


class _Rate:
    """Chunks a second, as last told. Ends with stdin."""

    def __init__(self, link: ScorerLink) -> None:
        self._link = link
        self.chunks_per_s = 0.0
        self.over = False
        self.changed = threading.Event()

    def listen(self) -> None:
        for line in sys.stdin:
            if line.startswith("rate"):
                self.chunks_per_s = float(line.split()[1])
                self.changed.set()
            else:
                print(self._link.pool.num_arrived, flush=True)
        self.over = True
        self.changed.set()


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    options = TrainerOptions(**json.loads(sys.stdin.readline()))
    source = open_source(options)
    model = make_model(options, source)
    head, plan = find_head(model, options.head), Plan.of(options)
    assembly = assemble(options, source, model, head, plan)
    link = ScorerLink(options, source, model, head, plan, int(time.time()), assembly)
    with link:
        rate = _Rate(link)
        threading.Thread(target=rate.listen, daemon=True).start()
        drain(link, rate)


def drain(link: ScorerLink, rate: _Rate) -> None:
    """Take a chunk whenever one is due; of lateness one chunk is made up for."""
    step, due = 0, time.perf_counter()
    while not rate.over:
        now, chunks_per_s = time.perf_counter(), rate.chunks_per_s
        if chunks_per_s == 0.0:
            rate.changed.wait()
            rate.changed.clear()
        elif now < due:
            time.sleep(due - now)
        elif link.pool.take(step):
            step += 1
            due = max(due, now - 1 / chunks_per_s) + 1 / chunks_per_s
        else:
            link.pool.wait(0.1)


if __name__ == "__main__":
    main()
