"""A bare loop that reads and scores candidates chunk by chunk, without any service around it.

`python -m tests.bench.scoring CHUNK` reads one JSON object of trainer options, then commands, from stdin: `go`, and
`stop`, which it answers with the chunks scored since and the seconds that they took.
"""

import contextlib
import itertools
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

from common.config import TrainerOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.sources import open_source
from common.devices import pick_device, pinned, set_threads
from common.models import find_head
from common.order import Order
from common.precision.forms import make_form
from common.scoring import score_candidates
from trainer.loop import make_model


class Scoring:
    """Scores one chunk after the other of an endless order."""

    def __init__(self, options: TrainerOptions, chunk: int) -> None:
        self._source = open_source(options)
        self._device = pick_device(options.device)
        self._model = make_model(options, self._source).to(self._device)
        self._head = find_head(self._model, options.head)
        sample = self._source.sample
        self._reader = SampleReader(
            self._source,
            Augmentation(options.augment, options.seed, sample),
            Order(sample.num_samples, options.seed, "candidates"),
        )
        self._form = make_form(self._model, self._head, options.precision)
        self._starts = itertools.count(0, chunk)
        self._chunk = chunk
        self._is_calibrated = False

    def chunk_s(self, num: int) -> float:
        """Mean seconds of a chunk."""
        for _ in range(3):
            self.score()
        started = time.perf_counter()
        for _ in range(num):
            self.score()
        return (time.perf_counter() - started) / num

    def score(self) -> None:
        start = next(self._starts)
        samples = self._reader.read(np.arange(start, start + self._chunk))
        inputs, targets = self._source.prepare(samples.inputs.to(self._device)), samples.targets.to(self._device)
        if not self._is_calibrated:
            self._form.calibrate(inputs)
            self._is_calibrated = True
        score_candidates(self._model, self._head, inputs, targets, ["mms"], forward=self._form)


class Beside:
    """Talks to a scoring process on another core."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @contextlib.contextmanager
    def scoring(self) -> Iterator[list[float]]:
        """It scores as fast as it can for as long as the block lasts; then the list holds the seconds of a chunk."""
        measured: list[float] = []
        self._tell("go")
        yield measured
        self._tell("stop")
        assert self._process.stdout is not None
        num, seconds = self._process.stdout.readline().split()
        measured.append(float(seconds) / int(num))

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def open_beside(options: TrainerOptions, chunk: int, core: int | None) -> Iterator[Beside]:
    """A scoring process on one core, ready to go."""
    with pinned(core):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.scoring", str(chunk)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.ExitStack() as opened:
        opened.callback(process.stdout.close)
        opened.callback(process.wait)
        opened.callback(process.stdin.close)  # its end of the commands ends the process
        process.stdin.write(json.dumps(options.dump()) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the scoring process did not start; its error is above")
        yield Beside(process)


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    options = TrainerOptions(**json.loads(sys.stdin.readline()))
    set_threads(1)
    scoring = Scoring(options, int(sys.argv[1]))
    for _ in range(3):
        scoring.score()
    commands = _Commands()
    print("ready", flush=True)
    while commands.wait():
        started, num = time.perf_counter(), 0
        while not commands.stopping or num == 0:
            scoring.score()
            num += 1
        print(num, time.perf_counter() - started, flush=True)


class _Commands:
    """What was last told."""

    def __init__(self) -> None:
        self.stopping = True
        self._over = False
        self._told = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait(self) -> bool:
        """Until told to go; False when there will be no more commands."""
        with self._told:
            self._told.wait_for(lambda: not self.stopping or self._over)
            return not self._over

    def _listen(self) -> None:
        for line in sys.stdin:
            with self._told:
                self.stopping = line.strip() != "go"
                self._told.notify_all()
        with self._told:
            self.stopping = self._over = True
            self._told.notify_all()


if __name__ == "__main__":
    main()
