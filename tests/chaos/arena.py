"""The run that is attacked: long enough to be hit, with every batch of it on record."""

from tests.service.processes import Process, Processes

NUM_SAMPLES = 20_000
DATA = ("--data", "synthetic", "--synthetic.num-samples", str(NUM_SAMPLES))
CHUNKS = ("--candidates", "128", "--chunk-size", "64", "--batch-size", "32")
SELECTING = ("--selection.warmup-fraction", "0", "--selection.anneal-fraction", "0")
RECORDED = ("--log.trace", "--log.log-every", "5", "--log.eval-every", "0")
ARENA = (*DATA, *CHUNKS, *SELECTING, *RECORDED)


def trainer(processes: Processes, endpoint: str, *flags: str, steps: int = 300, out: str = "out") -> Process:
    """A trainer that trains on nothing but scored candidates, so that what scorers do shows."""
    wanted = ("--fallback", "wait", "--steps", str(steps), "--listen", endpoint)
    return processes.trainer(out, *ARENA, *wanted, *flags)


def quick_scorer(processes: Processes, name: str, endpoint: str, *flags: str, chunk_s: float = 0.002) -> Process:
    """Without torch, there in a fraction of a second."""
    return processes.synthetic_scorer(name, endpoint, "--synthetic-backend.chunk-s", str(chunk_s), *flags)
