"""What a trainer says to operators over HTTP: whether it is alive, whether it is ready."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common.config import TrainerOptions
from common.health.checks import Check, moved
from common.transport import STUCK_S
from trainer.checkpoint import Checkpoints
from trainer.feeder import Feeder
from trainer.link import ScorerLink
from trainer.selector import Selector
from trainer.tally import Tally


@dataclass
class Watched:
    """What is looked at, from the server's threads; nothing here is changed.

    Attributes:
        link: None unless the mode is stale.
        checkpoints: None in a loop that keeps none, or before they are known.
        port: where they look; None unless `health_of` is open and the options ask for it.
    """

    options: TrainerOptions
    tally: Tally
    feeder: Feeder[Any]
    selector: Selector
    link: ScorerLink | None
    checkpoints: Checkpoints | None = None
    port: int | None = None

    @property
    def waits_for_scores(self) -> bool:
        """The training thread stands still, and only scorers can end that."""
        must_wait = self.link is not None and (self.link.ships_all or self.options.fallback == "wait")
        return must_wait and self.feeder.is_awaited

    @property
    def alarms(self) -> dict[str, int]:
        """How often each was raised, by name."""
        raised = {} if self.link is None else dict(self.link.watching.alarms.counts)
        failed = 0 if self.checkpoints is None else self.checkpoints.num_failed
        return raised | ({"checkpoint not written": failed} if failed else {})


@contextlib.contextmanager
def health_of(watched: Watched) -> Iterator[None]:
    """Serve `--metrics-port` meanwhile, if there is one.

    Raises:
        EndpointError: the port is in use.
    """
    if watched.options.metrics_port is None:
        yield
        return
    # Imported here: prometheus-client takes a tenth of a second, and few ask for it.
    from common.health.server import HealthServer
    from trainer.metrics import METRICS

    with HealthServer(watched.options.metrics_port) as server:
        watched.port = server.port
        server.pages.show(watched, alive=alive, ready=ready, metrics=METRICS)
        yield


def alive(watched: Watched) -> Iterator[Check]:
    """Whether the loops come round."""
    bound_s, age_s = watched.options.unhealthy_after_s, watched.tally.since_step_s
    if age_s is None:
        yield Check("training", True, "has not begun")
    elif watched.waits_for_scores:
        within_s = watched.options.service.wait_deadline_s
        yield Check("training", True, f"waits for scored candidates, and gives up after {within_s:g} s")
    else:
        yield moved("training", "the last step ended", age_s, bound_s)
    if watched.link is not None:
        yield moved("scorers", "the thread that talks to them came round", watched.link.figures.io_age_s, STUCK_S)


def ready(watched: Watched) -> Iterator[Check]:
    """Whether scorers can connect, and there is enough to train on."""
    if (link := watched.link) is not None:
        yield Check("endpoint", bool(link.endpoint), f"scorers connect to {link.endpoint or 'nothing yet'}")
        announced = link.pool.announced
        yield Check("weights", announced is not None, f"of step {announced.step}" if announced else "not pushed yet")
    if watched.tally.since_step_s is None:
        here = "" if link is None else f", for the first scored chunk; {link.num_scorers} scorers are here"
        yield Check("training", False, f"waits to begin{here}")
    elif watched.waits_for_scores and link is not None and link.num_scorers == 0:
        yield Check("training", False, "waits for scored candidates, and no scorer is here")
    else:
        yield Check("training", True, f"{watched.tally.figures.steps} of {watched.options.steps} steps")
