"""Fetches the newest weights version into a staging buffer, a window of buckets at a time. Runs on the I/O thread.

Latest wins: while one version is on its way, newer hints only move the goal. A scorer that computes with all that it
was sent gets the first window of the next version unasked. What arrives is verified before anyone sees it; what stops
arriving is asked for again.
"""

import collections
import logging
import time
from collections.abc import Callable

import numpy as np

from common.buckets import WINDOW
from common.protocol import Fetch, Version, Weights, WeightsGone
from scorer.landing import Landing
from scorer.staging import StagedWeights, Transfer

log = logging.getLogger(__name__)

TRANSFER_S = 20.0  # a transfer without a bucket for so long is asked for again, over another connection
LONGEST_S = 320.0  # each time twice as long as before: a slow connection gets a version through in the end


class Fetcher:
    """The caller serialises all calls.

    Args:
        send: a FETCH to the trainer; False if there is no connection yet.
        check_manifest: raises ProtocolError if weights of that layout do not fit the model; where they land, or None to
            keep their layout.
        events: counters of what happened, by name.
        reconnect: opens another connection in place of one on which nothing arrives: after a cut the kernel tries the
            old one ever more seldom.
    """

    def __init__(
        self,
        send: Callable[[Fetch], bool],
        check_manifest: Callable[[Weights], Landing | None],
        events: "collections.Counter[str] | None" = None,
        reconnect: Callable[[], object] = lambda: None,
    ) -> None:
        self._send = send
        self._reconnect = reconnect
        self._patience_s = TRANSFER_S
        self._check_manifest = check_manifest
        self._events = collections.Counter() if events is None else events
        self._session: int | None = None
        self._transfer: Transfer | None = None
        self._heard_at = 0.0
        self._spare: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = []
        self._have: Version | None = None  # staged or resident
        self._newest: Version | None = None
        self.staged: StagedWeights | None = None

    def begin(self, session: int) -> None:
        """A new session: versions of an earlier one mean nothing any more."""
        self.forget()
        self._session = session

    def forget(self) -> None:
        self._session = self._transfer = self.staged = self._newest = self._have = None
        self._patience_s = TRANSFER_S

    def hint(self, version: Version) -> None:
        """There is a version; fetch it if it is the newest heard of."""
        if self._is_news(version):
            self._newest = version
        self._start()

    def _is_news(self, version: Version) -> bool:
        return self._newest is None or version > self._newest

    @property
    def newest(self) -> Version | None:
        """The newest version heard of; None before one is."""
        return self._newest

    def take(self) -> StagedWeights | None:
        """The staged version, if there is one; its buffer belongs to the caller until `give_back`."""
        staged, self.staged = self.staged, None
        return staged

    def give_back(self, staged: StagedWeights) -> None:
        """Its buffer may be filled again."""
        self._spare.append(staged.flat)
        self._start()

    def retry(self) -> None:
        """Give up what came, which made no sense; the next `tick` asks again, over another connection.

        Over the same one the trainer would take that for a question that crossed what it sent unasked.
        """
        self._transfer = None
        self._reconnect()

    def tick(self, now: float) -> None:
        if self._transfer is not None and now - self._heard_at > self._patience_s:
            self._events["transfers that stopped"] += 1
            log.warning(
                "weights %s: nothing arrived for %.0f s; asking again over another connection",
                tuple(self._transfer.version),
                self._patience_s,
            )
            self._transfer = None
            self._patience_s = min(2 * self._patience_s, LONGEST_S)
            self._reconnect()
        self._start()

    def receive(self, message: Weights) -> None:
        """Take a bucket that was asked for, or that begins a version newer than all heard of.

        Raises:
            ProtocolError: it does not belong here, or its checksum is wrong.
        """
        if message.bucket == 0 and self._session is not None and self._is_news(message.version):
            self._newest = message.version
            if self._transfer is None:
                self._begin().asked = WINDOW
        transfer = self._transfer
        if transfer is None or (message.version, message.bucket) != (transfer.version, transfer.received):
            return  # of a transfer that was given up
        landing = self._check_manifest(message) if message.bucket == 0 else None
        staged = transfer.receive(message, landing)
        self._heard_at = time.monotonic()
        if staged is None:
            self._ask()
            return
        self._transfer, self._patience_s = None, TRANSFER_S
        self._events["versions fetched"] += 1
        if self.staged is not None:
            self._events["versions skipped"] += 1
            self._spare.append(self.staged.flat)
        self.staged = staged
        self._have = staged.version
        self._start()

    def gone(self, message: WeightsGone) -> None:
        """The trainer no longer holds what was asked for, which is not asked for again."""
        if self._transfer is None or message.version != self._transfer.version:
            return
        self._transfer = None
        if self._newest == message.version:
            self._newest = message.newest if message.newest != message.version else None
        self._start()

    def _start(self) -> None:
        """Start fetching the newest version unless it is here or something is on its way."""
        if self._session is None or self._newest is None or self._transfer is not None:
            return
        if self._have is not None and self._newest <= self._have:
            return
        self._begin()
        self._ask()

    def _begin(self) -> Transfer:
        """A transfer of the newest version, of which nothing was asked for yet."""
        assert self._newest is not None, "nothing to fetch"
        buffer = self._spare.pop() if self._spare else np.empty(0, dtype=np.uint8)
        self._transfer = Transfer(self._newest, buffer)
        self._heard_at = time.monotonic()
        return self._transfer

    def _ask(self) -> None:
        assert self._session is not None, "a transfer outside of a session"
        while self._transfer is not None and (window := self._transfer.next_window()) is not None:
            first, count = window
            if not self._send(Fetch(self._session, self._transfer.version, first, count)):
                self._transfer = None  # not connected yet: the next tick asks again
