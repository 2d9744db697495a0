"""Messages about weights: which versions there are, and their bytes in buckets."""

from dataclasses import dataclass, field
from typing import Annotated

from common.errors import ProtocolError
from common.protocol.array_fields import Manifest, Raw
from common.protocol.fields import At, AtOrNone, Int, Maybe, Natural, Random
from common.protocol.limits import Limits
from common.protocol.values import Buffer, TensorSpec


@dataclass(frozen=True, slots=True)
class VersionHint:
    """Trainer to scorer: this version can be fetched; all its tensors together take `num_bytes`."""

    version: At
    num_bytes: Natural


@dataclass(frozen=True, slots=True)
class Fetch:
    """Scorer to trainer, on the weights socket: send these buckets of this version."""

    session: Random
    version: At
    first_bucket: Natural
    num_buckets: Annotated[int, Int(1)]

    def check_fields(self, limits: Limits) -> None:
        if self.first_bucket + self.num_buckets > limits.max_buckets:
            raise ProtocolError(f"buckets must be below {limits.max_buckets}")


@dataclass(frozen=True, slots=True)
class Weights:
    """Trainer to scorer: one bucket of a version's flat bytes, with the checksum of these bytes.

    Bucket 0 brings the manifest; `total_bytes` is the size of all buckets, at least that of the manifest's tensors.
    """

    version: At
    bucket: Natural
    num_buckets: Annotated[int, Int(1)]
    total_bytes: Natural
    crc32: Annotated[int, Int(0, (1 << 32) - 1)]
    manifest: Annotated[tuple[TensorSpec, ...] | None, Maybe(Manifest())]
    buffer: Annotated[Buffer, Raw()] = field(repr=False)

    def check_fields(self, limits: Limits) -> None:
        if not self.bucket < self.num_buckets <= limits.max_buckets:
            raise ProtocolError(f"bucket {self.bucket} of {self.num_buckets} is out of range")
        if not memoryview(self.buffer).nbytes <= self.total_bytes <= limits.max_weights_bytes:
            raise ProtocolError(f"total_bytes is out of range: {self.total_bytes}")
        if (self.manifest is None) != (self.bucket > 0):
            raise ProtocolError("bucket 0 brings the manifest, and no other does")
        if self.manifest is not None and sum(spec.nbytes for spec in self.manifest) > self.total_bytes:
            raise ProtocolError(f"the manifest's tensors pass the {self.total_bytes} bytes of total_bytes")


@dataclass(frozen=True, slots=True)
class WeightsGone:
    """Trainer to scorer: `version` is no longer there; `newest` is."""

    version: At
    newest: AtOrNone
