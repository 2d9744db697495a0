"""A scorer without a trainer, in a process of its own: scores chunk after chunk when told to, and counts them.

    python -m common.experiment.plan.neighbour OPTIONS.toml DEVICE THREADS PRECISION CHUNK CORE...

Says `ready`; then each line on stdin is a number of seconds to score for, answered by chunks a second. Ends with stdin.
"""

import os
import sys
import time
from pathlib import Path

from common.config import RunOptions
from common.config.loading import load_options
from common.experiment.plan.workbench import Workbench


def main(words: list[str]) -> None:
    options_file, device, threads, precision, chunk, *cores = words
    if cores:
        os.sched_setaffinity(0, {int(core) for core in cores})
    options = load_options(RunOptions, ["--config", str(Path(options_file))])
    score = Workbench(options, device, int(threads)).scorer(precision, int(chunk))
    score()
    _say("ready")
    for line in sys.stdin:
        num, started = 0, time.perf_counter()
        while time.perf_counter() - started < float(line):
            score()
            num += 1
        _say(str(num / (time.perf_counter() - started)))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
