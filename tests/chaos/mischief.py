"""What a storm does to a run: each act is one blow, bounded in time, that leaves the run able to go on."""

import random
import signal
import time
from collections.abc import Callable

from common.protocol import Goodbye, Lease, Return, Version
from tests.chaos import holding
from tests.chaos.relay import WEIGHTS, Relay
from tests.service.peers import HandMadeScorer, answer, hello
from tests.service.processes import Process, Processes

FOREIGN = {"backend": "synthetic", "fingerprint": {}, "num_samples": 0, "num_classes": 0}


class Run:
    """A run under attack: its trainer, its scorers, the relay between them, and how each is started again.

    Args:
        start_trainer: told whether to go on from the checkpoint.
        start_scorer: told a number that no scorer had before.
    """

    def __init__(
        self,
        processes: Processes,
        relay: Relay,
        start_trainer: Callable[[bool], Process],
        start_scorer: Callable[[int], Process],
        num_scorers: int = 2,
    ) -> None:
        self.folder = processes.folder
        self.relay = relay
        self.endpoint = processes.endpoint()
        self._start_trainer, self._start_scorer = start_trainer, start_scorer
        self._started = num_scorers
        self.trainer = start_trainer(False)
        self.scorers = [start_scorer(number) for number in range(num_scorers)]

    def replace_trainer(self) -> None:
        self.trainer = self._start_trainer(True)

    def replace_scorer(self, index: int) -> None:
        self.scorers[index] = self._start_scorer(self._started)
        self._started += 1


Act = Callable[[Run, random.Random], None]


def kill_scorer(run: Run, draw: random.Random) -> None:
    index = draw.randrange(len(run.scorers))
    run.scorers[index].end()
    time.sleep(draw.uniform(0, 2))
    run.replace_scorer(index)


def stop_scorer(run: Run, draw: random.Random) -> None:
    victim = draw.choice(run.scorers)
    victim.send(signal.SIGSTOP)
    time.sleep(draw.uniform(0.5, 6))
    victim.send(signal.SIGCONT)


def stop_trainer(run: Run, draw: random.Random) -> None:
    run.trainer.send(signal.SIGSTOP)
    time.sleep(draw.uniform(0.5, 4))
    run.trainer.send(signal.SIGCONT)


def kill_trainer(run: Run, draw: random.Random) -> None:
    """Sometimes in the middle of a transfer of weights."""
    if draw.random() < 0.5:
        run.relay.stall_after[WEIGHTS] = run.relay.to_scorers[WEIGHTS] + draw.randrange(10_000)
        time.sleep(draw.uniform(0, 1))
    run.trainer.end()
    run.replace_trainer()
    run.relay.heal()


def spin_scorer(run: Run, draw: random.Random) -> None:
    victim = draw.choice(run.scorers)
    holding.hold(run.folder, victim.pid, "loop")
    time.sleep(draw.uniform(0.5, 5))
    holding.release(run.folder, victim.pid)


def hold_interpreter(run: Run, draw: random.Random) -> None:
    holding.hold(run.folder, draw.choice(run.scorers).pid, str(draw.uniform(0.5, 4)))


def cut_network(run: Run, draw: random.Random) -> None:
    run.relay.cut()
    time.sleep(draw.uniform(0.2, 4))
    run.relay.heal()


def stall_network(run: Run, draw: random.Random) -> None:
    channel = draw.choice(list(run.relay.to_scorers))
    run.relay.stall_after[channel] = run.relay.to_scorers[channel] + draw.randrange(10_000)
    time.sleep(draw.uniform(0.2, 5))
    run.relay.heal()


def delay_network(run: Run, draw: random.Random) -> None:
    run.relay.delay_s = draw.uniform(0.01, 0.3)
    time.sleep(draw.uniform(0.5, 4))
    run.relay.heal()


def send_liar(run: Run, draw: random.Random) -> None:
    """A peer that answers twice, out of order, late, out of an earlier life, and leaves with leases in hand."""
    with HandMadeScorer(run.endpoint) as liar:
        welcome = liar.join(**FOREIGN)
        if not liar.control.poll(2_000):
            return
        lease = liar.hear(Lease)
        version = welcome.version or Version(welcome.generation, 0)
        honest = answer(lease, version)
        lies = [honest, honest, answer(lease, Version(version.generation - 1, version.step)), Return((lease.lease,))]
        for message in draw.sample(lies, draw.randint(1, len(lies))):
            liar.say(message)
        if draw.random() < 0.5:
            liar.say(Goodbye("enough"))


def send_crowd(run: Run, draw: random.Random) -> None:
    """Peers that say HELLO and are gone."""
    for _ in range(draw.randint(5, 50)):
        with HandMadeScorer(run.endpoint) as peer:
            peer.say(hello(**FOREIGN))


ACTS: tuple[Act, ...] = (
    kill_scorer,
    stop_scorer,
    stop_trainer,
    kill_trainer,
    spin_scorer,
    hold_interpreter,
    cut_network,
    stall_network,
    delay_network,
    send_liar,
    send_crowd,
)
