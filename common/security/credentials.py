"""The scorer's side: its key and the trainer's for every connection, and what a failed handshake probably means."""

import logging
import time
from pathlib import Path
from typing import ClassVar

import zmq

from common.config.endpoint import is_loopback
from common.errors import ConfigError, EndpointError
from common.security.handshakes import Handshakes
from common.security.keys import (
    LOOK_EVERY_S,
    SCORER_KEY,
    TRAINER_PUBLIC,
    KeyPair,
    Stamp,
    check_private,
    read_pair,
    read_public,
    stamp_of,
)
from common.sparing_log import SparingLog

log = logging.getLogger(__name__)

FAILED_AUTH = zmq.EVENT_HANDSHAKE_FAILED_AUTH
FAILED_OTHERWISE = (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)

LOG_EVERY_S = 10.0
REFUSED = 400  # what a gate answers to a key that is not on its list


class Credentials:
    """A scorer's key and its trainer's, read again when their files change. Driven like `Handshakes`.

    Args:
        folder: holds `scorer.key` and `trainer.pub`.

    Raises:
        ConfigError: no key, a damaged one, or files or a folder that others may use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = (folder / SCORER_KEY, folder / TRAINER_PUBLIC)
        self._handshakes = Handshakes()
        self._looked_at = time.monotonic()
        self._log = SparingLog(log, LOG_EVERY_S)
        self._stamp: Stamp | None = stamp_of(folder)
        self._pair, self._trainer = self._read()

    @property
    def trouble(self) -> str | None:
        """What keeps this scorer out, in words for people; None if nothing points at keys."""
        event, code = self._handshakes.last
        if event == FAILED_AUTH and code != REFUSED:
            return f"the trainer could not check the key {self._paths[0]}; its log says why"
        if event == FAILED_AUTH:
            return f"the trainer refused the key {self._paths[0]}: is its .pub file in the trainer's allowed/ folder?"
        if event in FAILED_OTHERWISE:
            return f"the trainer there ended the handshake: probably its key is not the one in {self._paths[1]}"
        return None

    def arm(self, socket: "zmq.Socket[bytes]", endpoint: str) -> None:
        """Have a socket show its key and demand the trainer's; before it connects."""
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._trainer)
        self._handshakes.watch(socket)

    def tick(self, now: float) -> list["zmq.Socket[bytes]"]:
        """Look at the files and the handshakes. Returns the sockets to connect again."""
        again = self._handshakes.tick(now)
        if now >= self._looked_at + LOOK_EVERY_S:
            self._looked_at = now
            if self._has_changed():
                return self._handshakes.open
        return again

    def close(self) -> None:
        self._handshakes.close()

    def _has_changed(self) -> bool:
        before, self._stamp = self._stamp, stamp_of(self._folder)
        if before == self._stamp:
            return False
        try:
            keys = self._read()
        except ConfigError as error:
            self._stamp = None  # to be tried again
            self._log.say("keys", f"the keys in use stay: {error}", level=logging.ERROR)
            return False
        if keys == (self._pair, self._trainer):
            return False
        self._pair, self._trainer = keys
        log.warning("keys in %s have changed: connecting again with the new ones", self._folder)
        return True

    def _read(self) -> tuple[KeyPair, bytes]:
        check_private(self._folder, is_folder=True)
        return read_pair(self._paths[0]), read_public(self._paths[1])


class Insecure:
    """No keys: for loopback tcp and nothing else. Used by trainer and scorer alike, driven like `Handshakes`."""

    events: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        self._handshakes = Handshakes()

    @property
    def trouble(self) -> str | None:
        """What keeps a scorer out, in words for people; None if nothing points at keys."""
        if self._handshakes.last[0] in (FAILED_AUTH, *FAILED_OTHERWISE):
            return "the trainer there ended the handshake: probably it wants keys; give its folder of keys with --keys"
        return None

    def arm(self, socket: "zmq.Socket[bytes]", endpoint: str) -> None:
        if not is_loopback(endpoint):
            raise EndpointError(f"{endpoint} is not on loopback, and --insecure is for loopback only; use --keys DIR")
        if socket.type == zmq.DEALER:
            self._handshakes.watch(socket)

    def tick(self, now: float) -> list["zmq.Socket[bytes]"]:
        return self._handshakes.tick(now)

    def close(self) -> None:
        self._handshakes.close()
