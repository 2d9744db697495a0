"""Which scorer trains the predictor of losses, and its newest parameters. Runs on the I/O thread."""

import logging

from common.errors import ProtocolError
from common.protocol import Feedback, PredictorState
from common.transport import CONTROL
from trainer.sessions import Send, Session, Sessions

log = logging.getLogger(__name__)


class PredictorDesk:
    """One predictor learns, the oldest that makes progress; the others get its parameters as they come.

    When it leaves, the next one takes over: the newest parameters are there already.

    Attributes:
        state: the newest parameters; None before the first.
    """

    def __init__(self, sessions: Sessions, send: Send) -> None:
        self._sessions = sessions
        self._send = send
        self.state: PredictorState | None = None
        self._is_fed = False  # since the last parameters

    @property
    def learner(self) -> Session | None:
        """Whoever is told of losses now. Sessions are in the order in which they began."""
        return next((session for session in self._predictors() if not session.stuck), None)

    def feed(self, feedback: Feedback) -> bool:
        """Tell the learner of losses; False if there is none, and nobody learns from them."""
        while (session := self.learner) is not None:
            if self._send(session.peer, feedback, CONTROL) is not False:
                self._is_fed = True
                return True  # otherwise its session has ended, and the next one's turn has come
        return False

    def welcome(self, session: Session) -> None:
        """A late one starts with what was learned before it came."""
        if self.state is not None and session.backend == "predictor":
            self._send(session.peer, self.state, CONTROL)

    def receive(self, sender: Session, state: PredictorState) -> bool:
        """Keep the learner's parameters and hand them on; those of one that no longer is it are late.

        Returns:
            Whether it had been told of losses since it sent the last ones.

        Raises:
            ProtocolError: they come from no predictor.
        """
        if sender.backend != "predictor":
            raise ProtocolError(f"parameters of a predictor from a scorer of --backend {sender.backend}")
        learner = self.learner
        if learner is None or sender.id != learner.id:
            log.info("parameters from scorer %s, which does not train the predictor, are left out", sender.name)
            return False
        self.state = state
        for session in self._predictors():
            if session.id != sender.id:
                self._send(session.peer, state, CONTROL)
        was_fed, self._is_fed = self._is_fed, False
        return was_fed

    def _predictors(self) -> list[Session]:
        return [session for session in self._sessions if session.backend == "predictor"]
