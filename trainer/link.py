"""The trainer's end of the service: pool, publisher, sockets and their thread, opened and closed together."""

import contextlib
import logging
import time
from typing import Any

import numpy as np
from torch import nn

from common.config import TrainerOptions
from common.data.fingerprint import data_fingerprint
from common.data.source import AbsentSplit, Source
from common.endpoints import port_of, weights_endpoint
from common.errors import ConfigError
from common.models import unwrap
from common.order import Order
from common.processes import private_folder
from common.protocol import DEFAULT_LIMITS, Feedback
from common.security import trainer_security
from common.transport import CONTROL, WEIGHTS, IOThread
from common.weights import model_fingerprint
from trainer.assembly import Assembly
from trainer.audits import Audits
from trainer.leases import LeaseBook, Wanted
from trainer.plan import Plan
from trainer.pool import Pool
from trainer.prediction import LossHistories
from trainer.publisher import Publisher
from trainer.service import Service
from trainer.sessions import HistoriesOf
from trainer.terms import Terms

log = logging.getLogger(__name__)


class ScorerLink:
    """Owns what stands between the training loop and the scorers. Entering binds, starts the thread and pushes weights.

    Attributes:
        pool: scored chunks for the feeder.
        service: sessions and counters, run by the I/O thread.
        audits: chunks that are scored twice.
        endpoint: where scorers connect.
    """

    def __init__(
        self,
        options: TrainerOptions,
        source: Source,
        model: nn.Module,
        head: nn.Linear,
        plan: Plan,
        generation: int,
        assembly: Assembly,
    ) -> None:
        self._options = options
        self._plan = plan
        self.ships_all = isinstance(source.train, AbsentSplit)
        if self.ships_all and (options.transfer, options.payload) != ("payload", "all"):
            raise ConfigError(
                f"--transfer {options.transfer} --payload {options.payload}: this trainer's source has no readable "
                "training samples; use --transfer payload --payload all"
            )
        self.stop_step = assembly.pace.stop_step
        self.pool = Pool(
            LeaseBook(options.resolved_chunk_size, assembly.pace, assembly.plan_visit),
            min_candidates=options.batch_size,
            chunks_per_step=assembly.pace.chunks_per_step,
            exact=options.candidates != "auto",
        )
        self._publisher = Publisher(unwrap(model), head, generation)
        terms = terms_of(options, source, model, generation, assembly)
        histories_of = None
        if assembly.histories is not None:
            order = Order(source.sample.num_samples, options.seed, "candidates")
            histories_of = histories_by_position(assembly.histories, order)
        self.audits = Audits(
            options.log.audit_fraction if can_be_audited(options) else 0.0,
            batch_size=options.batch_size,
            generation=generation,
            seed=options.seed,
            score_name=next(iter(terms.scores), ""),
            lowest_is_hard=terms.lowest_is_hard,
            selects_best=options.entry.ranks and options.selection.temperature is None,
            lease_s=terms.lease_s,
        )
        self.service = Service(terms, self.pool, self._publisher, histories_of, self.audits)
        self._security = trainer_security(options, options.listen)
        self._io = IOThread(
            "trainer-io",
            self.service,
            max_frame_bytes=DEFAULT_LIMITS.max_frame_bytes,
            security=self._security,
        )
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
        log.info("scorers connect with: marginstream scorer --connect %s%s", self.endpoint, self._options.key_flags)
        self.push(0)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.pool.finish()
        self._closing.close()
        self.audits.close()

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
            step,
            wire=self.service.weights.wire,
            wait_s=self._options.service.silence_s if exact else 0.0,
            is_wanted=self.service.weights.is_wanted,
        )
        if slot is not None:
            self._io.post(lambda: self.service.announce(slot))

    def learn(self, ids: np.ndarray, losses: np.ndarray, histories: np.ndarray) -> None:
        """Have the predictor learn from losses of trained samples. Never blocks; any thread.

        Args:
            ids, losses: (b,) int64 and float32; histories: (b, H) float32, the losses before these.
        """
        feedback = Feedback.of(ids, losses, histories)
        self._io.post(lambda: self.service.send_feedback(feedback))

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

    @property
    def io_busy_s(self) -> float:
        """Seconds that the thread which talks to scorers worked."""
        return self._io.busy_s

    def summary(self) -> dict[str, Any]:
        traffic, publisher = self.service.traffic, self._publisher
        elapsed_s = max(time.perf_counter() - self._opened_at, 1e-9)
        return {
            "leases": self.pool.account(),
            "refused": self.pool.refused(),
            "events": dict(traffic.events) | (dict(self._security.events) if self._security is not None else {}),
            "audits": dict(self.audits.counts),
            "pushes": publisher.pushed,
            "pushes_skipped": publisher.skipped,
            "push_stall_s": publisher.stall_s,
            "wire_bytes_in": traffic.bytes_in,
            "wire_bytes_out": traffic.bytes_out,
            "io_thread_fraction": self._io.busy_s / elapsed_s,
        }


def can_be_audited(options: TrainerOptions) -> bool:
    """Whether scores select the samples of the step that they are fetched for, by a forward pass of the model."""
    return options.entry.kind != "planned" and options.entry.backend == "torch" and options.entry.needs_scorer


def histories_by_position(histories: LossHistories, order: Order) -> HistoriesOf:
    """Past losses of the positions of a lease that want a score."""

    def of(start: int, stop: int, wanted: Wanted) -> np.ndarray:
        positions = np.arange(start, stop)
        return histories.of(order.ids(positions if wanted is None else positions[wanted]))

    return of


def terms_of(options: TrainerOptions, source: Source, model: nn.Module, generation: int, assembly: Assembly) -> Terms:
    """What scorers of this run are told and must match."""
    sample = source.sample
    fingerprint = {"model": model_fingerprint(unwrap(model))}
    if not isinstance(source.train, AbsentSplit):
        fingerprint |= data_fingerprint(source, options.augment)
    return Terms(
        run=options.out.name if options.out is not None else "",
        generation=generation,
        seed=options.seed,
        num_samples=sample.num_samples,
        num_classes=sample.num_classes,
        chunk_size=options.resolved_chunk_size,
        scores=assembly.score_names,
        lowest_is_hard=assembly.lowest_is_hard,
        embeddings=assembly.embeddings,
        embedding_sizes=assembly.embedding_sizes,
        backend=options.entry.backend,
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
        steps=options.steps,
    )
