"""A scorer and a trainer that are killed: what they shared is safe while it is used, and gone afterwards."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from common.payload_room import Rooms
from common.protocol import decode
from tests.common.payload_room.ends import Ends, answer, open_rooms, pattern
from tests.common.payload_room.samples import SESSION, WELCOME

REPOSITORY = Path(__file__).parents[3]
SCORER = """
import sys
from common.payload_room import PayloadRoom
from common.protocol import encode
from tests.common.payload_room.samples import WELCOME, answer_of, samples

room = PayloadRoom(sys.argv[1])
room.begin(WELCOME)
room.placed(answer_of(0, samples(0)))
print("handed over", flush=True)
for line in sys.stdin:
    message = room.placed(answer_of(int(line), samples(int(line))))
    print(b"".join(encode(message)).hex(), flush=True)
"""
TRAINER = """
import collections, sys
from common.payload_room import Rooms
from tests.common.payload_room.samples import SESSION

rooms = Rooms(collections.Counter())
rooms.open(sys.argv[1])
print("listening", flush=True)
for line in sys.stdin:
    rooms.tick({SESSION})
    print("ticked", flush=True)
"""

Child = subprocess.Popen[str]


@pytest.fixture
def start(apart: Ends) -> Iterator[Callable[[str], Child]]:
    """Starts one of these at the endpoint; its first word has come."""
    started: list[Child] = []

    def run(code: str) -> Child:
        command = [sys.executable, "-c", code, apart.endpoint]
        child = subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline()
        return child

    yield run
    for child in started:
        kill(child)


def ask(child: Child, line: str) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def kill(child: Child) -> None:
    child.kill()
    child.communicate(timeout=10)


def test_samples_of_a_killed_scorer_stay_until_they_are_trained_on(apart: Ends, start: Callable[[str], Child]) -> None:
    before = open_rooms()
    child = start(SCORER)
    apart.rooms.tick({SESSION})
    held = [apart.deliver(decode([bytes.fromhex(ask(child, str(number)))])) for number in (1, 2, 3)]
    assert apart.events["chunks through shared memory"] == 3
    kill(child)
    assert all(torch.equal(inputs, pattern(number)) for number, inputs in enumerate(held, start=1))
    apart.rooms.tick(set())
    assert torch.equal(held[2], pattern(3))
    held.clear()
    assert open_rooms()[0] == before[0], "the last mapping went with the last tensor"


def test_a_killed_trainer_leaves_nothing_and_the_next_one_gets_a_room(
    apart: Ends, start: Callable[[str], Child]
) -> None:
    apart.rooms.close()
    before = open_rooms()
    child = start(TRAINER)
    apart.room.begin(WELCOME)
    apart.room.placed(answer(0, pattern(0)))
    assert ask(child, "tick") == "ticked"
    apart.placed(1)
    kill(child)
    apart.placed(2)
    apart.room.forget()
    assert open_rooms()[0] == before[0]
    apart.rooms = Rooms(apart.events)
    apart.rooms.open(apart.endpoint)  # where the killed one left its socket
    apart.join()
    assert torch.equal(apart.deliver(apart.placed(3)), pattern(3))
    apart.rooms.close()
