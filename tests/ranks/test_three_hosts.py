"""A trainer's host with two ranks and two scorers' hosts, over tcp with keys: joins, leaves, a cut and its healing."""

import signal
from collections.abc import Iterator

import pytest

from common.security.keygen import make_folder
from tests.chaos.arena import ARENA
from tests.chaos.namespaces import ENTER
from tests.ranks.hosts import TRAINER_ADDRESS, Hosts
from tests.ranks.trainers import ranks
from tests.service.processes import Process, Processes, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ENDPOINT = f"tcp://{TRAINER_ADDRESS}:5555"
SCORER = "from scorer.__main__ import main\nsys.exit(main())"
SERVED = ("--keys", "keys", "--listen", ENDPOINT, "--service.silence-s", "3", "--steps", "1000000")
RECOVERY_S = 30.0


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(num_scorers=2) as made:
        yield made


def scorer_on(host: str, name: str, processes: Processes) -> Process:
    backend = ("--backend", "synthetic", "--synthetic-backend.chunk-s", "0.005")
    code = ENTER.format(name=host) + SCORER
    return processes.start(name, "-c", code, "--connect", ENDPOINT, "--keys", "keys", *backend)


def test_scorers_on_two_hosts_serve_both_ranks_through_joins_leaves_and_a_cut(
    hosts: Hosts, processes: Processes
) -> None:
    make_folder(processes.folder / "keys")
    inside = ENTER.format(name=hosts.trainer)
    trainers = ranks(processes, "out", *ARENA, *SERVED, first=inside)
    first = scorer_on(hosts.scorers[0], "first", processes)
    until(lambda: min(joined(trainers)) == 1, "the first scorer to join both ranks")
    second = scorer_on(hosts.scorers[1], "second", processes)
    until(lambda: min(joined(trainers)) == 2, "the second scorer to join both ranks")
    processes.reaches("out", processes.step("out") + 50)

    hosts.cut(0)
    until(lambda: all("silent for 3 s" in trainer.output for trainer in trainers), "both ranks to miss the first")
    processes.reaches("out", processes.step("out") + 50)  # with the other one
    hosts.heal(0)
    until(lambda: min(joined(trainers)) >= 3, "the first scorer to come back to both ranks", RECOVERY_S)

    second.send(signal.SIGTERM)
    second.succeeds()
    until(lambda: all("left" in trainer.output for trainer in trainers), "the second one's leave to be noted")
    processes.reaches("out", processes.step("out") + 50)
    trainers[0].send(signal.SIGTERM)  # told to one rank, it is the group that stops
    assert [trainer.code() for trainer in trainers] == [128 + signal.SIGTERM] * 2
    first.succeeds()
    for own in processes.summary("out")["ranks"]:
        leased = own["leases"]["leased"]
        assert leased == sum(own["leases"].values()) - leased, "the account balances"
        assert own["leases"]["expired"] >= 1
    parameters = {own["parameters"] for own in processes.summary("out")["ranks"]}
    assert len(parameters) == 1


def joined(trainers: list[Process]) -> list[int]:
    return [trainer.output.count(" joined: ") for trainer in trainers]
