"""A person's own loop that notes when each step ended, and on which kind of batch it trained.

`python -m tests.chaos.timed_loop FILE [trainer's flags]` trains until SIGTERM and leaves FILE: origins and times
(monotonic seconds, the same clock in all processes) of its steps.
"""

import json
import signal
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from common.config import TrainerOptions, load_options
from common.data.sources import open_source
from common.models import build_model
from trainer.stream import SelectedBatches


def main(file: Path, flags: list[str]) -> None:
    torch.set_num_threads(1)
    options = load_options(TrainerOptions, flags)
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=options.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    origins, times = [], []
    with SelectedBatches(options, source, model) as batches:
        signal.signal(signal.SIGTERM, lambda *_: batches.stop())
        for batch in batches:
            losses = F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
            optimizer.zero_grad()
            (batch.weights * losses).mean().backward()
            optimizer.step()
            batches.step(losses)
            assert batch.step == len(times), "a step was lost"
            origins.append(batch.origin)
            times.append(time.monotonic())
            if len(times) == 1:
                sys.stderr.write("first step\n")
                sys.stderr.flush()
    file.write_text(json.dumps({"origins": origins, "times": times, "summary": batches.summary()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
