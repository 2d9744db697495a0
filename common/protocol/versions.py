"""Messages about weights: which versions there are, and their bytes in buckets."""

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, msgpack
from msgspec.structs import force_setattr

from common.errors import ProtocolError
from common.protocol.arrays import Buffer
from common.protocol.limits import MAX_MANIFEST_BYTES, MAX_TENSORS, Limits
from common.protocol.values import (
    Natural,
    Positive,
    Random,
    TensorSpec,
    Version,
    check_distinct,
    check_printable,
    check_tensor,
)
from common.protocol.wire import MALFORMED, Raw, Wire, put_raw, take_raw

if TYPE_CHECKING:
    Tensors = tuple[TensorSpec, ...]
else:
    Tensors = Annotated[int, Meta(ge=0, le=MAX_MANIFEST_BYTES)]  # a frame of its own: a header stays small

_TENSORS = msgpack.Decoder(Annotated[tuple[TensorSpec, ...], Meta(max_length=MAX_TENSORS)])


# A run's versions all have one manifest, or one for each dtype of the wire.


@lru_cache(maxsize=2)
def _encoded(manifest: tuple[TensorSpec, ...]) -> bytes:
    return msgpack.encode(manifest)


@lru_cache(maxsize=2)
def _decoded(raw: bytes) -> tuple[TensorSpec, ...]:
    try:
        manifest: tuple[TensorSpec, ...] = _TENSORS.decode(raw)
    except MALFORMED as error:
        raise ProtocolError(f"manifest: {error}") from error
    return manifest


@lru_cache(maxsize=2)
def _checked_bytes(manifest: tuple[TensorSpec, ...]) -> int:
    """Bytes of all tensors. Raises ProtocolError for names or shapes that no manifest has."""
    names = tuple(spec.name for spec in manifest)
    check_printable("names in the manifest", *names)
    check_distinct("names in the manifest", names)
    return sum(check_tensor(spec.name, spec.dtype, spec.shape) for spec in manifest)


class VersionHint(Wire, frozen=True):
    """Trainer to scorer: this version can be fetched; all its tensors together take `num_bytes`."""

    version: Version
    num_bytes: Natural


class Fetch(Wire, frozen=True):
    """Scorer to trainer, on the weights socket: send these buckets of this version."""

    session: Random
    version: Version
    first_bucket: Natural
    num_buckets: Positive

    def check_fields(self, limits: Limits) -> None:
        if self.first_bucket + self.num_buckets > limits.max_buckets:
            raise ProtocolError(f"buckets must be below {limits.max_buckets}")


class Weights(Wire, frozen=True):
    """Trainer to scorer: one bucket of a version's flat bytes, with the checksum of these bytes.

    Bucket 0 brings the manifest; `total_bytes` is the size of all buckets, at least that of the manifest's tensors.
    """

    version: Version
    bucket: Natural
    num_buckets: Positive
    total_bytes: Natural
    checksum: Annotated[int, Meta(ge=0, lt=1 << 32)]
    manifest: Tensors | None
    buffer: Raw

    def outgoing(self, frames: list[Buffer]) -> dict[str, object]:
        manifest = None if self.manifest is None else put_raw("manifest", _encoded(self.manifest), frames)
        return {"manifest": manifest, "buffer": put_raw("buffer", self.buffer, frames)}

    def incoming(self, frames: list[Buffer]) -> None:
        if self.manifest is not None:
            force_setattr(self, "manifest", _decoded(bytes(take_raw("manifest", self.manifest, frames))))
        force_setattr(self, "buffer", take_raw("buffer", self.buffer, frames))

    def check_fields(self, limits: Limits) -> None:
        if not self.bucket < self.num_buckets <= limits.max_buckets:
            raise ProtocolError(f"bucket {self.bucket} of {self.num_buckets} is out of range")
        if not len(self.buffer) <= self.total_bytes <= limits.max_weights_bytes:
            raise ProtocolError(f"total_bytes is out of range: {self.total_bytes}")
        if (self.manifest is None) != (self.bucket > 0):
            raise ProtocolError("bucket 0 brings the manifest, and no other does")
        if self.manifest is not None:
            num_bytes = _checked_bytes(self.manifest)
            if num_bytes > self.total_bytes:
                raise ProtocolError(f"the manifest's tensors have {num_bytes} bytes, total_bytes is {self.total_bytes}")


class WeightsGone(Wire, frozen=True):
    """Trainer to scorer: `version` is no longer there; `newest` is."""

    version: Version
    newest: Version | None
