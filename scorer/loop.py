"""The scorer's main loop."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from common.config import ScorerOptions
from common.protocol import PROTOCOL_VERSION, Feedback, Hello, Lease
from common.security import scorer_security
from scorer.backend import Backend, Learner, Together, make_backend
from scorer.health import open_pages, show
from scorer.link import Link
from scorer.staging import StagedWeights

if TYPE_CHECKING:
    from common.tracing import Tracing

log = logging.getLogger(__name__)


def main(options: ScorerOptions) -> int:
    """Score leases until the trainer ends or a signal comes. Returns the process's exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with contextlib.ExitStack() as opened:
        pages = opened.enter_context(open_pages(options.metrics_port))  # before what takes seconds
        backend = make_backend(options)
        hello = hello_of(options, backend)
        link = Link(
            options.connect,
            hello,
            connect_s=options.connect_s,
            check_manifest=backend.check_manifest,
            wants_weights=backend.wants_weights,
            security=scorer_security(options, options.connect),
        )
        if pages is not None:
            link.watched.bound_s = options.unhealthy_after_s
            show(pages, link.watched)
        tracing = opened.enter_context(open_tracing(options, link)) if options.profile else None
        opened.enter_context(link)
        stop_on_signals(link)
        serve(link, backend, tracing)
    return 0


def open_tracing(options: ScorerOptions, link: Link) -> "Tracing":
    """The trace of --profile, in which the phases of the stopwatch are marked."""
    # Imported here: a synthetic scorer has no torch, and starts in a fraction of a second.
    from torch.profiler import record_function

    from common.tracing import Tracing

    link.stopwatch.mark = record_function
    return Tracing(options.profile_to or Path(f"trace-scorer-{os.getpid()}.json"), "chunks")


def serve(link: Link, backend: Backend, tracing: "Tracing | None" = None) -> None:
    """Load weights, score leases and learn until `next_work` has no more.

    Args:
        tracing: begins with the first chunk that is scored with weights of the run's second half.
    """
    begun: dict[int, int] = {}  # the session that the backend knows of, by rank
    stopwatch = link.stopwatch
    together = backend if isinstance(backend, Together) else None
    while (work := link.next_work(1 if together is None else together.most_together)) is not None:
        if isinstance(work, StagedWeights):
            with stopwatch.during("load_s"):
                backend.load(work)
            link.loaded(work)
            continue
        if begun.get(work.welcome.rank) != work.welcome.session:
            backend.begin(work.welcome)
            begun[work.welcome.rank] = work.welcome.session
        if isinstance(work.order, Lease):
            if not backend.wants_weights:
                backend.version = work.version
            if tracing is not None:
                version = backend.version
                tracing.before(is_middle=version is not None and 2 * version.step >= work.welcome.steps)
            with stopwatch.during("answer_s"):
                leases = (work.order, *work.along)
                if together is not None:
                    answers = together.score_together(leases, work.welcome)
                else:
                    answers = [backend.score(lease, work.welcome) for lease in leases]
                stopwatch.move("answer_s", "read_s", sum(answer.read_s for answer in answers))
                stopwatch.move("answer_s", "score_s", sum(answer.score_s for answer in answers))
                link.answer_all(list(zip(leases, answers, strict=True)))
            continue
        assert isinstance(backend, Learner), f"{type(work.order).__name__} for a scorer that does not learn"
        with stopwatch.during("answer_s"):
            if not isinstance(work.order, Feedback):
                backend.load_state(work.order, work.welcome.rank)
            elif (state := backend.learn(work.order, work.welcome.rank)) is not None:
                link.send(state)


def hello_of(options: ScorerOptions, backend: Backend) -> Hello:
    """What the trainer is told about this scorer."""
    return Hello(
        protocol=PROTOCOL_VERSION,
        run="",
        name=f"{socket.gethostname()}:{os.getpid()}",
        incarnation=secrets.randbits(63),  # tells two starts of a scorer apart
        device=backend.device,
        precision=backend.precision,
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
