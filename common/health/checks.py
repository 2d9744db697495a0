"""One answer of `/healthz` or `/readyz`, and what the answers of loops rest on."""

import time
from typing import NamedTuple


class Check(NamedTuple):
    """Something that holds or not, in words that say what was seen."""

    name: str
    ok: bool
    words: str

    @property
    def line(self) -> str:
        return f"{'ok' if self.ok else 'FAIL'} {self.name}: {self.words}"


class Pulse:
    """When a loop last came round. One thread beats, any may look."""

    def __init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        self._at = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._at


def moved(name: str, what: str, age_s: float, bound_s: float) -> Check:
    """Whether a loop came round within the bound. `what` completes "… 3.1 s ago"."""
    return Check(name, age_s <= bound_s, f"{what} {age_s:.1f} s ago, and {bound_s:g} s are the bound")
