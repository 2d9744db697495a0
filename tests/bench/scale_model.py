"""What runs out first as scorers and ranks grow: costs of one machine, and arithmetic.

S scorers serve W ranks: every scorer has a session with every rank, rank 0 alone hands out weights. Each rank takes p
chunks a step of T seconds, whatever S is; a chunk is a scorer's forward pass of F seconds. A resource is used up at 1.

    scorers' forward passes   W·p·F / (S·T)            that is N/k <= 3·S·q, for W ranks
    leases out                p·F/T over 5p            a rank leases at most 6p chunks, of which p wait for their step
    I/O thread of a rank      (p/T)·chunk + S·beats + 10·tick, at rank 0 and S·(hand-over + fetches + buckets) a push
    rank 0's ZeroMQ threads   S·M·s / (Z·push)         M bytes of weights, s seconds a byte, Z threads
    rank 0's network          S·M / (push·bandwidth)
    age of the weights        in steps, over the bound: what S·M take the slowest of these three to arrive, as much or a
                              push until the next have come, and 6 that a chunk may be ahead of its step
    a scorer's I/O thread     W·beats + W·p/(S·T)·chunk
    sessions of a rank        S / 1024
    open files of rank 0      (2·S + 64) / limit
    sockets of a scorer       (3·W + 1) / 8192

Where pushing is too slow nobody waits: versions are skipped and scores grow older, until they are too old to be used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from common.buckets import WINDOW, num_buckets
from common.sockets import MAX_SOCKETS, MOST_WEIGHTS_THREADS
from common.transport import TICK_S
from tests.bench.scale_costs import SessionCosts
from trainer.reception import MAX_SESSIONS
from trainer.terms import HEARTBEAT_S

ZMQ_THREADS = MOST_WEIGHTS_THREADS  # of a host with enough cores
OWN_FILES = 64  # a trainer's without scorers, about
AHEAD_STEPS = 6  # at most that much of chunks is leased or ready
LEASED_STEPS = AHEAD_STEPS - 1  # one of them is ready and waits for its step

FORWARD, LEASES = "scorers' forward passes", "leases out"
IO_FIRST, IO_OTHER = "rank 0's I/O thread", "another rank's I/O thread"
ZMQ, NETWORK, AGE = "rank 0's ZeroMQ threads", "rank 0's network", "age of the weights"
SCORER_IO, SESSIONS = "a scorer's I/O thread", "sessions of a rank"
FILES, SOCKETS = "open files of rank 0", "sockets of a scorer"

STEADY = (FORWARD, LEASES, SCORER_IO, SOCKETS)  # more scorers need no more of them
SKIPPING = (
    ZMQ,
    NETWORK,
)  # where these are used up versions are skipped, and the age of the weights says how far that goes

MOVES = {
    FORWARD: "more scorers, a lower precision, or fewer candidates",
    LEASES: "smaller chunks, or faster scorers; more of them are not asked",
    IO_FIRST: "weights from other ranks too (all hold the same), push less often",
    IO_OTHER: "larger chunks",
    ZMQ: "weights from every rank (W times), more threads, scorers that pass weights on, push less often",
    NETWORK: "weights from every rank (W times), scorers that pass weights on, push less often",
    AGE: "as for the slowest of network, threads and I/O thread; or a higher --max-staleness",
    SCORER_IO: "a scorer for some of the ranks only",
    SESSIONS: "a higher MAX_SESSIONS",
    FILES: "ulimit -n",
    SOCKETS: "a scorer for some of the ranks only",
}


@dataclass(frozen=True)
class Costs:
    """Of this machine.

    Attributes:
        sessions: by their number, what is measured without sockets.
        wake_s: of the I/O thread for each tick and each answer or heartbeat that arrives, on top: caches are cold.
        send_s, send_bucket_s: of the I/O thread for each message sent, on top.
        send_s_per_byte: of a ZeroMQ thread.
        scorer_message_s: of a scorer's I/O thread, a message with its socket.
    """

    sessions: Mapping[int, SessionCosts]
    wake_s: float
    send_s: float
    send_bucket_s: float
    send_s_per_byte: float
    scorer_message_s: float

    def of(self, name: str, num: float) -> float:
        """A cost with so many sessions: between two measured numbers on a line, beyond them as the last two go."""
        known = sorted(self.sessions)
        if len(known) == 1:
            return float(getattr(self.sessions[known[0]], name))
        above = next((index for index, one in enumerate(known) if index and one >= num), len(known) - 1)
        low, high = known[above - 1], known[above]
        at_low, at_high = (float(getattr(self.sessions[one], name)) for one in (low, high))
        return max(0.0, at_low + (at_high - at_low) * (num - low) / (high - low))


@dataclass(frozen=True)
class Scenario:
    """A model and how it is trained, on one rank.

    Attributes:
        weights_bytes: of a version on the wire.
        step_s, chunk_s: a training step, a scorer's forward pass over a chunk.
        bandwidth: bytes a second that leave rank 0's host.
        open_files: limit of rank 0's process.
        serving: ranks that hand out weights, to equally many scorers each; it is one.
    """

    weights_bytes: float
    step_s: float
    chunk_s: float
    chunks_per_step: int = 5
    push_every: int = 8
    max_staleness: int = 64
    bandwidth: float = 12.5e9
    open_files: int = 65536
    serving: int = 1


def io_share(costs: Costs, scenario: Scenario, num: int, *, pushes: bool, version_s: float | None = None) -> float:
    """Share of a core that a rank's I/O thread needs with so many scorers.

    Args:
        pushes: of rank 0, which hands out weights.
        version_s: seconds between two versions that the scorers fetch; by default every one that is pushed.
    """
    through_s = costs.wake_s + costs.send_s
    per_chunk = costs.of("chunk_s", num) + through_s
    beats = costs.of("beat_in_s", num) + costs.of("beat_out_s", num) + through_s
    share = scenario.chunks_per_step / scenario.step_s * per_chunk + num * beats / HEARTBEAT_S
    share += (costs.of("tick_s", num) + costs.wake_s) / TICK_S
    if pushes:
        push_s = scenario.push_every * scenario.step_s if version_s is None else version_s
        share += num / scenario.serving * push_cost_s(costs, scenario, num) / push_s
    return share


def push_cost_s(costs: Costs, scenario: Scenario, num: int) -> float:
    """Seconds of the I/O thread for one scorer and one version: a window unasked, the others as it asks for them."""
    buckets = num_buckets(int(scenario.weights_bytes))
    windows = -(-buckets // WINDOW)
    first_s = costs.of("hand_over_s", num) + (windows - 1) * costs.of("fetch_s", num)
    return first_s + (buckets - windows) * costs.of("bucket_s", num) + buckets * costs.send_bucket_s


def used(costs: Costs, scenario: Scenario, scorers: int, ranks: int) -> dict[str, float]:
    """How much of each resource a run needs; above 1 is more than there is."""
    step_s, per_step = scenario.step_s, scenario.chunks_per_step
    push_s = scenario.push_every * step_s
    fetching = scorers / scenario.serving
    sent_bytes = fetching * scenario.weights_bytes
    zmq_s = sent_bytes * costs.send_s_per_byte / ZMQ_THREADS
    network_s = sent_bytes / scenario.bandwidth
    handed_s = fetching * push_cost_s(costs, scenario, scorers)
    arrives = max(zmq_s, network_s, handed_s) / step_s  # steps that a version is on its way to all of them
    chunks_of_scorer = ranks * per_step / step_s / scorers
    return {
        FORWARD: chunks_of_scorer * scenario.chunk_s,
        LEASES: scenario.chunk_s / step_s / LEASED_STEPS,
        IO_FIRST: io_share(costs, scenario, scorers, pushes=True),
        IO_OTHER: io_share(costs, scenario, scorers, pushes=False) if ranks > 1 else 0.0,
        ZMQ: zmq_s / push_s,
        NETWORK: network_s / push_s,
        AGE: (arrives + max(scenario.push_every, arrives) + AHEAD_STEPS) / scenario.max_staleness,
        SCORER_IO: (2 * ranks / HEARTBEAT_S + 2 * chunks_of_scorer) * costs.scorer_message_s,
        SESSIONS: scorers / MAX_SESSIONS,
        FILES: (2 * scorers + OWN_FILES) / scenario.open_files,
        SOCKETS: (3 * ranks + 1) / MAX_SOCKETS,
    }


def fewest_scorers(scenario: Scenario, ranks: int) -> int:
    """Enough that training need not wait for forward passes."""
    return math.ceil(ranks * scenario.chunks_per_step * scenario.chunk_s / scenario.step_s)


def most_scorers(costs: Costs, scenario: Scenario, ranks: int, *, may_skip: bool = False) -> tuple[int, str]:
    """The most scorers with which nothing that grows with their number passes 1, and what would pass it next.

    Args:
        may_skip: versions of the weights may be skipped, as long as what arrives is not too old.
    """
    fit, too_many = 0, MAX_SESSIONS + 1
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        if max(_growing(costs, scenario, middle, ranks, may_skip).values()) > 1:
            too_many = middle
        else:
            fit = middle
    beyond = _growing(costs, scenario, too_many, ranks, may_skip)
    return fit, max(beyond, key=lambda name: beyond[name])


def _growing(costs: Costs, scenario: Scenario, scorers: int, ranks: int, may_skip: bool) -> dict[str, float]:
    """What a run needs of the resources of which more scorers need more."""
    left_out = (*STEADY, *SKIPPING) if may_skip else STEADY
    return {name: one for name, one in used(costs, scenario, scorers, ranks).items() if name not in left_out}
