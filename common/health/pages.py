"""The pages of a process, put together from what it says about itself."""

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from common.health.checks import Check
from common.health.metrics import Metric, Metrics

T = TypeVar("T")

TEXT = "text/plain; charset=utf-8"
STARTING = Check("start", False, "this process is starting")


class Page(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


class Pages:
    """What `/healthz`, `/readyz` and `/metrics` say. Before `show`, a process is alive and not ready."""

    def __init__(self) -> None:
        self._alive: Callable[[], Iterable[Check]] = lambda: ()
        self._ready: Callable[[], Iterable[Check]] = lambda: (STARTING,)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, file descriptors, CPU seconds

    def show(
        self,
        of: T,
        *,
        alive: Callable[[T], Iterable[Check]],
        ready: Callable[[T], Iterable[Check]],
        metrics: Sequence[Metric[T]],
    ) -> None:
        """From now on, show a process by what it is made of. Each function is called at each request, on any thread."""
        self._alive, self._ready = (lambda: alive(of)), (lambda: ready(of))
        self._registry.register(Metrics(metrics, of))

    def page(self, path: str, accept: str) -> Page:
        """What is at a path for a client that accepts certain content."""
        if path == "/healthz":
            return _answers(self._alive())
        if path == "/readyz":
            return _answers(self._ready())
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return Page(HTTPStatus.OK, content_type, encode(self._registry))
        return Page(HTTPStatus.NOT_FOUND, TEXT, b"there are /healthz, /readyz and /metrics\n")


def _answers(checks: Iterable[Check]) -> Page:
    """200 if all hold, else 503; a line for each."""
    seen = list(checks)
    status = HTTPStatus.OK if all(check.ok for check in seen) else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, TEXT, "".join(f"{check.line}\n" for check in seen).encode() or b"ok\n")
