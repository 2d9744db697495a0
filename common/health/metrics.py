"""Counters that a process keeps anyway, as Prometheus wants them: read when it asks.

Names follow its practice: `marginstream_`, base units, `_total` where a number only grows (until the process starts
anew), labels whose values are few and never a peer's choice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

PREFIX = "marginstream_"

T = TypeVar("T")
Values = float | Mapping[Any, float]


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One name that is exposed.

    Attributes:
        name: without prefix, and without the `_total` that a counter ends in.
        help: one line.
        read: a number, or numbers by the value(s) of the label(s); None while there is none. A histogram gives how
            often each whole number occurred.
        bounds: upper ends of a histogram's buckets, ascending.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    read: Callable[[T], Values | None]
    labels: tuple[str, ...] = ()
    bounds: tuple[int, ...] = ()

    @property
    def shown_name(self) -> str:
        """As Prometheus shows it, with its labels: `marginstream_steps_total`."""
        total = "_total" if self.kind == "counter" else ""
        labels = f"{{{','.join(self.labels)}}}" if self.labels else ""
        return f"{PREFIX}{self.name}{total}{labels}"

    def family(self, of: T) -> Family | None:
        """What is exposed now; None if there is nothing."""
        values = self.read(of)
        if values is None:
            return None
        name = PREFIX + self.name
        if self.kind == "histogram":
            assert isinstance(values, Mapping), f"{name} without counts"
            return _histogram(name, self.help, values, self.bounds)
        made = (CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily)(
            name, self.help, labels=self.labels
        )
        if not isinstance(values, Mapping):
            made.add_metric([], values)
            return made
        for label, value in values.items():
            made.add_metric([label] if isinstance(label, str) else label, value)
        return made


def counter(name: str, help: str, read: Callable[[T], Values | None], *labels: str) -> Metric[T]:
    """A number that only grows."""
    return Metric("counter", name, help, read, labels)


def gauge(name: str, help: str, read: Callable[[T], Values | None], *labels: str) -> Metric[T]:
    """A number that comes and goes."""
    return Metric("gauge", name, help, read, labels)


def _histogram(name: str, help: str, counts: Mapping[int, float], bounds: Sequence[int]) -> Family:
    buckets = [(f"{bound:.1f}", sum(num for value, num in counts.items() if value <= bound)) for bound in bounds]
    whole = sum(counts.values())
    total = sum(value * num for value, num in counts.items())
    return HistogramMetricFamily(name, help, buckets=[*buckets, ("+Inf", whole)], sum_value=total)


class Metrics(Collector, Generic[T]):
    """All metrics of one kind of process, read from `of` at each scrape."""

    def __init__(self, metrics: Sequence[Metric[T]], of: T) -> None:
        self._metrics = metrics
        self._of = of

    def describe(self) -> list[Family]:
        """Nothing: a registry would read them all to know their names."""
        return []

    def collect(self) -> Iterator[Family]:
        for metric in self._metrics:
            if (family := metric.family(self._of)) is not None:
                yield family
