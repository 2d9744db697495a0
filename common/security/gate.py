"""The trainer's gate: CURVE on every tcp socket, and an answer to each handshake that names a key on the list.

ZeroMQ asks whoever is bound to inproc://zeromq.zap.01 (ZAP, its RFC 27) before a handshake ends. Hazards: CURVE alone
lets in whoever knows the trainer's public key; without ZAP_ENFORCE_DOMAIN a missing authenticator lets in everybody. So
the domain is enforced, and questions are answered by the thread that owns the sockets, from its own poller: if that
stops, nobody enters, and nothing is there to enter.
"""

import collections
import logging
import time
from pathlib import Path

import zmq
from zmq.utils import z85

from common.errors import ConfigError
from common.open_files import is_shortage
from common.security.keys import (
    ALLOWED,
    LOOK_EVERY_S,
    PUBLIC_SUFFIX,
    TRAINER_KEY,
    KeyPair,
    Stamp,
    check_private,
    read_allowed,
    read_pair,
    same_since,
    stamp_of,
)
from common.sparing_log import SparingLog

log = logging.getLogger(__name__)

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
DOMAIN = b"marginstream"
LOG_EVERY_S = 10.0
DEAF_S = 1.0  # after which a socket that cannot be bound again is a matter for people
MAX_PEERS = 4096  # whose keys are remembered; one that was forgotten is known again by its next message


class Gate:
    """A trainer's keys, read again when their files change. Driven by the thread that owns the sockets alone.

    A list that cannot be read lets nobody in. A key that is taken off the list is not heard from then on. While this
    process has no descriptor to read with, whose file is unchanged stays on the list.

    Args:
        folder: holds `trainer.key` and `allowed/`.

    Raises:
        ConfigError: no key, a damaged one, or files or folders that others may use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp: Stamp | None = self._look()
        self._listed: Stamp = self._stamp  # before the list in use was read
        self._pair = self._read_pair()
        self._allowed, wrong = self._read_allowed()
        if wrong:
            raise ConfigError(wrong[0])
        if not self._allowed:
            log.warning("%s is empty: nobody can connect until a scorer's .pub file is there", folder / ALLOWED)
        self._looked_at = time.monotonic()
        self._sockets: dict[zmq.Socket[bytes], str] = {}  # to the endpoint each is bound to
        self._outdated: list[zmq.Socket[bytes]] = []  # with the key before
        self._unbound: dict[zmq.Socket[bytes], float] = {}  # to be bound with the new key, since when
        self._keys: dict[bytes, str] = {}  # of peers, by routing id
        self._log = SparingLog(log, LOG_EVERY_S)  # whoever knocks must not fill the disk
        self.events: collections.Counter[str] = collections.Counter()
        self.asked: zmq.Socket[bytes] | None = None

    # -- opening and closing ------------------------------------------------------------------------------------------

    def arm(self, socket: "zmq.Socket[bytes]", endpoint: str) -> None:
        """Have a socket demand keys; before it binds."""
        if self.asked is None:
            asked = socket.context.socket(zmq.ROUTER)
            asked.setsockopt(zmq.LINGER, 0)
            asked.bind(ZAP_ENDPOINT)
            self.asked = asked
        self._set_options(socket)

    def bound(self, socket: "zmq.Socket[bytes]", endpoint: str) -> None:
        """Where it is bound in the end, so that a new key can be put in place there."""
        self._sockets[socket] = endpoint

    def close(self) -> None:
        if self.asked is not None:
            self.asked.close(0)

    def _set_options(self, socket: "zmq.Socket[bytes]") -> None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    # -- who enters ---------------------------------------------------------------------------------------------------

    def answer(self) -> None:
        """Answer one handshake that waits. If anything goes wrong, it does not enter, now or without an answer."""
        assert self.asked is not None
        try:
            envelope, delimiter, version, number, *question = self.asked.recv_multipart(zmq.NOBLOCK)
        except (zmq.ZMQError, ValueError):
            return  # it holds no more, or nothing that could be answered
        try:
            key = self._judge(version, question)
            verdict = [b"200", b"OK", key.encode()] if key else [b"400", b"not on the list", b""]
        except Exception:
            self.events["keys that could not be checked"] += 1
            self._log.say("broken", "a peer was kept out: its key could not be checked", exc_info=True)
            verdict = [b"500", b"could not be checked", b""]
        self.asked.send_multipart([envelope, delimiter, ZAP_VERSION, number, *verdict, b""], zmq.NOBLOCK)

    def _judge(self, version: bytes, question: list[bytes]) -> str | None:
        """The key in Z85 if it may enter. A question: domain, address, identity, mechanism, key."""
        domain, address, _, mechanism, *credentials = question
        asked = (version, domain, mechanism, [len(key) for key in credentials])
        if asked == (ZAP_VERSION, DOMAIN, b"CURVE", [32]):
            key: str = z85.encode(credentials[0]).decode("ascii")
            if key in self._allowed:
                return key
        self.events["peers kept out"] += 1
        shown = address.decode("ascii", "replace").removeprefix("::ffff:")
        self._log.say("refused", f"a peer at {shown} was kept out: its key is not in {self._folder / ALLOWED}")
        return None

    # -- who is heard -------------------------------------------------------------------------------------------------

    def known(self, frame: zmq.Frame) -> bytes | None:
        """The routing id that a frame from a ROUTER carries; None if the peer's key has been taken off the list."""
        try:
            peer, key = frame.bytes, frame.get("User-Id")
        except zmq.ZMQError:
            return None  # nobody has answered for it
        if key not in self._allowed:
            return None
        if peer not in self._keys and len(self._keys) >= MAX_PEERS:
            del self._keys[next(iter(self._keys))]
        self._keys[peer] = str(key)
        return peer

    def has_lost(self, peer: bytes) -> bool:
        """Whether a peer that was heard has been taken off the list since."""
        return (key := self._keys.get(peer)) is not None and key not in self._allowed

    # -- changes ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list["zmq.Socket[bytes]"]:
        """Look at the files now and then. Returns the sockets to connect again: a trainer has none."""
        if now >= self._looked_at + LOOK_EVERY_S:
            self._looked_at = now
            self._read_again()
        for socket, since in list(self._unbound.items()):
            self._bind_again(socket, now - since)
        return []

    def _look(self) -> Stamp:
        return stamp_of(self._folder, self._folder / ALLOWED)

    def _read_pair(self) -> KeyPair:
        check_private(self._folder, is_folder=True)
        return read_pair(self._folder / TRAINER_KEY)

    def _read_allowed(self) -> tuple[dict[str, str], list[str]]:
        check_private(self._folder, is_folder=True)
        return read_allowed(self._folder / ALLOWED)

    def _read_again(self) -> None:
        before, self._stamp = self._stamp, None  # what fails is tried again at the next look
        try:
            stamp = self._look()
            if stamp == before or all([self._change_key(), self._change_list(stamp)]):
                self._stamp = stamp
        except Exception:
            self._allowed = {}
            text = f"nobody is let in: the keys in {self._folder} could not be taken over; this is tried again"
            self._log.say("not taken over", text, level=logging.ERROR, exc_info=True)

    def _change_key(self) -> bool:
        """Whether it could be read."""
        try:
            pair = self._read_pair()
        except ConfigError as error:
            self._log.say("key", f"the key in use stays: {error}", level=logging.ERROR)
            return False
        if pair != self._pair:
            self._pair, self._outdated = pair, list(self._sockets)
            log.warning("the trainer's key has changed: scorers connect again, with the new trainer.pub")
        while self._outdated:
            socket = self._outdated[-1]
            self._set_options(socket)
            if socket not in self._unbound:
                socket.unbind(self._sockets[socket])  # ends its connections too
                self._unbound[socket] = time.monotonic()
            self._outdated.pop()
        return True

    def _bind_again(self, socket: "zmq.Socket[bytes]", waited_s: float) -> None:
        endpoint = self._sockets[socket]
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            if waited_s >= DEAF_S:  # the listener that was there takes a moment to go
                text = f"nobody is heard on {endpoint}: the key has changed, and it cannot be opened again"
                remedy = "free the port, or start again with another --listen"
                self._log.say(f"deaf {endpoint}", f"{text}: {error.strerror}; {remedy}", level=logging.ERROR)
            return
        del self._unbound[socket]
        if waited_s >= DEAF_S:
            log.warning("%s is open again, after %.0f s", endpoint, waited_s)

    def _change_list(self, stamp: Stamp) -> bool:
        """Whether it could be read.

        Args:
            stamp: of the files, from before.
        """
        before, is_read = self._allowed, True
        try:
            self._allowed, wrong = self._read_allowed()
            self._listed = stamp
        except ConfigError as error:
            is_short, wrong, is_read = is_shortage(error.__cause__), [], False
            self._allowed = self._unchanged() if is_short else {}
            who = "nobody but whose file is unchanged" if is_short else "nobody"
            text = f"{who} is let in until the list of keys can be read: {error}"
            self._log.say("list", text, level=logging.ERROR)
        for text in wrong:
            log.error("a key was left off the list: %s", text)
        added = sorted(name for key, name in self._allowed.items() if key not in before)
        removed = sorted(name for key, name in before.items() if key not in self._allowed)
        if added or removed:
            log.warning("list of keys: added %s; removed %s", ", ".join(added) or "none", ", ".join(removed) or "none")
        return is_read

    def _unchanged(self) -> dict[str, str]:
        """What of the list in use needs no reading: its file is the one that was read."""
        same, folder = same_since(self._listed), self._folder / ALLOWED
        return {key: name for key, name in self._allowed.items() if str(folder / f"{name}{PUBLIC_SUFFIX}") in same}
