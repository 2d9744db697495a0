"""Generated messages of every kind."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import (
    BACKENDS,
    DTYPE_BYTES,
    ERRORS,
    FINGERPRINTS,
    MAX_HISTORY,
    PRECISIONS,
    PROTOCOL_VERSION,
    REJECTIONS,
    SCORES,
    TRANSFERS,
    WIRES,
    Array,
    Candidates,
    Error,
    Feedback,
    Fetch,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    Limits,
    Message,
    Placed,
    PredictorState,
    Reject,
    Return,
    Revoke,
    Spent,
    TensorSpec,
    Version,
    VersionHint,
    Weights,
    WeightsGone,
    Welcome,
    decode,
    encode,
    pack_mask,
)

MIB = 1 << 20
naturals = st.integers(0, 2**63 - 1)
numbers = st.integers(1, 2**63 - 1)
randoms = st.integers(0, 2**64 - 1)
seconds = st.floats(0, 1e9)
reals = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=20)
texts = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" \n"), max_size=40)
versions = st.builds(Version, naturals, naturals)
times_spent = st.builds(Spent, seconds, seconds, seconds, seconds, seconds)
leases = st.lists(naturals, max_size=5, unique=True).map(tuple)


def masks(num: int) -> st.SearchStrategy[bytes]:
    flags = st.lists(st.booleans(), min_size=num, max_size=num)
    return st.just(b"") | flags.map(lambda bits: pack_mask(np.array(bits, dtype=bool)))


def arrays(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    num_bytes = int(np.prod(shape)) * DTYPE_BYTES[dtype]
    return st.binary(min_size=num_bytes, max_size=num_bytes).map(lambda data: Array(dtype, shape, data))


def histories(num: int) -> st.SearchStrategy[Array]:
    """(num, 1 to MAX_HISTORY) float32 without infinities: a pattern repeated, since every number alone costs a draw."""
    losses = st.lists(st.floats(width=32, allow_infinity=False), min_size=1, max_size=5)
    lengths = st.integers(1, MAX_HISTORY)
    return st.builds(lambda row, length: Array.of(np.resize(np.float32(row), (num, length))), losses, lengths)


@st.composite
def feedback_messages(draw: Callable) -> Feedback:
    ids = draw(st.lists(naturals, max_size=6))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    losses = draw(st.lists(finite, min_size=len(ids), max_size=len(ids)))
    return Feedback(Array.of(np.int64(ids)), Array.of(np.float32(losses)), draw(histories(len(ids))))


@st.composite
def lease_messages(draw: Callable) -> Lease:
    num = draw(st.integers(1, 40))
    start = draw(st.integers(0, 2**63 - 1 - num))
    mask = draw(masks(num).filter(lambda mask: not mask or any(mask)))
    made = Lease(draw(naturals), draw(naturals), start, start + num, mask, draw(naturals), draw(seconds))
    return replace(made, histories=draw(st.none() | histories(made.num)), is_audit=draw(st.booleans()))


@st.composite
def candidates_messages(draw: Callable) -> Candidates:
    num = draw(st.integers(0, 20))
    some_scores = st.lists(arrays("float32", (num,)), max_size=len(SCORES)).map(tuple)
    scores, exact_scores = draw(some_scores), draw(some_scores)
    rows = inputs = targets = placed = None
    if draw(st.booleans()):
        rows = draw(st.none() | st.integers(0, num).flatmap(lambda k: arrays("int32", (k,))))
        shape = (rows.shape[0] if rows else num, *draw(st.lists(st.integers(0, 3), max_size=3)))
        inputs = draw(st.sampled_from(sorted(DTYPE_BYTES)).flatmap(lambda dtype: arrays(dtype, shape)))
        targets = draw(arrays("int64", shape[:1]))
        if draw(st.booleans()):
            placed, inputs = Placed(draw(naturals), draw(numbers), inputs.dtype, inputs.shape), None
    errors = features = None
    if draw(st.booleans()):
        errors, features = (draw(arrays("float16", (num, draw(st.integers(1, 3))))) for _ in range(2))
    mean, accuracy = draw(st.none() | reals), draw(st.none() | st.floats(0, 1))
    tau = draw(st.none() | st.floats(0, allow_infinity=False))
    timings = draw(seconds), draw(seconds)
    dropped = draw(masks(num))
    return Candidates(
        *(draw(naturals), draw(versions), num, dropped, scores, mean, accuracy, *timings),
        *(rows, inputs, targets, tau, errors, features, exact_scores, placed),
    )


@st.composite
def weights_messages(draw: Callable) -> Weights:
    bucket = draw(st.integers(0, 3))
    specs = st.builds(
        TensorSpec, names, st.sampled_from(sorted(DTYPE_BYTES)), st.lists(st.integers(0, 9), max_size=4).map(tuple)
    )
    manifest = None if bucket else draw(st.lists(specs, max_size=5, unique_by=lambda spec: spec.name).map(tuple))
    buffer = draw(st.binary(max_size=30))
    total = max(sum(spec.nbytes for spec in manifest or ()), len(buffer)) + draw(st.integers(0, 1000))
    checksum = draw(st.integers(0, 2**32 - 1))
    return Weights(draw(versions), bucket, draw(st.integers(bucket + 1, 9)), total, checksum, manifest, buffer)


addresses = st.builds("{}:{}".format, st.sampled_from(("127.0.0.1", "10.255.3.1", "[fe80::17]")), st.integers(1, 65535))


@st.composite
def welcome_messages(draw: Callable) -> Welcome:
    transfer = draw(st.sampled_from(TRANSFERS))
    num_ranks = draw(st.integers(1, 6))
    ranks = draw(st.just([]) | st.lists(addresses, min_size=num_ranks - 1, max_size=num_ranks - 1, unique=True))
    rank = 0 if ranks else draw(st.integers(0, num_ranks - 1))
    return Welcome(
        session=draw(randoms),
        generation=draw(naturals),
        seed=draw(randoms),
        num_samples=draw(st.integers(num_ranks if num_ranks > 1 else 0, 2**63 - 1)),
        chunk_size=draw(st.integers(1, 65536)),
        scores=draw(st.lists(st.sampled_from(SCORES), unique=True).map(tuple)),
        transfer=transfer,
        best_k=draw(st.none() | numbers) if transfer == "payload" else None,
        lowest_is_hard=draw(st.booleans()),
        wire=draw(st.sampled_from(WIRES)),
        weights_port=draw(st.integers(0, 65535)),
        version=draw(st.none() | versions),
        heartbeat_s=draw(seconds),
        silence_s=draw(seconds),
        embeddings=draw(st.booleans()),
        steps=draw(naturals),
        rank=rank,
        num_ranks=num_ranks,
        ranks=tuple(ranks),
    )


STRATEGIES: dict[type, st.SearchStrategy] = {
    Hello: st.builds(
        Hello,
        protocol=st.just(PROTOCOL_VERSION),
        run=names,
        name=names,
        incarnation=randoms,
        device=names,
        precision=st.sampled_from(PRECISIONS),
        backend=st.sampled_from(BACKENDS),
        fingerprint=st.dictionaries(st.sampled_from(FINGERPRINTS), names),
        num_samples=naturals,
        num_classes=naturals,
    ),
    Welcome: welcome_messages(),
    Reject: st.builds(Reject, st.sampled_from(REJECTIONS), texts),
    Lease: lease_messages(),
    Candidates: candidates_messages(),
    VersionHint: st.builds(VersionHint, versions, naturals),
    Fetch: st.builds(Fetch, randoms, versions, st.integers(0, 1000), st.integers(1, 1000)),
    Weights: weights_messages(),
    WeightsGone: st.builds(WeightsGone, versions, st.none() | versions),
    Revoke: st.builds(Revoke, leases),
    Return: st.builds(Return, leases),
    Goodbye: st.builds(Goodbye, texts),
    Heartbeat: st.builds(Heartbeat, naturals, st.none() | versions, leases, naturals, st.none() | times_spent),
    Error: st.builds(Error, st.sampled_from(ERRORS), texts),
    Feedback: feedback_messages(),
    PredictorState: st.builds(
        PredictorState,
        naturals,
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9).map(
            lambda parameters: np.float32(parameters).tobytes()
        ),
    ),
}


any_message = st.one_of(*STRATEGIES.values())


def decode_or_refuse(frames: object, limits: Limits | None = None) -> Message | None:
    """The message, or None where it was refused as it should be. Any other exception fails the test."""
    try:
        return decode(frames) if limits is None else decode(frames, limits)  # type: ignore[arg-type]
    except ProtocolError:
        return None


def flat(message: Message) -> list[bytes]:
    return [bytes(frame) for frame in encode(message)]
