"""The weights versions that are held: which memory is free for the next one, and what gives way when none is.

A slot is reused only when it is not the newest version, no session fetches it and no frame of it is still queued; with
no free slot `claim` gives none, and `make_room` sees to the next one. A slot whose frames may stay queued gets new
memory: ZeroMQ frees the old when it has sent them or gives up the connection.

There is one slot more than at first once two older versions are fetched at the same time, and at most `MAX_LEFT` are
left to ZeroMQ.
"""

import logging
import threading
import time
from collections.abc import Callable

import zmq

from common.buckets import WINDOW
from common.protocol import Version
from common.sparing_log import SparingLog
from trainer.slot import Slot

log = logging.getLogger(__name__)

NO_MEMORY = (RuntimeError, MemoryError)  # torch's is the former
FEW = WINDOW // 2  # frames that may have been read, though nobody was told yet
LOG_EVERY_S = 10.0
MAX_LEFT = 4  # buffers that are left to ZeroMQ until it has sent or dropped what it has of them


class Slots:
    """Thread-safe: slots are claimed by the training thread, the rest is the I/O thread's.

    Args:
        num: at first; none where another rank pushes: then there is never a version here.
        new_slot: memory for one, or in place of the one given, of which only the memory on the host is still read.
            Raises RuntimeError or MemoryError. Called without the lock, for which a push would wait.
        silence_s: a version that is fetched and of which nothing moves for so long is the first to give way.

    Attributes:
        newest: the announced version that a scorer should fetch; None before the first.
    """

    def __init__(self, num: int, new_slot: Callable[[Slot | None], Slot], *, silence_s: float) -> None:
        self._new_slot = new_slot
        self._slots = [new_slot(None) for _ in range(num)]
        self._max_slots, self._silence_s = num + 1, silence_s
        self._lock = threading.Lock()
        self._left: list[Slot] = []  # given up, with frames that ZeroMQ has not sent
        self._is_refused = False  # a push found no free slot
        self._ready: Slot | None = None  # set aside on the I/O thread for the next push, which then looks for none
        self._log = SparingLog(log, LOG_EVERY_S)
        self.newest: Slot | None = None

    def claim(self) -> Slot | None:
        """A free slot to be filled, or None. Training thread."""
        if (slot := self._ready) is not None:
            self._ready = None  # without the lock: the other thread sets it only where it is None
            return slot
        with self._lock:
            slot = self._set_aside()
            self._is_refused |= slot is None
        return slot

    def _set_aside(self) -> Slot | None:
        """Of the free slots the one whose version is the oldest; it is nobody's from now on but the next push's."""
        free = filter(self._is_free, self._slots)
        slot = min(free, key=lambda slot: slot.version or Version(0, 0), default=None)
        if slot is not None:
            slot.filling, slot.version = True, None
            slot.frames.clear()
        return slot

    def _is_free(self, slot: Slot) -> bool:
        return slot is not self.newest and not slot.filling and not slot.is_held()

    def give_up(self, slot: Slot) -> None:
        """It was filled, and nobody was told: a later one came first."""
        with self._lock:
            slot.version, slot.filling = None, False

    def announce(self, slot: Slot) -> None:
        """A filled slot is the newest version from now on."""
        with self._lock:
            slot.filling = False
            self.newest = slot
            if self._ready is None:  # only the other thread takes it
                self._ready = self._set_aside()
        self._replace_abandoned()

    def holds(self, version: Version) -> bool:
        """Whether a version can be fetched; it may give way to others."""
        with self._lock:
            return self._find(version) is not None

    def _find(self, version: Version) -> Slot | None:
        fetchable = (slot for slot in self._slots if not slot.filling and not slot.is_empty)
        return next((slot for slot in fetchable if slot.version == version), None)

    def open(self, version: Version, session: int) -> Slot | None:
        """Pin a version for a session's transfer; a session pins one at a time. None if it is no longer held."""
        with self._lock:
            for slot in self._slots:
                slot.pins.discard(session)
            found = self._find(version)
            if found is not None:
                found.pins.add(session)
                found.moved_at = time.monotonic()
            return found

    def sent(
        self, slot: Slot, session: int, tracker: zmq.MessageTracker | None, *, last: bool, peer: bytes = b""
    ) -> None:
        """Note frames on their way over a connection; with the last bucket the session lets go of the slot."""
        with self._lock:
            if tracker is not None:
                slot.is_queued()  # forgets what has left: a push would find the frames of all sessions at once
                slot.queued.append((peer, tracker))
            if last:
                slot.pins.discard(session)

    def is_behind(self, peer: bytes) -> bool:
        """Whether a connection has yet to read more than `FEW` frames of versions that were given up."""
        unread = (owner == peer and not frame.done for slot in self._left for owner, frame in slot.queued)
        return sum(unread) > FEW

    def release(self, session: int, *, dead: bool) -> None:
        """A session ended. What it still holds in ZeroMQ's queues is abandoned to it if it is dead."""
        with self._lock:
            for slot in self._slots:
                slot.pins.discard(session)
                slot.abandoned |= dead and slot.is_queued()
        self._replace_abandoned()

    def make_room(self) -> None:
        """If a push has found no free slot: one more, or else one version that is fetched gives way.

        First a version of which nothing moved for `silence_s`, then the youngest: so the oldest that moves is fetched
        to its end, and who has to begin anew, with the newest, has got least of his. Those who come late meet there.
        """
        with self._lock:
            self._left = [slot for slot in self._left if slot.is_queued()]
            held = [slot for slot in self._slots if slot.is_held() and slot is not self.newest and not slot.filling]
            is_needed = self._is_refused and self._ready is None and not any(map(self._is_free, self._slots))
            self._is_refused = False
            if not is_needed or not held:
                return
            for slot in held:
                slot.note_moves()
            stalled = [slot for slot in held if time.monotonic() - slot.moved_at > self._silence_s]
            may_grow = not stalled and len(self._slots) < self._max_slots
            if not may_grow:
                self._give_way(held, stalled)
        if may_grow:
            self._grow()
        self._replace_abandoned()

    def _give_way(self, held: list[Slot], stalled: list[Slot]) -> None:
        able = [slot for slot in held if len(self._left) < MAX_LEFT or not slot.queued]
        able = [slot for slot in able if slot in stalled] or able
        for slot in sorted(able, key=lambda slot: slot.version or Version(0, 0))[-1:]:
            slot.pins.clear()
            slot.version, slot.abandoned = None, True

    def _grow(self) -> None:
        try:
            slot = self._new_slot(None)
        except NO_MEMORY as error:
            self._max_slots = len(self._slots)
            log.warning("no memory for one more version of the weights (%s): slow scorers have to begin anew", error)
            return
        with self._lock:
            self._slots.append(slot)

    def _replace_abandoned(self) -> None:
        """New memory for slots whose frames may never be taken; the newest one's turn comes later."""
        replaced = []
        with self._lock:
            for slot in self._slots:
                if slot.abandoned and slot is not self.newest and not slot.filling and not slot.pins:
                    slot.abandoned = slot.is_queued()
                    if slot.abandoned and len(self._left) < MAX_LEFT:
                        slot.filling = True  # so that no push takes it meanwhile
                        self._left.append(slot)
                        replaced.append(slot)
        for slot in replaced:
            try:
                fresh = self._new_slot(slot)
            except NO_MEMORY as error:
                self._log.say("memory", f"no memory for another version of the weights: {error}")
                with self._lock:
                    self._left.remove(slot)
                    slot.filling = False  # free once what is queued has left
                continue
            with self._lock:
                self._slots[self._slots.index(slot)] = fresh
