"""Hands weights versions out to scorers that ask for them. Runs on the I/O thread."""

import collections

import zmq

from common.buckets import WINDOW, num_buckets
from common.protocol import Fetch, Hello, Version, VersionHint, WeightsGone, encode
from common.transport import CONTROL, WEIGHTS
from trainer.publisher import Publisher
from trainer.sessions import Send, Session, Sessions
from trainer.slot import Slot, Wire
from trainer.terms import FOREIGN_BACKENDS

MAX_OUTGOING = 4 * WINDOW  # buckets on their way to one scorer; an honest one has two windows at most
WITHOUT_WEIGHTS = ("predictor", "proxy")  # backends that fetch none


class WeightsDesk:
    """Which version a scorer should have, and its buckets on request.

    Args:
        wire: "auto", "float32" or "bf16", as asked for.
    """

    def __init__(self, publisher: Publisher, sessions: Sessions, send: Send, wire: str) -> None:
        self._publisher = publisher
        self._sessions = sessions
        self._send = send
        self._wire = wire
        self.announced: collections.deque[Version] = collections.deque(maxlen=4096)
        self.filled: collections.deque[Slot] = collections.deque()  # whose copies to the host are not over

    @property
    def wire(self) -> Wire:
        """Dtype of the next push: as asked, or bf16 when nobody computes with it in float32. Any thread."""
        if self._wire != "auto":
            return "bf16" if self._wire == "bf16" else "float32"
        precisions = self._sessions.precisions
        return "bf16" if precisions and "float32" not in precisions else "float32"

    @property
    def is_wanted(self) -> bool:
        """Whether a push is for anybody: a scorer that fetches weights, or the first one to come. Any thread."""
        sessions = list(self._sessions)
        return not sessions or any(session.backend not in WITHOUT_WEIGHTS for session in sessions)

    def version_for(self, scorer: Hello | Session) -> Version | None:
        """The newest version, unless this scorer has to wait for another push."""
        newest = self._publisher.slots.newest
        return None if newest is None or self.is_left_out(scorer) else newest.version

    def is_left_out(self, scorer: Hello | Session) -> bool:
        """The newest version was rounded to bf16 and this scorer computes in float32, or it has no bytes to fetch."""
        newest = self._publisher.slots.newest
        if newest is None or scorer.backend in WITHOUT_WEIGHTS:
            return False
        was_rounded = self._wire == "auto" and newest.wire == "bf16"
        return newest.is_empty or (
            was_rounded and scorer.precision == "float32" and scorer.backend not in FOREIGN_BACKENDS
        )

    def announce(self, filled: Slot | None = None) -> Version | None:
        """Tell the scorers of the latest version whose bytes are on the host, after adding one; None if none is."""
        if filled is not None:
            self.filled.append(filled)
        self._publisher.slots.make_room()
        slot = self._publisher.take_whole(self.filled)
        if slot is None:
            return None
        version = self._publisher.announce(slot)
        self.announced.append(version)
        hint = encode(VersionHint(version, self._publisher.manifest(slot).total_bytes))  # once for all of them
        fetching = [session for session in self._sessions if self.version_for(session) == version]
        for session in fetching:
            self._send(session.peer, hint, CONTROL)
        if fetching:
            self._publisher.frames(slot, 0)  # while the hints are on their way
        return version

    def serve(self, peer: bytes, fetch: Fetch) -> int:
        """Send the buckets asked for, at most a window of them; `peer` is the weights channel's routing id.

        Returns:
            What it cost beyond sending each bucket of each version once to a session: bytes, at least 1; else 0.
        """
        session = self._sessions.by_id(fetch.session)
        if session is None:
            return 1  # the control channel tells it to say HELLO again
        self._sessions.heard(session.peer)
        session.weights_peer = peer
        session.outgoing = [tracker for tracker in session.outgoing if not tracker.done]
        is_behind = self._publisher.slots.is_behind(peer) and self._publisher.slots.holds(fetch.version)
        if len(session.outgoing) > MAX_OUTGOING or is_behind:
            return 1  # it does not read what it asks for; it will ask again
        is_new = self._is_new(session, fetch)
        slot = self._publisher.slots.open(fetch.version, session.id)
        if slot is None:
            self._send(peer, WeightsGone(fetch.version, self.version_for(session)), WEIGHTS)
            return 0 if is_new else 1
        total = num_buckets(self._publisher.manifest(slot).total_bytes)
        stop = min(fetch.first_bucket + min(fetch.num_buckets, WINDOW), total)
        session.next_bucket = max(session.next_bucket, stop) if session.fetching == fetch.version else stop
        session.fetching = fetch.version
        num_bytes = 0
        for bucket in range(fetch.first_bucket, stop):
            frames = self._publisher.frames(slot, bucket)
            sent = self._send(peer, frames, WEIGHTS)
            tracker = sent if isinstance(sent, zmq.MessageTracker) else None
            if tracker is not None:
                session.outgoing.append(tracker)
            num_bytes += len(frames[-1])
            self._publisher.slots.sent(slot, session.id, tracker, last=bucket == total - 1, peer=peer)
        return 0 if is_new else 1 + num_bytes

    def _is_new(self, session: Session, fetch: Fetch) -> bool:
        """Whether a scorer asks for the next buckets of its version, or for the first ones of a later version."""
        if session.fetching == fetch.version:
            return fetch.first_bucket == session.next_bucket
        return fetch.first_bucket == 0 and (session.fetching is None or session.fetching < fetch.version)
