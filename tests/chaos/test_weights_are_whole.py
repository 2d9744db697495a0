"""Weights on their way over real sockets while training updates them in place: every version arrives whole.

The trainer's thread writes a pattern for each version over parameters and BatchNorm's buffers, pushes, and at once
writes what belongs to no version, as the next optimiser step would.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from common import buckets
from common.processes import private_folder
from common.protocol import Buffer
from common.security.credentials import Insecure
from common.transport import CONTROL, WEIGHTS, IOThread
from common.weights import copy_groups, load_flat
from scorer.link import Link
from scorer.staging import StagedWeights
from tests.service.peers import hello
from tests.service.test_service_protocol import CHUNK, GENERATION, TERMS
from trainer.leases import LeaseBook, Pace
from trainer.pool import Pool
from trainer.publisher import Publisher
from trainer.service import Service
from trainer.slot import Slot

WITHIN_S = 60.0
NUM_PUSHES = 2_000
NO_VERSION = -1


class Net(nn.Module):
    """100 kB of parameters and buffers, of awkward sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(300, 70), nn.BatchNorm1d(70), nn.Linear(70, 3)

    def fill(self, value: int) -> None:
        with torch.no_grad():
            for tensor in self.state_dict().values():
                tensor.fill_(value)

    def values(self) -> set[float]:
        return {value for tensor in self.state_dict().values() for value in tensor.unique().tolist()}

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.norm(self.body(inputs)))


class Pushing:
    """The trainer's side without a loss: a thread that updates in place and pushes as fast as it can."""

    def __init__(self) -> None:
        self.model = Net()
        self.publisher = Publisher(self.model, self.model.head, GENERATION)
        pace = Pace(1, max_staleness=4, push_every=1, first_step=0, stop_step=0)  # no leases
        pool = Pool(LeaseBook(CHUNK, pace), min_candidates=CHUNK, chunks_per_step=1, exact=True)
        self._service = Service(TERMS, pool, self.publisher)
        self._io = IOThread("trainer-io", self._service, max_frame_bytes=1 << 20)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._train, daemon=True)

    @contextlib.contextmanager
    def at(self, endpoint: str) -> Iterator[None]:
        with contextlib.ExitStack() as opened:
            opened.callback(self._io.stop)
            self._io.bind(CONTROL, endpoint)
            self._io.bind(WEIGHTS, f"{endpoint}.w")
            self._io.start()
            self._thread.start()
            opened.callback(self._thread.join, WITHIN_S)
            opened.callback(self._is_over.set)
            yield

    def _train(self) -> None:
        step = 0
        while not self._is_over.is_set():
            self.model.fill(step)
            slot = self.publisher.push(step)
            self.model.fill(NO_VERSION)
            if slot is not None:
                self._io.post(lambda slot=slot: self._service.announce(slot))
            step += 1


def arriving() -> Iterator[tuple[int, set[float], int]]:
    """(step, values of all its tensors, pushes so far) of each version that a scorer gets."""
    pushing, replica = Pushing(), Net()
    with private_folder() as folder:
        endpoint = f"ipc://{folder}/t"
        link = Link(endpoint, hello(), connect_s=WITHIN_S, check_manifest=lambda _: None, security=Insecure())
        with pushing.at(endpoint), link:
            while isinstance(staged := link.next_work(), StagedWeights):
                manifest = pushing.publisher.manifests["float32"]
                load_flat(replica, manifest, torch.from_numpy(staged.flat))
                yield staged.version.step, replica.values(), pushing.publisher.pushed
                link.loaded(staged)


@pytest.fixture
def _small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 10_000)


@pytest.mark.usefixtures("_small_buckets")
def test_of_two_thousand_versions_pushed_while_training_goes_on_each_that_arrives_is_whole() -> None:
    deadline, arrived, num_pushed = time.monotonic() + WITHIN_S, [], 0
    with contextlib.closing(arriving()) as versions:
        for step, values, num_pushed in versions:
            assert values == {step}, f"version {step} is torn"
            arrived.append(step)
            if num_pushed >= NUM_PUSHES and len(arrived) >= 100:
                break
            assert time.monotonic() < deadline, f"{num_pushed} pushes and {len(arrived)} arrivals in {WITHIN_S} s"
    assert num_pushed >= NUM_PUSHES
    assert arrived == sorted(set(arrived))


@pytest.mark.usefixtures("_small_buckets")
def test_without_the_copy_between_two_steps_versions_are_torn_and_this_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with the bytes taken from the live model when they are sent."""
    whole = Publisher.frames

    def live(self: Publisher, slot: Slot, bucket: int) -> list[Buffer]:
        copy_groups(slot.copies[slot.wire])
        slot.frames.clear()
        return whole(self, slot, bucket)

    monkeypatch.setattr(Publisher, "_copy", lambda self, slot: None)
    monkeypatch.setattr(Publisher, "frames", live)
    deadline = time.monotonic() + WITHIN_S
    with contextlib.closing(arriving()) as versions:
        assert any(values != {step} for step, values, _ in versions if time.monotonic() < deadline)
