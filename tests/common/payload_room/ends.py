"""Both ends of a room in one process, with nothing but the messages between them."""

import collections
import contextlib
import gc
import os
from pathlib import Path
from typing import Self

import torch
from msgspec.structs import replace
from torch import Tensor

from common.arrays import as_tensor
from common.payload_room import PayloadRoom, Rooms
from common.processes import private_folder
from common.protocol import Candidates, Welcome, decode, encode
from tests.common.payload_room.samples import NUM, SESSION, WELCOME, answer_of, samples


def pattern(seed: int, num: int = NUM) -> Tensor:
    """See `samples`."""
    return torch.from_numpy(samples(seed, num))


def answer(lease: int, inputs: Tensor) -> Candidates:
    return answer_of(lease, inputs.numpy())


class Ends:
    """A scorer's room and the trainer's rooms at an endpoint of their own."""

    def __init__(self) -> None:
        self._opened = contextlib.ExitStack()
        self.events: collections.Counter[str] = collections.Counter()
        self.rooms = Rooms(self.events)

    def __enter__(self) -> Self:
        self.endpoint = f"ipc://{self._opened.enter_context(private_folder())}/t"
        self._opened.callback(self.rooms.close)
        self.rooms.open(self.endpoint)
        self.room = PayloadRoom(self.endpoint)
        self._opened.callback(self.room.forget)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._opened.close()

    def join(self, welcome: Welcome = WELCOME) -> None:
        """Begin a session and hand its room over, which takes a first message through the socket."""
        self.room.begin(welcome)
        first = answer(0, pattern(0))
        assert self.room.placed(first) is first
        self.rooms.tick({welcome.session})

    def deliver(self, message: Candidates, session: int = SESSION) -> Tensor:
        """Over the wire and into the trainer: the inputs."""
        arrived = decode([bytes(frame) for frame in encode(message)])
        assert isinstance(arrived, Candidates)
        filled = self.rooms.filled(session, arrived)
        assert filled.inputs is not None
        return as_tensor(filled.inputs)

    def ship(self, seed: int, session: int = SESSION) -> tuple[bool, Tensor]:
        """Whether the pattern of a seed was placed in a slot, and what the trainer has of it."""
        message = self.room.placed(answer(seed, pattern(seed)))
        return message.placed is not None, self.deliver(message, session)

    def placed(self, seed: int) -> Candidates:
        message = self.room.placed(answer(seed, pattern(seed)))
        assert message.placed is not None
        return message

    def changed(self, message: Candidates, **changes: object) -> Candidates:
        assert message.placed is not None
        return replace(message, placed=message.placed._replace(**changes))


def open_rooms() -> tuple[int, int]:
    """Of this process: mappings and descriptors. What other tests left to the collector of garbage is closed before."""
    gc.collect()
    mapped = Path("/proc/self/maps").read_text().count("memfd:marginstream")
    return mapped, len(os.listdir("/proc/self/fd"))
