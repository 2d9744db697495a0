"""Who is heard: what becomes of peers that say too much, or nonsense. Runs on the I/O thread."""

import collections
import logging
import time
from collections.abc import Callable

from common.errors import ProtocolError
from common.protocol import Error
from common.sparing_log import SparingLog
from common.transport import CONTROL, Channel
from trainer.patience import DEAF_S, Patience
from trainer.sessions import Send, Session, Sessions

log = logging.getLogger(__name__)

LOG_EVERY_S = 1.0  # of what a peer can cause without end
REST_S = 0.001  # for each message that is thrown away: sockets are read in turns, so others wait no longer than this


class Doorkeeper:
    """Ends the sessions of peers that flood or talk nonsense.

    Args:
        patience: whose allowance counts; a peer has one on each channel.
        events: counters of what happened, by name.

    Attributes:
        rest: has this thread do nothing for so many seconds.
    """

    def __init__(self, patience: Patience, sessions: Sessions, send: Send, events: collections.Counter[str]) -> None:
        self._patience = patience
        self._sessions = sessions
        self._send = send
        self._events = events
        self.rest: Callable[[float], None] = time.sleep
        self._log = SparingLog(log, LOG_EVERY_S)

    def admits(self, channel: Channel, peer: bytes, num_bytes: int) -> bool:
        """Whether a message that came is to be read; it is charged."""
        if self._patience.is_deaf_to((channel, peer)):
            self._events["messages not heard"] += 1
            self.rest(REST_S)
            return False
        return self.charge(channel, peer, num_bytes)

    def charge(self, channel: Channel, peer: bytes, num_bytes: int, num_messages: int = 1) -> bool:
        """Charge more for a message that was admitted. False if that is too much."""
        if self._patience.charge((channel, peer), num_bytes, num_messages):
            return True
        session = self._session(channel, peer)
        name = "a peer without a session" if session is None else f"scorer {session.name}"
        text = f"far more than anybody asked for; it is not heard for {DEAF_S:.0f} s"
        self._events["peers that flooded"] += 1
        self._log.say("flood", f"{name} sends {text}")
        if channel == CONTROL:
            self._send(peer, Error("limit", f"you send {text}"), CONTROL)
        if session is not None:
            self._sessions.end(session, "sends far more than it is asked for", dead=True)
        return False

    def give_back(self, channel: Channel, peer: bytes, num_bytes: int) -> None:
        """The message was asked for."""
        self._patience.give_back((channel, peer), num_bytes)

    def on_nonsense(self, channel: Channel, peer: bytes, error: ProtocolError) -> None:
        """A message that cannot be, or not now; a session that keeps sending such ends."""
        self._events["malformed messages"] += 1
        self._log.say("nonsense", f"a peer sent nonsense: {error}")
        if channel == CONTROL:
            self._send(peer, Error("malformed", str(error)[:200]), CONTROL)
        session = self._session(channel, peer)
        if self._patience.strike((channel, peer)) and session is not None:
            self._sessions.end(session, "keeps sending nonsense", dead=True)

    def on_broken(self, channel: Channel, peer: bytes, error: Exception) -> None:
        """A message that this trainer cannot deal with: a mistake of ours, which must not end the run."""
        self._events["messages that broke"] += 1
        self._log.say("broken", f"a message could not be dealt with: {error!r}", level=logging.ERROR, exc_info=True)
        session = self._session(channel, peer)
        if session is not None:
            self._sessions.end(session, "sent a message that could not be dealt with", dead=True)

    def _session(self, channel: Channel, peer: bytes) -> Session | None:
        if channel == CONTROL:
            return self._sessions.get(peer)
        return next((session for session in self._sessions if session.transfer.peer == peer), None)
