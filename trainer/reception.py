"""Who may join: HELLO is answered by WELCOME or by REJECT with the reason. Runs on the I/O thread."""

import collections
import logging
import secrets
from collections.abc import Callable

from common.protocol import PROTOCOL_VERSION, ForeignHello, Hello, Reject
from common.sparing_log import SparingLog
from common.transport import CONTROL
from trainer.sessions import Send, Session, Sessions
from trainer.terms import Terms
from trainer.weights_desk import WeightsDesk

log = logging.getLogger(__name__)

LOG_EVERY_S = 1.0  # of what a peer can cause without end
MAX_SESSIONS = 1024


class Reception:
    """Begins sessions.

    Args:
        beat: sends a heartbeat to everybody: whoever cannot be reached loses its session.
        events: counters of what happened, by name.

    Attributes:
        weights_port: of the weights channel; told to scorers on tcp, 0 for ipc and where there is none.
        ranks: where scorers on tcp find the other ranks, see `Terms.welcome`.
    """

    def __init__(
        self,
        terms: Terms,
        sessions: Sessions,
        weights: WeightsDesk,
        send: Send,
        beat: Callable[[], None],
        events: collections.Counter[str],
    ) -> None:
        self._terms = terms
        self._sessions = sessions
        self._weights = weights
        self._send = send
        self._beat = beat
        self._events = events
        self._log = SparingLog(log, LOG_EVERY_S)
        self.weights_port = 0
        self.ranks: tuple[str, ...] = ()

    def receive(self, peer: bytes, hello: Hello | ForeignHello) -> Session | None:
        """The session that begins, to be told its WELCOME, or None where this scorer was refused."""
        wrong = self._mismatch(peer, hello)
        if wrong is not None or isinstance(hello, ForeignHello):
            name, message = wrong or ("protocol", f"this trainer speaks protocol {PROTOCOL_VERSION}")
            self._events["scorers rejected"] += 1
            self._log.say("refused", f"scorer refused: its {name} differs: {message}")
            self._send(peer, Reject(name, message), CONTROL)
            return None
        welcome = self._terms.welcome(
            secrets.randbits(63),
            wire=self._weights.wire,
            weights_port=self.weights_port,
            version=self._weights.version_for(hello),
            ranks=self.ranks,
        )
        return self._sessions.begin(peer, hello, welcome)

    def _mismatch(self, peer: bytes, hello: Hello | ForeignHello) -> tuple[str, str] | None:
        """The field that differs, and a sentence about it for people."""
        if isinstance(hello, ForeignHello):
            return "protocol", f"this trainer speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}"
        if (mismatch := self._terms.mismatch(hello)) is not None:
            return mismatch
        if len(self._sessions) >= MAX_SESSIONS:
            self._beat()  # whoever cannot be reached makes room
        if len(self._sessions) >= MAX_SESSIONS and peer not in self._sessions:
            return "capacity", f"this trainer has {len(self._sessions)} scorers and takes no more; end some of them"
        return None
