"""The terms of a run: what every scorer is told, and what it must match to be welcomed."""

import math
from dataclasses import dataclass

from common.protocol import DTYPE_BYTES, FINGERPRINTS, PROTOCOL_VERSION, Hello, Version, Welcome
from common.selection.registry import wrong_backend
from common.transport import CONTROL, WEIGHTS, Channel

HEARTBEAT_S = 1.0
FOREIGN_BACKENDS = ("predictor", "proxy", "synthetic")  # they compute with no weights, or with some of their own
NOT_NEGATIVE = ("mms", "loss", "entropy", "gradient-norm")  # but for a model's own loss
CONTROL_BYTES, FETCH_BYTES = 8 << 20, 64 << 10  # of a frame: parameters of a predictor, and a FETCH
REMEDIES = {
    "model": "names, shapes or dtypes of the weights differ; give both the same --model and --head",
    "data": "labels or contents of probe samples differ; give both the same --data and --data-root",
    "decoder": "the same files decode to other pixels; install the same Pillow on both",
    "augmentation": "probe samples are augmented differently; give both the same --augment options",
}


@dataclass(frozen=True)
class Terms:
    """What every scorer is told, and what it must match.

    Attributes:
        fingerprint: digests by field, a missing field is not compared.
        backend: of the scorers that the method asks for; "predictor" where it wants predicted losses.
        target_shape, sample_shape, sample_dtype: of payload tensors.
        embedding_sizes: (C, D) of errors and features.
        not_negative: the scores that cannot be below 0.
        rank, num_ranks: of this trainer process.
    """

    run: str
    generation: int
    seed: int
    num_samples: int
    num_classes: int
    chunk_size: int
    scores: tuple[str, ...]
    lowest_is_hard: bool
    transfer: str
    best_k: int | None
    fingerprint: dict[str, str]
    sample_shape: tuple[int, ...]
    sample_dtype: str
    target_shape: tuple[int, ...]
    embeddings: bool = False
    embedding_sizes: tuple[int, int] = (0, 0)
    not_negative: tuple[str, ...] = ()
    backend: str = "torch"
    wire: str = "auto"
    leases_per_scorer: int = 2
    silence_s: float = 10.0
    lease_s: float = 60.0
    steps: int = 0
    rank: int = 0
    num_ranks: int = 1

    @property
    def longest_held_s(self) -> float:
        """In which a scorer answers a lease behind as many as it holds of each rank."""
        return (self.leases_per_scorer * self.num_ranks + 2) * self.lease_s

    @property
    def largest_array_bytes(self) -> int:
        """Of one array in an answer: scores, embeddings or payload of a whole chunk."""
        sizes = [4, *(2 * size for size in self.embedding_sizes if self.embeddings)]
        if self.transfer == "payload":
            sizes += [math.prod(self.sample_shape) * DTYPE_BYTES[self.sample_dtype], math.prod(self.target_shape) * 8]
        return self.chunk_size * max(sizes)

    @property
    def frame_limits(self) -> dict[Channel, int]:
        """The largest frame that this run may get; whoever sends a larger one is disconnected by ZeroMQ."""
        return {CONTROL: max(CONTROL_BYTES, self.largest_array_bytes), WEIGHTS: FETCH_BYTES}

    def mismatch(self, hello: Hello) -> tuple[str, str] | None:
        """The first field that differs, and a sentence for the person at the scorer."""
        if hello.protocol != PROTOCOL_VERSION:
            return "protocol", f"this trainer speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}"
        if hello.run not in ("", self.run):
            return "run", f"this trainer's run is {self.run!r}, not {hello.run!r}"
        if hello.backend == "synthetic":
            return None
        wants = ", ".join(self.scores)
        wrong = wrong_backend(hello.backend, "this run", wants=wants, wanted=self.backend, embeddings=self.embeddings)
        if wrong is not None:
            return "backend", wrong
        if (hello.num_samples, hello.num_classes) != (self.num_samples, self.num_classes):
            own, other = (self.num_samples, self.num_classes), (hello.num_samples, hello.num_classes)
            sizes = f"(samples, classes) are {own} here, {other} at the scorer"
            return "data", f"{sizes}; give both the same --data and --data-root"
        for name in FINGERPRINTS:
            if name == "model" and hello.backend in FOREIGN_BACKENDS:
                continue
            if name in self.fingerprint and hello.fingerprint.get(name) != self.fingerprint[name]:
                return name, REMEDIES[name]
        return None

    def welcome(
        self, session: int, *, wire: str, weights_port: int, version: Version | None, ranks: tuple[str, ...] = ()
    ) -> Welcome:
        """The answer to a HELLO that matches.

        Args:
            ranks: HOST:PORT of the other ranks' control channels, from rank 0 over tcp; else none.
        """
        return Welcome(
            session=session,
            generation=self.generation,
            seed=self.seed,
            num_samples=self.num_samples,
            chunk_size=self.chunk_size,
            scores=self.scores,
            transfer=self.transfer,
            best_k=self.best_k,
            lowest_is_hard=self.lowest_is_hard,
            wire=wire,
            weights_port=weights_port,
            version=version,
            heartbeat_s=HEARTBEAT_S,
            silence_s=self.silence_s,
            embeddings=self.embeddings,
            steps=self.steps,
            rank=self.rank,
            num_ranks=self.num_ranks,
            ranks=ranks,
        )
