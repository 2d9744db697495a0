"""Messages as nobody honest sends them: generated ones, mutated ones, and bombs. Everything follows from a seed."""

import random
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import msgpack
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import (
    MAGIC,
    MAX_HISTORY,
    TAG_BYTES,
    Array,
    Candidates,
    Error,
    Feedback,
    Fetch,
    Goodbye,
    Heartbeat,
    Lease,
    Message,
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
    encode,
)
from common.protocol.messages import MESSAGE_TYPES
from tests.common.protocol.examples import CANDIDATES, HELLO, LEASE, WEIGHTS, WELCOME, with_embeddings, with_payload

Frames = list[bytes]

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 1023, 1024, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**64 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e308, -1e308, float("nan"), float("inf"), float("-inf"))
OTHERS = (
    None,
    True,
    False,
    "",
    "x" * 300,
    "\x00\x1b[2J",
    "../../etc/passwd",
    "mms",
    "127.0.0.1:5555",
    b"",
    b"\xff" * 40,
    [],
    {},
    [[]],
)
BOMBS = (
    b"\xdd\xff\xff\xff\xff",
    (b"\xdd\x00\x00\x04\x00") * 3000,
    b"\x91" * 16_000,
    b"\x81" * 16_000,
    b"\xdf\xff\xff\xff\xff",
    b"\x91\xdb\xff\xff\xff\xff",
    b"\x91\xc6\xff\xff\xff\xff",
    b"\x91\xc9\xff\xff\xff\xff\x01",
    b"\xdc\x03\xff" + b"\x90" * 1023,
)

EXAMPLES: tuple[Message, ...] = (
    HELLO,
    WELCOME,
    replace(WELCOME, num_ranks=3, ranks=("127.0.0.1:5555", "[::1]:5556")),
    LEASE,
    replace(LEASE, mask=b"\x2b"),
    replace(LEASE, histories=Array.of(np.ones((6, MAX_HISTORY), dtype=np.float32))),
    CANDIDATES,
    with_payload(),
    with_payload([0, 2], 2),
    with_embeddings(),
    WEIGHTS,
    VersionHint(Version(7, 3), 1000),
    Fetch(1, Version(7, 0), 0, 16),
    WeightsGone(Version(7, 0), Version(7, 3)),
    Revoke((1, 2, 3)),
    Return((1, 2, 3)),
    Goodbye("enough"),
    Heartbeat(3, Version(7, 0), (1, 2), 5, Spent(1.0, 2.0, 3.0, 4.0, 5.0)),
    Error("malformed", "no"),
    Reject("model", "other"),
    Feedback.of(np.arange(3), np.ones(3, np.float32), np.ones((3, 10), np.float32)),
    PredictorState(3, np.ones(12, np.float32).tobytes()),
)


def flat(message: Message) -> Frames:
    return [bytes(frame) for frame in encode(message)]


class Fuzz:
    """Draws messages; equal seeds draw equal ones."""

    def __init__(self, seed: int, examples: Sequence[Message] = EXAMPLES) -> None:
        self.draw = random.Random(seed)
        self._examples = [flat(message) for message in examples]

    def messages(self, num: int, examples: Sequence[Frames] = ()) -> Iterator[Frames]:
        """Mutations of the usual examples and of these, which fit the moment."""
        for _ in range(num):
            yield self.spoil(self.draw.choice(examples if examples and self.draw.random() < 0.6 else self._examples))

    def spoil(self, frames: Frames) -> Frames:
        ways = (self._flip, self._cut, self._frames, self._field, self._field, self._field, self._bomb, self._noise)
        for _ in range(self.draw.choice((0, 1, 1, 1, 2))):
            frames = self.draw.choice(ways)(list(frames))
        return frames

    def value(self, depth: int = 0) -> object:
        """Anything that msgpack holds."""
        kind = self.draw.randrange(5 if depth < 4 else 3)
        if kind == 0:
            return self.draw.choice(NUMBERS) - (self.draw.randrange(3) if self.draw.random() < 0.3 else 0)
        if kind == 1:
            return self.draw.choice(FLOATS)
        if kind == 2:
            return self.draw.choice(OTHERS)
        if kind == 3:
            return [self.value(depth + 1) for _ in range(self.draw.randrange(5))]
        return {str(self.draw.randrange(9)): self.value(depth + 1) for _ in range(self.draw.randrange(3))}

    def _flip(self, frames: Frames) -> Frames:
        for _ in range(self.draw.randint(1, 8)):
            which = self.draw.randrange(len(frames)) if frames else 0
            if frames and frames[which]:
                frame = bytearray(frames[which])
                frame[self.draw.randrange(len(frame))] ^= 1 << self.draw.randrange(8)
                frames[which] = bytes(frame)
        return frames

    def _cut(self, frames: Frames) -> Frames:
        which = self.draw.randrange(len(frames)) if frames else 0
        return [frame[: self.draw.randrange(len(frame) + 1)] if i == which else frame for i, frame in enumerate(frames)]

    def _frames(self, frames: Frames) -> Frames:
        extra = self.draw.choice((b"", b"x", self.draw.randbytes(40), bytes(5000)))
        return self.draw.choice((frames[:-1], frames[1:], frames[::-1], [*frames, extra], [extra, *frames], frames * 6))

    def _field(self, frames: Frames) -> Frames:
        """Another value in one place of the header, at any depth."""
        if not frames or len(frames[0]) <= TAG_BYTES:
            return frames
        try:
            values = msgpack.decode(frames[0][TAG_BYTES:])
            place = values
            while isinstance(place, list) and place:
                index = self.draw.randrange(len(place))
                if not isinstance(place[index], list) or not place[index] or self.draw.random() < 0.5:
                    place[index] = self.value()
                    break
                place = place[index]
            return [frames[0][:TAG_BYTES] + msgpack.encode(values), *frames[1:]]
        except (ValueError, OverflowError, RecursionError):
            return frames

    def _bomb(self, frames: Frames) -> Frames:
        tag = MAGIC + bytes([self.draw.randint(0, len(MESSAGE_TYPES) + 2)])
        return [tag + self.draw.choice(BOMBS), *frames[1:]]

    def _noise(self, frames: Frames) -> Frames:
        tag = self.draw.choice((b"", b"MGS", MAGIC + bytes([self.draw.randint(1, len(MESSAGE_TYPES))])))
        return [tag + self.draw.randbytes(self.draw.choice((0, 1, 5, 40, 400))), *frames[1:]]

    # -- well-formed lies ---------------------------------------------------------------------------------------------

    def wrong_answer(self, lease: Lease, version: Version) -> Frames:
        """To a lease that is out: one thing is wrong, or nothing."""
        num = lease.num
        row = np.abs(np.random.default_rng(self.draw.randrange(1 << 30)).standard_normal(num)).astype(np.float32)
        row[self.draw.randrange(num)] = self.draw.choice((1.0, 0.0, -1.0, 1e-45, 3.4e38, -3.4e38, *FLOATS[6:]))
        others = np.zeros((num, 2), dtype=np.float32)
        broken = np.full((num, 2), np.nan, dtype=np.float32)
        changes = self.draw.choice(
            (
                {},
                {"version": Version(version.generation + self.draw.choice((-1, 1)), version.step)},
                {"version": Version(version.generation, self.draw.choice(NUMBERS[:-1]))},
                {"lease": self.draw.choice(NUMBERS[:-1])},
                {"num": num + 1, "scores": (Array.of(np.ones(num + 1, np.float32)),)},
                {"scores": ()},
                {"scores": (Array.of(row),) * 5},
                {"exact_scores": (Array.of(row),)},
                {"dropped": b"\x00" * ((num + 7) // 8)},
                {"loss_mean": self.draw.choice((1e308, -1e308)), "tau": 1e308},
                {"inputs": Array.of(others), "targets": Array.of(np.full(num, self.draw.choice((-1, 0, 10, 2**62))))},
                {"inputs": Array.of(broken), "targets": Array.of(np.zeros(num, np.int64))},
                {"errors": Array.of(others.astype(np.float16)), "features": Array.of(others.astype(np.float16))},
            )
        )
        made = Candidates(lease.lease, version, num, b"", (Array.of(row),), None, None, 0.0, 0.0)
        try:
            return flat(replace(made, **changes))
        except ProtocolError:
            return flat(CANDIDATES)

    def wrong_bucket(self, asked: Fetch) -> Frames:
        """To a FETCH: lies about sizes, checksums and the manifest."""
        data = self.draw.randbytes(self.draw.choice((0, 1, 100, 1000)))
        rows = (TensorSpec("w", self.draw.choice(("uint8", "bfloat16", "int64")), (self.draw.choice(NUMBERS[:9]),)),)
        first = self.draw.random() < 0.7
        made = Weights(
            asked.version,
            0 if first else self.draw.choice(NUMBERS[1:9]),
            self.draw.choice((1, 10, 1 << 20)),
            self.draw.choice((len(data), 1000, 1 << 36)),
            self.draw.choice((0, 1, 2**32 - 1)),
            rows if first else None,
            data,
        )
        try:
            return flat(made)
        except ProtocolError:
            return self.spoil(flat(WEIGHTS))

    def wrong_lease(self, generation: int) -> Frames:
        """Ranges, masks, histories and deadlines at the edge of what a header holds."""
        start = self.draw.choice((0, 8, 2**32, 2**62, 2**63 - 10))
        size = self.draw.choice((1, 4, 5, 4096))
        mask = self.draw.choice((b"", b"\x01" + bytes((size + 7) // 8 - 1)))
        lease = Lease(self.draw.choice(NUMBERS[:-1]), generation, start, start + size, mask, 0, 0.0)
        try:
            if self.draw.random() < 0.3:
                width = self.draw.randint(1, MAX_HISTORY)
                lease = replace(lease, histories=Array.of(np.ones((lease.num, width), np.float32)))
            return flat(lease)
        except ProtocolError:
            return [MAGIC + bytes([4]) + struct.pack(">Q", start)]
