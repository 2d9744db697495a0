"""The terms of a run: what every scorer is told, and what it must match to be welcomed."""

import math
from dataclasses import dataclass

from common.errors import ConfigError
from common.protocol import DEFAULT_LIMITS, DTYPE_BYTES, FINGERPRINTS, PROTOCOL_VERSION, Hello, Version, Welcome
from common.selection.registry import wrong_backend
from common.transport import CONTROL, WEIGHTS, Channel

HEARTBEAT_S = 1.0
FOREIGN_BACKENDS = ("predictor", "proxy", "synthetic")  # they compute with no weights, or with some of their own
NOT_NEGATIVE = ("mms", "loss", "entropy", "gradient-norm")  # but for a model's own loss
MIB = 1 << 20
CONTROL_BYTES, FETCH_BYTES = 8 * MIB, 64 << 10  # of a frame: parameters of a predictor, and a FETCH
HEADER_BYTES = 128 << 10  # of an answer, at most: beside its large arrays
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
        """In which a scorer answers a lease behind `leases_per_scorer` of each rank; one once quick may hold more."""
        return (self.leases_per_scorer * self.num_ranks + 2) * self.lease_s

    @property
    def array_bytes(self) -> list[int]:
        """Of the arrays in the largest answer: scores, embeddings and payload of a whole chunk."""
        sizes = [self.chunk_size * 4] * max(1, len(self.scores))
        sizes += [self.chunk_size * 2 * size for size in self.embedding_sizes if self.embeddings]
        if self.transfer == "payload":
            num = self.chunk_size if self.best_k is None else self.best_k
            sample_bytes = math.prod(self.sample_shape) * DTYPE_BYTES[self.sample_dtype]
            sizes += [num * sample_bytes, num * math.prod(self.target_shape) * 8]
        return sizes

    @property
    def largest_array_bytes(self) -> int:
        return max(self.array_bytes)

    @property
    def frame_limits(self) -> dict[Channel, int]:
        """The largest frame that this run may get; whoever sends a larger one is disconnected by ZeroMQ."""
        return {CONTROL: max(CONTROL_BYTES, self.largest_array_bytes), WEIGHTS: FETCH_BYTES}

    def check_answers(self) -> None:
        """Raises ConfigError where the answer to a chunk is larger than a message of the protocol."""
        largest, total, limits = self.largest_array_bytes, sum(self.array_bytes) + HEADER_BYTES, DEFAULT_LIMITS
        if largest <= limits.max_frame_bytes and total <= limits.max_total_bytes:
            return
        what, remedy = "embeddings", ""
        if self.transfer == "payload":
            what = f"payload of {'x'.join(map(str, self.sample_shape))} {self.sample_dtype} samples"
            remedy = ", or --transfer reference"
        raise ConfigError(
            f"--chunk-size {self.chunk_size}: the answer to a chunk, with {what}, has {total / MIB:.1f} MiB, "
            f"{largest / MIB:.1f} MiB in one array; a message has at most {limits.max_total_bytes // MIB} and "
            f"{limits.max_frame_bytes // MIB} MiB; give a smaller --chunk-size{remedy}"
        )

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
