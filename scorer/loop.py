"""The scorer's main loop."""

import logging
import os
import signal
import socket
import sys
from types import FrameType

from common.config import ScorerOptions
from common.protocol import PROTOCOL_VERSION, Feedback, Hello, Lease
from scorer.backend import Backend, Learner, make_backend
from scorer.link import Link, new_incarnation
from scorer.staging import StagedWeights

log = logging.getLogger(__name__)


def main(options: ScorerOptions) -> int:
    """Score leases until the trainer ends or a signal comes. Returns the process's exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    backend = make_backend(options)
    hello = hello_of(options, backend)
    with Link(
        options.connect,
        hello,
        connect_s=options.connect_s,
        check_manifest=backend.check_manifest,
        wants_weights=backend.wants_weights,
    ) as link:
        stop_on_signals(link)
        serve(link, backend)
    return 0


def serve(link: Link, backend: Backend) -> None:
    """Load weights, score leases and learn until `next_work` has no more."""
    session: int | None = None
    while (work := link.next_work()) is not None:
        if isinstance(work, StagedWeights):
            backend.load(work)
            link.loaded(work)
            continue
        if session != work.welcome.session:
            backend.begin(work.welcome)
            session = work.welcome.session
        if isinstance(work.order, Lease):
            if not backend.wants_weights:
                backend.version = work.version
            link.answer(work.order, backend.score(work.order, work.welcome))
            continue
        assert isinstance(backend, Learner), f"{type(work.order).__name__} for a scorer that does not learn"
        if not isinstance(work.order, Feedback):
            backend.load_state(work.order)
        elif (state := backend.learn(work.order)) is not None:
            link.send(state)


def hello_of(options: ScorerOptions, backend: Backend) -> Hello:
    """What the trainer is told about this scorer."""
    return Hello(
        protocol=PROTOCOL_VERSION,
        run="",
        name=f"{socket.gethostname()}:{os.getpid()}",
        incarnation=new_incarnation(),
        device=backend.device,
        precision=options.precision,
        backend=options.resolved_backend,
        fingerprint=backend.fingerprint,
        num_samples=backend.num_samples,
        num_classes=backend.num_classes,
    )


def stop_on_signals(link: Link) -> None:
    """Ctrl-C and SIGTERM end the scorer after the current chunk, giving its leases back; a second one ends at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        link.stop(f"signal {signal.Signals(number).name}")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
