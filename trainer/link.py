"""The trainer's end of the service: pool, publisher, sockets and their thread, opened and closed together."""

import contextlib
import logging
import threading

import numpy as np
from torch import nn

from common.config import TrainerOptions
from common.data.source import Source
from common.endpoints import port_of, weights_endpoint
from common.errors import is_final
from common.models import unwrap
from common.processes import private_folder
from common.protocol import Feedback, Version
from common.scheduling import talking_cores
from common.security import trainer_security
from common.transport import CONTROL, WEIGHTS, IOThread
from trainer.agreed import audits_of, histories_by_position, ships_all, terms_of
from trainer.assembly import Assembly
from trainer.leases import LeaseBook
from trainer.link_figures import LinkFigures
from trainer.lull import Lull
from trainer.plan import Plan
from trainer.pool import Pool
from trainer.publisher import NUM_SLOTS, Publisher
from trainer.ranks.group import ALONE, Group
from trainer.ranks.meeting import bound_together, check_listen
from trainer.service import Service
from trainer.watching import Watching

log = logging.getLogger(__name__)

SETTLE_S = 1.0


class ScorerLink:
    """Owns what stands between the training loop and the scorers. Entering binds, starts the thread and pushes weights.

    Each rank of a group has one. Rank 0's pushes weights; the others count on them, and note when that is.

    Attributes:
        pool: scored chunks for the feeder.
        service: sessions and counters, run by the I/O thread.
        audits: chunks that are scored twice.
        watching: raises alarms about scorers.
        figures: what came of it, in numbers.
        endpoint: where scorers connect: rank 0's.
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
        group: Group = ALONE,
        lull: Lull | None = None,
    ) -> None:
        check_listen(group, options.listen)
        self.options = options
        self.group, self._plan = group, plan
        self._generation = generation
        self._follows = not group.is_first  # another rank pushes
        self.ships_all = ships_all(options, source)
        self.stop_step = assembly.pace.stop_step
        self.pool = Pool(
            LeaseBook(options.resolved_chunk_size, assembly.pace, assembly.plan_visit),
            min_candidates=options.batch_size,
            chunks_per_step=assembly.pace.chunks_per_step,
            exact=options.candidates != "auto",
        )
        slots, silence_s = NUM_SLOTS if group.is_first else 0, options.service.silence_s
        # Other ranks may stand still for a version while this one need not, and then waits for them in its step.
        is_exact = options.fallback == "wait" or (self.ships_all and group.size > 1)
        self._push_wait_s = silence_s if is_exact else 0.0
        self._publisher = Publisher(unwrap(model), head, generation, num_slots=slots, silence_s=silence_s)
        terms = terms_of(options, source, model, generation, assembly, group.shard)
        histories, order = assembly.histories, assembly.selector.order
        histories_of = None if histories is None else histories_by_position(histories, order)
        self.audits = audits_of(options, terms)
        self.service = Service(terms, self.pool, self._publisher, histories_of, self.audits)
        self.watching = Watching(self.service.sessions, self.pool, assembly.pace, self.service.attendance.absent_s)
        self.service.watch = self.watching.tick
        self._security = trainer_security(options, options.listen)
        self._io = IOThread(
            "trainer-io",
            self.service,
            max_frame_bytes=terms.frame_limits,
            security=self._security,
            gives_way=True,
            hold=(lull or Lull()).wait,
        )
        self.figures = LinkFigures(
            self.service, self._publisher, self.pool, self.watching, self.audits, self._io, self._security
        )
        self.first_step = 0  # optimiser steps that the model has when this is entered
        self._closing = contextlib.ExitStack()
        self.endpoint = ""

    def __enter__(self) -> "ScorerLink":
        with talking_cores(), contextlib.ExitStack() as opened:
            listen = self.options.listen
            if listen is None and self.group.is_first:
                listen = f"ipc://{opened.enter_context(private_folder())}/t"
            opened.callback(self.service.rooms.close)
            opened.callback(self._io.stop)
            met = bound_together(self.group, listen, self._bind)
            self.endpoint, self.service.reception.ranks = met.first, met.ranks
            if self.options.transfer == "payload":
                self.service.rooms.open(met.own)
            self._io.start()
            self._closing = opened.pop_all()
        if self.group.is_first:
            log.info("scorers connect with: marginstream scorer --connect %s%s", self.endpoint, self.options.key_flags)
        self.push(self.first_step)
        return self

    def _bind(self, listen: str) -> str:
        """The control channel and, where there are weights, their channel beside it."""
        endpoint = self._io.bind(CONTROL, listen)
        if self.group.is_first:
            weights = weights_endpoint(listen, 0) if listen.startswith("ipc://") else weights_endpoint(endpoint, 0)
            self.service.reception.weights_port = port_of(self._io.bind(WEIGHTS, weights))
        return endpoint

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self.service.says_farewell = is_final(error)  # else a supervisor may start another in this place
        self.pool.finish()
        self._closing.close()
        self.audits.end()

    # -- training thread ----------------------------------------------------------------------------------------------

    @property
    def push_wanted(self) -> bool:
        return self.service.push_wanted

    def must_wait(self, step: int) -> bool:
        """Whether nothing but a scored chunk can make this step's batch."""
        self._check_alive()
        return self.ships_all or (self.options.fallback == "wait" and self._plan.selects(step))

    def require_scorer(self, step: int) -> None:
        """Raise NoScorer if the run requires a scorer, is not done with selecting and had none for too long."""
        if step < self.stop_step:
            self.service.attendance.require(self.options.service.require_scorer_s, self.endpoint)

    @property
    def num_scorers(self) -> int:
        return len(self.service.sessions)

    def push(self, step: int) -> None:
        """Copy the weights as they are after `step` optimiser steps and have them announced; rank 0 does it for all."""
        if not self._io.alive:
            self._check_alive()
        if self._follows:
            self._io.check()
            self._io.post(lambda: self.service.follow(Version(self._generation, step)))
            return
        self.service.push_wanted = False
        weights = self.service.weights
        slot = self._publisher.push(step, wire=weights.wire, wait_s=self._push_wait_s, is_wanted=weights.is_wanted)
        if slot is not None:
            self._io.post(lambda: self.service.announce(slot))
        else:
            self._io.check()  # where it does not come round, nothing is announced and no slot gets free

    def learn(self, ids: np.ndarray, losses: np.ndarray, histories: np.ndarray) -> None:
        """Have the predictor learn from losses of trained samples. Never blocks; any thread.

        Args:
            ids, losses: (b,) int64 local ids and float32; histories: (b, H) float32, the losses before these.
        """
        feedback = Feedback.of(self.group.shard.global_ids(ids), losses, histories)
        self._io.post(lambda: self.service.send_feedback(feedback))

    def _check_alive(self) -> None:
        if not self._io.alive:
            raise RuntimeError("the trainer's I/O thread has ended; no scorer can be heard") from self._io.error
        self._io.check()

    # -- feeder thread ------------------------------------------------------------------------------------------------

    def finish_selecting(self) -> None:
        """No further step selects: the pool closes and scorers drop what they hold, unless they ship what is left."""
        if self.ships_all:
            return
        leases = self.pool.finish()
        self._io.post(lambda: self.service.revoke(leases))

    # -- figures ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Have what was posted to the I/O thread until now be done, and counted; for `SETTLE_S` at most."""
        if not self._io.alive:
            return
        done = threading.Event()
        self._io.post(done.set)
        done.wait(SETTLE_S)
