"""Weights versions held for scorers: whole, never overwritten while somebody needs them, never in the way."""

import queue
import threading

import numpy as np
import pytest
import torch
import zmq
from torch import Tensor, nn

from common import buckets
from common.protocol import Version, Weights, decode
from common.weights import FlatLoader, load_flat
from scorer.staging import StagedWeights, Transfer
from trainer.publisher import Publisher
from trainer.slot import Slot

GENERATION = 7
WITHIN_S = 20.0


class Net(nn.Module):
    """Parameters and a buffer, of awkward sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(300, 70)
        self.norm = nn.BatchNorm1d(70)
        self.head = nn.Linear(70, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.norm(self.body(inputs)))


def fill(model: nn.Module, value: int) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


def values(model: nn.Module) -> set[float]:
    return {value for tensor in model.state_dict().values() for value in tensor.unique().tolist()}


def fetch(publisher: Publisher, version: Version, session: int, between=lambda bucket: None) -> StagedWeights | None:
    """A whole transfer, bucket by bucket, as over the wire; None if the version is gone."""
    transfer = Transfer(version, np.empty(0, np.uint8))
    slot = publisher.slots.open(version, session)
    if slot is None:
        return None
    for bucket in range(buckets.num_buckets(publisher.manifest(slot).total_bytes)):
        message = decode(publisher.frames(slot, bucket))
        assert isinstance(message, Weights)
        staged = transfer.receive(message)
        between(bucket)
    publisher.slots.sent(slot, session, None, last=True)
    return staged


def push(publisher: Publisher, step: int) -> Slot:
    slot = publisher.push(step)
    assert slot is not None
    publisher.announce(slot)
    return slot


def queued_frame() -> tuple[zmq.MessageTracker, threading.Event]:
    """The tracker of a frame that waits in a queue until the event is set."""
    left = threading.Event()
    return zmq.MessageTracker(left), left


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 10_000)


@pytest.mark.usefixtures("small_buckets")
def test_no_version_is_torn_by_a_trainer_that_goes_on_updating_in_place() -> None:
    model, replica = Net(), Net()
    fill(model, 0)
    publisher = Publisher(model, model.head, GENERATION)
    pushed: queue.Queue[Slot | None] = queue.Queue()
    moved = threading.Condition()
    steps, num_steps, ended = 0, 2_000, False

    def train() -> None:
        nonlocal steps, ended
        for step in range(1, num_steps + 1):
            fill(model, step)
            with moved:
                steps = step
                moved.notify_all()
            if step % 3 == 0 and (slot := publisher.push(step)) is not None:
                pushed.put(slot)
        pushed.put(None)
        with moved:
            ended = True
            moved.notify_all()

    def await_update(bucket: int) -> None:
        """The weights have changed in place since the last bucket was read."""
        with moved:
            before = steps
            assert moved.wait_for(lambda: ended or steps > before, WITHIN_S)

    thread = threading.Thread(target=train)
    thread.start()
    loaded, previous = [], None
    while (slot := pushed.get(timeout=WITHIN_S)) is not None:
        version = publisher.announce(slot)
        for wanted in {previous, version} - {None}:  # a scorer may be behind
            staged = fetch(publisher, wanted, session=1, between=await_update)
            if staged is not None:
                load_flat(replica, publisher.manifest(slot), torch.from_numpy(staged.flat))
                assert values(replica) == {wanted.step}, f"version {wanted.step} is torn"
                loaded.append(wanted.step)
        previous = version
    thread.join()
    assert len(loaded) >= 5
    assert publisher.pushed + publisher.skipped == num_steps // 3


@pytest.mark.parametrize("wire", ["float32", "bf16"])
def test_a_version_is_the_weights_at_its_push(wire: str) -> None:
    torch.manual_seed(0)
    model, replica = Net(), Net()
    publisher = Publisher(model, model.head, GENERATION)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    slot = publisher.push(4, wire=wire)
    fill(model, 9)
    assert publisher.announce(slot) == Version(GENERATION, 4)
    staged = fetch(publisher, Version(GENERATION, 4), session=1)
    load_flat(replica, publisher.manifest(slot), torch.from_numpy(staged.flat))
    for name, tensor in replica.state_dict().items():
        exempt = wire == "float32" or not name.startswith(("body", "norm.weight", "norm.bias"))
        wanted = expected[name] if exempt else expected[name].bfloat16().float()
        assert torch.equal(tensor, wanted), name


def test_a_version_is_newest_only_once_it_is_announced() -> None:
    publisher = Publisher(Net(), None, GENERATION)
    assert publisher.slots.newest is None
    slot = publisher.push(0)
    assert publisher.slots.newest is None
    assert publisher.slots.open(Version(GENERATION, 0), session=1) is None
    publisher.announce(slot)
    assert publisher.slots.newest is slot


def test_the_newest_version_is_held_and_older_ones_are_given_up() -> None:
    publisher = Publisher(Net(), None, GENERATION, num_slots=3)
    push(publisher, 0)
    push(publisher, 1)
    assert publisher.slots.open(Version(GENERATION, 0), session=1) is not None, "it is still there"
    publisher.slots.open(Version(GENERATION, 1), session=1)
    push(publisher, 2)
    assert publisher.slots.open(Version(GENERATION, 0), session=2) is None, "set aside for the next push"
    assert publisher.slots.open(Version(GENERATION, 1), session=1) is not None
    assert publisher.slots.open(Version(GENERATION, 2), session=2) is not None


def test_a_version_that_is_being_fetched_is_not_overwritten_and_the_push_is_skipped() -> None:
    model = Net()
    publisher = Publisher(model, None, GENERATION, num_slots=2)
    push(publisher, 0)
    publisher.slots.open(Version(GENERATION, 0), session=1)
    push(publisher, 1)
    assert publisher.push(2) is None
    assert (publisher.pushed, publisher.skipped) == (2, 1)
    publisher.slots.sent(publisher.slots.open(Version(GENERATION, 0), session=1), 1, None, last=True)
    assert publisher.push(3) is not None


def test_a_session_pins_one_version_at_a_time() -> None:
    publisher = Publisher(Net(), None, GENERATION, num_slots=3)
    for step in range(3):
        push(publisher, step)
    for step in range(3):
        publisher.slots.open(Version(GENERATION, step), session=1)
    assert publisher.push(3) is not None


def test_a_version_whose_frames_are_still_queued_is_not_overwritten() -> None:
    publisher = Publisher(Net(), None, GENERATION, num_slots=2)
    slot = push(publisher, 0)
    tracker, left = queued_frame()
    publisher.slots.open(Version(GENERATION, 0), session=1)
    publisher.slots.sent(slot, 1, tracker, last=True)
    push(publisher, 1)
    assert publisher.push(2) is None
    left.set()
    assert publisher.push(2) is slot


def test_waiting_for_a_slot_ends_when_one_is_free_or_the_time_is_over() -> None:
    publisher = Publisher(Net(), None, GENERATION, num_slots=2)
    slot = push(publisher, 0)
    tracker, left = queued_frame()
    publisher.slots.sent(slot, 1, tracker, last=True)
    push(publisher, 1)
    assert publisher.push(2, wait_s=0.01) is None
    timer = threading.Timer(0.02, left.set)
    timer.start()
    assert publisher.push(3, wait_s=WITHIN_S) is slot
    timer.join()


def test_a_live_session_that_ends_lets_go_of_its_version() -> None:
    publisher = Publisher(Net(), None, GENERATION, num_slots=2)
    push(publisher, 0)
    publisher.slots.open(Version(GENERATION, 0), session=1)
    push(publisher, 1)
    assert publisher.push(2) is None
    publisher.slots.release(1, dead=False)
    assert publisher.push(2) is not None


@pytest.mark.parametrize("newest_at_death", [False, True])
def test_what_a_dead_session_never_takes_costs_no_slot(newest_at_death: bool) -> None:
    publisher = Publisher(Net(), None, GENERATION, num_slots=2)
    slot = push(publisher, 0)
    tracker, _ = queued_frame()
    publisher.slots.open(Version(GENERATION, 0), session=1)
    publisher.slots.sent(slot, 1, tracker, last=False)
    if newest_at_death:
        publisher.slots.release(1, dead=True)
        assert publisher.slots.newest is slot, "others may fetch it"
    push(publisher, 1)
    if not newest_at_death:
        assert publisher.push(2) is None
        publisher.slots.release(1, dead=True)
    again = publisher.push(3)
    assert again is not None
    assert again.host.data_ptr() != slot.host.data_ptr(), "the queued frames keep their bytes"


def test_a_version_that_others_fetch_survives_the_death_of_one() -> None:
    publisher = Publisher(Net(), None, GENERATION, num_slots=2)
    slot = push(publisher, 0)
    tracker, _ = queued_frame()
    for session in (1, 2):
        publisher.slots.open(Version(GENERATION, 0), session)
        publisher.slots.sent(slot, session, tracker, last=False)
    publisher.slots.release(1, dead=True)
    push(publisher, 1)
    assert publisher.slots.open(Version(GENERATION, 0), session=2) is slot


def test_what_is_sent_is_made_once_for_a_version_and_anew_for_the_next_one() -> None:
    model = Net()
    publisher = Publisher(model, None, GENERATION, num_slots=2)
    for step in range(5):
        fill(model, step)
        slot = push(publisher, step)
        frames = publisher.frames(slot, 0)
        assert publisher.frames(slot, 0) is frames
        message = decode(frames)
        assert isinstance(message, Weights)
        assert message.version == Version(GENERATION, step)
        assert message.checksum == buckets.bucket_checksum(bytes(message.buffer))
        assert np.frombuffer(message.buffer[:4], np.float32) == step


def test_a_model_without_weights_has_versions_too() -> None:
    publisher = Publisher(nn.ReLU(), None, GENERATION)
    push(publisher, 0)
    assert len(fetch(publisher, Version(GENERATION, 0), session=1).flat) == 0


def test_a_version_that_nobody_fetches_is_announced_and_not_copied() -> None:
    publisher = Publisher(Net(), None, GENERATION)
    push(publisher, 0)
    slot = publisher.push(1, is_wanted=False)
    assert slot is not None
    assert publisher.announce(slot) == Version(GENERATION, 1)
    assert slot.host.count_nonzero() == 0
    assert publisher.slots.open(Version(GENERATION, 1), session=1) is None
    assert publisher.slots.open(Version(GENERATION, 0), session=1) is not None, "it is still there"


@pytest.mark.gpu
@pytest.mark.parametrize("wire", ["float32", "bf16"])
def test_on_a_gpu_a_version_is_the_weights_at_its_push_although_training_goes_on(wire: str) -> None:
    model, replica = Net().cuda(), Net().cuda()
    publisher, loader = Publisher(model, model.head, GENERATION), FlatLoader(replica)
    for step in range(1, 30):
        fill(model, step)
        slot = publisher.push(step, wire=wire)
        fill(model, 100)  # queued right behind the copy
        assert slot is not None
        version = publisher.announce(slot)
        staged = fetch(publisher, version, session=1)
        assert staged is not None
        loader.load(staged.manifest, torch.from_numpy(staged.flat))
        assert values(replica) == {step}
