"""Bytes that really cross the sockets, counted by relays between a scorer and a trainer."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.processes import private_folder
from tests.bench.arms import Arm, Trainee, scorer_process, trainer_options
from tests.bench.measure import Cores
from trainer.stream import SelectedBatches

RELAY_BYTES = 1 << 16
CANDIDATES = 640
BATCH_SIZE = 64


@dataclass
class Tap:
    """Bytes relayed over one unix socket: frames, ZeroMQ's own framing and handshake included."""

    to_trainer: int = 0
    to_scorer: int = 0

    @property
    def total(self) -> int:
        return self.to_trainer + self.to_scorer

    def relay(self, listener: socket.socket, target: Path) -> None:
        """Connects every peer that comes to `target`, until the listener is closed."""
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            trainer = socket.socket(socket.AF_UNIX)
            trainer.connect(str(target))
            for source, sink, attribute in ((peer, trainer, "to_trainer"), (trainer, peer, "to_scorer")):
                threading.Thread(target=self._copy, args=(source, sink, attribute), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, attribute: str) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(RELAY_BYTES):
                setattr(self, attribute, getattr(self, attribute) + len(data))  # one thread for each attribute
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tapped(path: Path, target: Path) -> Iterator[Tap]:
    """Listens at `path` and relays to the unix socket `target`."""
    tap = Tap()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=tap.relay, args=(listener, target), daemon=True)
        thread.start()
        try:
            yield tap
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@dataclass(frozen=True)
class Bytes:
    """Bytes for each candidate: control channel in both directions, and the weights channel apart from it."""

    to_trainer: float
    to_scorer: float
    weights: float

    @property
    def control(self) -> float:
        return self.to_trainer + self.to_scorer

    def rows(self) -> list[tuple[str, str]]:
        return [
            ("control channel", f"{self.control:.2f} bytes"),
            ("  scores, headers, heartbeats to the trainer", f"{self.to_trainer:.2f} bytes"),
            ("  leases, hints, heartbeats to the scorer", f"{self.to_scorer:.2f} bytes"),
            ("weights, not counted above", f"{self.weights:.1f} bytes"),
        ]


def measure_bytes(workload: dict[str, Any], cores: Cores, *, steps: int) -> Bytes:
    """Over `steps` steps that each wait for 640 candidates by reference, after the first few."""
    trainee = Trainee(workload)
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(private_folder()))
        options = trainer_options(
            workload,
            batch_size=BATCH_SIZE,
            candidates=CANDIDATES,
            fallback="wait",
            transfer="reference",
            listen=f"ipc://{folder}/t",
        )
        batches = opened.enter_context(SelectedBatches(options, trainee.source, trainee.model))
        control = opened.enter_context(tapped(folder / "tap", folder / "t"))
        weights = opened.enter_context(tapped(folder / "tap.w", folder / "t.w"))
        opened.enter_context(scorer_process(options, f"ipc://{folder}/tap", cores.scorer))
        arm = Arm(trainee, batches)
        arm.advance(4)
        before = control.to_trainer, control.to_scorer, weights.total, batches.samples_scored
        arm.advance(steps)
        num = batches.samples_scored - before[3]
        return Bytes(
            (control.to_trainer - before[0]) / num,
            (control.to_scorer - before[1]) / num,
            (weights.total - before[2]) / num,
        )
