"""The trainer's end of the service: pool, publisher, sockets and their thread, opened and closed together."""

import contextlib
import logging
import time
from typing import Any

from torch import nn

from common.config import TrainerOptions
from common.data.fingerprint import data_fingerprint
from common.data.source import AbsentSplit, Source
from common.endpoints import port_of, weights_endpoint
from common.errors import ConfigError
from common.models import unwrap
from common.processes import private_folder
from common.protocol import DEFAULT_LIMITS
from common.selection.methods import METHODS
from common.transport import CONTROL, WEIGHTS, IOThread
from common.weights import model_fingerprint
from trainer.leases import LeaseBook, Pace
from trainer.plan import Plan
from trainer.pool import Pool
from trainer.publisher import Publisher
from trainer.service import Service
from trainer.terms import Terms

log = logging.getLogger(__name__)

LOWEST_IS_HARD = frozenset({"mms"})  # scores whose low end is the hard one


class ScorerLink:
    """Owns what stands between the training loop and the scorers. Entering binds, starts the thread and pushes weights.

    Attributes:
        pool: scored chunks for the feeder.
        service: sessions and counters, run by the I/O thread.
        endpoint: where scorers connect.
    """

    def __init__(
        self, options: TrainerOptions, source: Source, model: nn.Module, head: nn.Linear, plan: Plan, generation: int
    ) -> None:
        self._options = options
        chunk_size = options.resolved_chunk_size
        chunks_per_step = options.max_candidates // chunk_size
        self._plan = plan
        self.ships_all = isinstance(source.train, AbsentSplit)
        if self.ships_all and (options.transfer, options.payload) != ("payload", "all"):
            raise ConfigError(
                f"--transfer {options.transfer} --payload {options.payload}: this trainer's source has no readable "
                "training samples; use --transfer payload --payload all"
            )
        first_step, self.stop_step = (0, options.steps) if self.ships_all else (plan.first_step, plan.stop_step)
        pace = Pace(chunks_per_step, options.max_staleness, options.push_every, first_step, self.stop_step)
        self.pool = Pool(
            LeaseBook(chunk_size, pace),
            min_candidates=options.batch_size,
            chunks_per_step=chunks_per_step,
            exact=options.candidates != "auto",
        )
        self._publisher = Publisher(unwrap(model), head, generation)
        self.service = Service(terms_of(options, source, model, generation), self.pool, self._publisher)
        self._io = IOThread("trainer-io", self.service, max_frame_bytes=DEFAULT_LIMITS.max_frame_bytes)
        self._opened_at = time.perf_counter()
        self._closing = contextlib.ExitStack()
        self.endpoint = ""

    def __enter__(self) -> "ScorerLink":
        with contextlib.ExitStack() as opened:
            listen = self._options.listen
            if listen is None:
                listen = f"ipc://{opened.enter_context(private_folder())}/t"
            opened.callback(self._io.stop)
            self.endpoint = self._io.bind(CONTROL, listen)
            weights = weights_endpoint(listen, 0) if listen.startswith("ipc://") else weights_endpoint(self.endpoint, 0)
            self.service.weights_port = port_of(self._io.bind(WEIGHTS, weights))
            self._io.start()
            self._closing = opened.pop_all()
        log.info("scorers connect with: marginstream scorer --connect %s", self.endpoint)
        self.push(0)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.pool.finish()
        self._closing.close()

    # -- training thread ----------------------------------------------------------------------------------------------

    @property
    def push_wanted(self) -> bool:
        return self.service.push_wanted

    def must_wait(self, step: int) -> bool:
        """Whether nothing but a scored chunk can make this step's batch."""
        self._check_alive()
        return self.ships_all or (self._options.fallback == "wait" and self._plan.selects(step))

    @property
    def num_scorers(self) -> int:
        return len(self.service.sessions)

    def push(self, step: int) -> None:
        """Copy the weights as they are after `step` optimiser steps and have them announced."""
        self._check_alive()
        self.service.push_wanted = False
        exact = self._options.fallback == "wait"
        slot = self._publisher.push(
            step, wire=self.service.weights.wire, wait_s=self._options.service.silence_s if exact else 0.0
        )
        if slot is not None:
            self._io.post(lambda: self.service.announce(slot))

    def _check_alive(self) -> None:
        if not self._io.alive:
            raise RuntimeError("the trainer's I/O thread has ended; no scorer can be heard") from self._io.error

    # -- feeder thread ------------------------------------------------------------------------------------------------

    def finish_selecting(self) -> None:
        """No further step selects: the pool closes and scorers drop what they hold, unless they ship what is left."""
        if self.ships_all:
            return
        leases = self.pool.finish()
        self._io.post(lambda: self.service.revoke(leases))

    # -- figures ------------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        traffic, publisher = self.service.traffic, self._publisher
        elapsed_s = max(time.perf_counter() - self._opened_at, 1e-9)
        return {
            "leases": self.pool.account(),
            "refused": self.pool.refused(),
            "events": dict(traffic.events),
            "pushes": publisher.pushed,
            "pushes_skipped": publisher.skipped,
            "push_stall_s": publisher.stall_s,
            "wire_bytes_in": traffic.bytes_in,
            "wire_bytes_out": traffic.bytes_out,
            "io_thread_fraction": self._io.busy_s / elapsed_s,
        }


def terms_of(options: TrainerOptions, source: Source, model: nn.Module, generation: int) -> Terms:
    """What scorers of this run are told and must match."""
    sample = source.sample
    fingerprint = {"model": model_fingerprint(unwrap(model))}
    if not isinstance(source.train, AbsentSplit):
        fingerprint |= data_fingerprint(source, options.augment)
    score = METHODS[options.method].score
    return Terms(
        run=options.out.name if options.out is not None else "",
        generation=generation,
        seed=options.seed,
        num_samples=sample.num_samples,
        num_classes=sample.num_classes,
        chunk_size=options.resolved_chunk_size,
        scores=(score,) if score is not None else (),
        lowest_is_hard=score in LOWEST_IS_HARD,
        transfer=options.transfer,
        best_k=options.payload_best if options.transfer == "payload" else None,
        fingerprint=fingerprint,
        sample_shape=tuple(sample.shape),
        sample_dtype=str(sample.dtype).removeprefix("torch."),
        target_shape=tuple(sample.target_shape),
        wire=options.wire,
        leases_per_scorer=options.service.leases_per_scorer,
        silence_s=options.service.silence_s,
        lease_s=options.service.lease_s,
    )
