"""Counters of what came and went on a trainer's wire, for figures and tests."""

import collections
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """Owned by the I/O thread; any thread may read it.

    Attributes:
        scored: candidates of the chunks that the pool took, by backend and precision of the scorer.
        events: what happened, by name.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    scored: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    events: collections.Counter[str] = field(default_factory=collections.Counter)
