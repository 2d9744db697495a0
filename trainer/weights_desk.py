"""Hands weights versions out to scorers that ask for them. Runs on the I/O thread."""

import collections

import zmq

from common.buckets import WINDOW, num_buckets
from common.protocol import Buffer, Fetch, Hello, Version, VersionHint, WeightsGone, encode
from common.transport import CONTROL, WEIGHTS
from trainer.publisher import Publisher
from trainer.sessions import Send, Session, Sessions
from trainer.slot import Slot, Wire
from trainer.terms import FOREIGN_BACKENDS

MAX_OUTGOING = 4 * WINDOW  # buckets on their way to one scorer; an honest one has two windows at most
LEAST_PORTION, MOST_PORTIONS = 8, 8  # of the scorers that hear of a version at a time
WITHOUT_WEIGHTS = frozenset({"predictor", "proxy"})  # backends that fetch none


class WeightsDesk:
    """Which version a scorer should have, and its buckets on request.

    Args:
        wire: "auto", "float32" or "bf16", as asked for.

    Attributes:
        wire: dtype of the next push: as asked, or bf16 when nobody computes with it in float32. Any thread.
        is_wanted: whether a push is for anybody: a scorer that fetches weights, or the first one to come. Any thread.
    """

    def __init__(self, publisher: Publisher, sessions: Sessions, send: Send, wire: str) -> None:
        self._publisher = publisher
        self._sessions = sessions
        self._send = send
        self._wire = wire
        self.wire: Wire = "bf16" if wire == "bf16" else "float32"
        self.is_wanted = True
        sessions.on_kinds = self._note_kinds
        self._note_kinds()
        self.announced: collections.deque[Version] = collections.deque(maxlen=4096)
        self.filled: collections.deque[Slot] = collections.deque()  # whose copies to the host are not over
        self._due: collections.deque[Session] = collections.deque()  # who is to hear of the newest version
        self._hint: list[Buffer] | None = None  # of the newest version, once somebody is to be sent one
        self._portion = LEAST_PORTION

    def _note_kinds(self) -> None:
        """Scorers came or left. Here, and not at each push, which training would wait for."""
        precisions, backends = self._sessions.precisions, self._sessions.backends
        if self._wire == "auto":
            self.wire = "bf16" if precisions and "float32" not in precisions else "float32"
        self.is_wanted = not backends or not backends <= WITHOUT_WEIGHTS

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
        """Choose the latest version whose bytes are on the host, after adding one; None if none is. Then `tell`."""
        if filled is not None:
            self.filled.append(filled)
        else:  # at each tick
            self._publisher.slots.make_room()
        slot = self._publisher.take_whole(self.filled)
        if slot is None:
            return None
        version = self._publisher.announce(slot)
        self.announced.append(version)
        self._hint = None
        still_due = set(map(id, self._due))  # of the version before this one
        self._due.extend(session for session in self._sessions if id(session) not in still_due)
        self._portion = max(LEAST_PORTION, -(-len(self._due) // MOST_PORTIONS))
        return version

    def tell(self) -> bool:
        """Tell some of the scorers that are to hear of the newest version; returns whether there are more."""
        newest = self._publisher.slots.newest
        for _ in range(min(self._portion, len(self._due))):
            session = self._due.popleft()
            is_current = self._sessions.by_id(session.id) is session
            if not is_current or newest is None or self.version_for(session) != newest.version:
                continue
            if newest.version in (session.resident, session.transfer.version):
                continue  # it heard of it otherwise, and was faster
            if not self._hand_over(session, newest):
                session.transfer.is_hinted = True
                self._send(session.peer, self._hint_of(newest), CONTROL)
                if not newest.is_empty and session.backend not in WITHOUT_WEIGHTS:
                    self._publisher.frames(newest, 0)  # made, once for all, while the first FETCH is on its way
        return bool(self._due)

    def _hint_of(self, newest: Slot) -> list[Buffer]:
        """Made once for all of them, if anybody needs it."""
        if self._hint is None:
            assert newest.version is not None, "announced before it was filled"
            self._hint = encode(VersionHint(newest.version, self._publisher.manifest(newest).total_bytes))
        return self._hint

    def _hand_over(self, session: Session, newest: Slot) -> bool:
        """Send a scorer the newest version unasked if it has room for it, which saves both sides a hint and a FETCH."""
        if session.stuck or not session.transfer.is_over(session.resident):
            return False
        assert newest.version is not None, "announced before it was filled"
        slot = self._publisher.slots.open(newest.version, session.id)
        return slot is not None and self._send_buckets(session, slot, range(WINDOW), is_unasked=True) > 0

    def serve(self, peer: bytes, fetch: Fetch) -> int:
        """Send the buckets asked for, at most a window of them; `peer` is the weights channel's routing id.

        Returns:
            What it cost beyond sending each bucket of each version once to a session: bytes, at least 1; else 0.
        """
        session = self._sessions.by_id(fetch.session)
        if session is None:
            return 1  # the control channel tells it to say HELLO again
        self._sessions.heard(session.peer)
        transfer, slots = session.transfer, self._publisher.slots
        if not transfer.asks(peer, fetch):
            return 0
        transfer.forget_sent()
        if len(transfer.outgoing) > MAX_OUTGOING or (slots.is_behind(peer) and slots.holds(fetch.version)):
            return 1  # it does not read what it asks for; it will ask again
        is_next = transfer.is_next(fetch)
        slot = slots.open(fetch.version, session.id)
        if slot is None:
            newest = self.version_for(session)
            transfer.is_hinted = newest is not None
            self._send(peer, WeightsGone(fetch.version, newest), WEIGHTS)
            return 0 if is_next else 1
        asked = range(fetch.first_bucket, fetch.first_bucket + min(fetch.num_buckets, WINDOW))
        num_bytes = self._send_buckets(session, slot, asked)
        return 0 if is_next else 1 + num_bytes

    def _send_buckets(self, session: Session, slot: Slot, buckets: range, *, is_unasked: bool = False) -> int:
        """Send those of the buckets that there are, as far as the connection takes them; returns their bytes."""
        assert slot.version is not None, "handed out before it was filled"
        transfer, total = session.transfer, num_buckets(self._publisher.manifest(slot).total_bytes)
        num_bytes = 0
        for bucket in buckets[: max(0, total - buckets.start)]:
            frames = self._publisher.frames(slot, bucket)
            sent = self._send(transfer.peer, frames, WEIGHTS)
            if sent is False:
                break
            tracker = sent if isinstance(sent, zmq.MessageTracker) else None
            if tracker is not None:
                transfer.outgoing.append(tracker)
            num_bytes += len(frames[-1])
            transfer.note(slot.version, bucket + 1, is_unasked=is_unasked)
            self._publisher.slots.sent(slot, session.id, tracker, last=bucket == total - 1, peer=transfer.peer)
        return num_bytes
