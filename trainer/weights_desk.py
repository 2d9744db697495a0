"""Hands weights versions out to scorers that ask for them. Runs on the I/O thread."""

import collections

import zmq

from common.buckets import WINDOW, num_buckets
from common.protocol import Fetch, Hello, Version, VersionHint, Weights, WeightsGone
from common.transport import CONTROL, WEIGHTS
from trainer.publisher import Publisher, Slot, Wire
from trainer.sessions import Send, Session, Sessions
from trainer.terms import FOREIGN_BACKENDS

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
        newest = self._publisher.newest
        return None if newest is None or self.is_left_out(scorer) else newest.version

    def is_left_out(self, scorer: Hello | Session) -> bool:
        """The newest version was rounded to bf16 and this scorer computes in float32, or it has no bytes to fetch."""
        newest = self._publisher.newest
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
        slot = self._publisher.take_whole(self.filled)
        if slot is None:
            return None
        version = self._publisher.announce(slot)
        self.announced.append(version)
        hint = VersionHint(version, self._publisher.manifest(slot).total_bytes)
        for session in self._sessions:
            if self.version_for(session) == version:
                self._send(session.peer, hint, CONTROL)
        return version

    def serve(self, peer: bytes, fetch: Fetch) -> None:
        """Send the buckets asked for, at most a window of them; `peer` is the weights channel's routing id."""
        session = self._sessions.by_id(fetch.session)
        if session is None:
            return  # the control channel tells it to say HELLO again
        self._sessions.heard(session.peer)
        slot = self._publisher.open(fetch.version, session.id)
        if slot is None:
            self._send(peer, WeightsGone(fetch.version, self.version_for(session)), WEIGHTS)
            return
        manifest = self._publisher.manifest(slot)
        total = num_buckets(manifest.total_bytes)
        stop = min(fetch.first_bucket + min(fetch.num_buckets, WINDOW), total)
        for bucket in range(fetch.first_bucket, stop):
            data, checksum = self._publisher.bucket(slot, bucket)
            message = Weights(
                version=fetch.version,
                bucket=bucket,
                num_buckets=total,
                total_bytes=manifest.total_bytes,
                checksum=checksum,
                manifest=manifest.rows if bucket == 0 else None,
                buffer=data,
            )
            sent = self._send(peer, message, WEIGHTS)
            tracker = sent if isinstance(sent, zmq.MessageTracker) else None
            self._publisher.sent(slot, session.id, tracker, last=bucket == total - 1)
