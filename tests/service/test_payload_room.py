"""Payload of a scorer on the trainer's host: shared memory on ipc, the socket on tcp, the same samples in both."""

import contextlib
import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.config import ScorerOptions, TrainerOptions, load_options
from common.data.source import Source, TensorSplit
from common.models import build_model
from common.payload_room import PayloadRoom
from common.protocol import Array, Lease, Version
from common.security.credentials import Insecure
from scorer.link import Link
from scorer.loop import hello_of, serve
from scorer.torch_backend import TorchBackend
from tests.common.payload_room.ends import open_rooms
from tests.service.peers import answer, until
from tests.service.test_service_protocol import TERMS, Trainer
from trainer.batch import Batch
from trainer.stream import SelectedBatches

FLAGS = (
    *("--steps", "16", "--batch-size", "16", "--candidates", "64", "--chunk-size", "32", "--fallback", "wait"),
    *("--selection.warmup-fraction", "0", "--selection.anneal-fraction", "0", "--threads", "1"),
)
EVENT = "chunks through shared memory"


def open_images() -> Source:
    """256 images of 3,072 bytes: a chunk of 32 goes through a room. No two are alike."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=generator)
    targets = images[:, 0, 0, 0].long() % 4
    return Source("images", TensorSplit(images, targets), TensorSplit(images[:8], targets[:8]), 4)


@contextlib.contextmanager
def scoring(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A scorer of the product in this process, on a thread."""
    monkeypatch.setattr("scorer.torch_backend.open_source", lambda options: open_images())
    guard = ["--insecure"] if endpoint.startswith("tcp://") else []
    scorer = load_options(ScorerOptions, [*guard, "--connect", endpoint, "--model", "small", "--threads", "1"])
    backend = TorchBackend(scorer)
    link = Link(
        endpoint, hello_of(scorer, backend), connect_s=10, check_manifest=backend.check_manifest, security=Insecure()
    )
    with link:
        thread = threading.Thread(target=serve, args=(link, backend))
        thread.start()
        try:
            yield
        finally:
            link.stop("the test is over")
            thread.join(10)
            assert not thread.is_alive()


def batches_of(monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[list[Batch], dict[str, Any]]:
    options = load_options(TrainerOptions, [*FLAGS, *flags])
    source = open_images()
    model = build_model("small", source.sample, seed=0, head=None)
    with SelectedBatches(options, source, model) as batches:
        assert batches.endpoint is not None
        with scoring(batches.endpoint, monkeypatch):
            taken = []
            for batch in batches:
                taken.append(batch)
                batches.step(F.cross_entropy(model(batch.inputs), batch.targets, reduction="none").detach())
        return taken, batches.summary()


def assert_samples_are_theirs(batches: list[Batch]) -> None:
    source = open_images()
    for batch in batches:
        inputs, targets = source.train.fetch(torch.from_numpy(batch.ids))
        assert torch.equal(batch.inputs, source.prepare(inputs))
        assert torch.equal(batch.targets, targets)


def test_every_batch_out_of_a_room_holds_the_samples_of_its_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_rooms()[0]
    batches, summary = batches_of(monkeypatch, "--transfer", "payload")
    assert_samples_are_theirs(batches)
    assert summary["events"][EVENT] >= 16, "of 32 chunks; the first ones find no room yet"
    assert summary["wire_bytes_in"] < summary["samples_scored"] * 3072
    gc.collect()  # the parts of a trainer refer to each other
    assert open_rooms()[0] == before


def test_on_tcp_payload_comes_through_the_socket_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--transfer", "payload", "--payload", "best:16", "--listen", "tcp://127.0.0.1:*", "--insecure")
    batches, summary = batches_of(monkeypatch, *flags)
    assert_samples_are_theirs(batches)
    assert EVENT not in summary["events"]
    assert summary["wire_bytes_in"] > len(batches) * 32 * 3072


def test_an_answer_to_no_lease_is_refused_and_frees_its_slot() -> None:
    terms = replace(TERMS, transfer="payload", sample_shape=(3, 96, 96), sample_dtype="uint8")
    with Trainer(terms) as trainer:
        trainer.call(lambda: trainer.service.rooms.open(trainer.endpoint))
        scorer, room = trainer.scorer(), PayloadRoom(trainer.endpoint)
        welcome = scorer.join()
        room.begin(welcome)
        payload = {
            "inputs": Array.of(np.zeros((4, 3, 96, 96), np.uint8)),
            "targets": Array.of(np.zeros(4, np.int64)),
        }
        late = answer(Lease(999, terms.generation, 0, 4, b"", 0, 60.0), Version(terms.generation, 0), **payload)
        placed = until(lambda: (message := room.placed(late)).placed and message, "the trainer to take the room")
        other = room.placed(late)
        assert (placed.placed.slot, other.placed.slot) == (0, 1)
        scorer.say(placed)
        until(lambda: (again := room.placed(late)).placed.slot == 0 or room.take_back(again), "slot 0 to be free")
        assert trainer.pool.refused() == {"no such lease": 1}
        trainer.call(trainer.service.rooms.close)
        room.forget()
