"""How much of what nobody asked for is listened to, by peer. Runs on the I/O thread.

A scorer is asked for nearly everything that it says: a lease wants one answer, a version its buckets. What else an
honest one says, a heartbeat a second and now and then a late answer, is a small part of the allowance here. Whoever
uses that up is not heard for a while: its messages are taken off the socket slowly and thrown away unread, so that its
own queue fills up and not ours.
"""

import collections
import time
from collections.abc import Hashable
from dataclasses import dataclass

MESSAGES_PER_S, MESSAGES_AT_ONCE = 100.0, 500.0
BYTES_PER_S, BYTES_AT_ONCE = float(16 << 20), float(256 << 20)
HELLO_COST = 5  # messages: each begins a session, with leases, and ends the one before
STRIKES_PER_S, STRIKES_AT_ONCE = 1 / 60, 8.0  # malformed or misplaced messages
DEAF_S = 10.0
MAX_PEERS = 4096  # one that was forgotten begins anew


@dataclass(slots=True)
class Allowance:
    """What one peer may still say unasked."""

    at: float  # by time.monotonic, when it was filled up last
    messages: float
    num_bytes: float
    strikes: float = STRIKES_AT_ONCE
    deaf_until: float = 0.0


class Patience:
    """Every message is charged as it comes; what was asked for is given back.

    Args:
        largest_bytes: of an answer that may be asked for; several of them may come late at once.
    """

    def __init__(self, largest_bytes: int = 0) -> None:
        self._bytes_at_once = max(BYTES_AT_ONCE, 8.0 * largest_bytes)
        self._peers: collections.OrderedDict[Hashable, Allowance] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def is_deaf_to(self, peer: Hashable) -> bool:
        """Whether this peer is not heard at present."""
        own = self._peers.get(peer)
        return own is not None and own.deaf_until > 0.0 and time.monotonic() < own.deaf_until

    def charge(self, peer: Hashable, num_bytes: int, num_messages: int = 1) -> bool:
        """Count a message. False if that was too much: the peer is not heard from now on, for `DEAF_S`."""
        own = self._filled(peer)
        own.messages -= num_messages
        own.num_bytes -= num_bytes
        if own.messages >= 0 and own.num_bytes >= 0:
            return True
        own.deaf_until = own.at + DEAF_S
        return False

    def give_back(self, peer: Hashable, num_bytes: int) -> None:
        """The message that was charged last had been asked for."""
        own = self._peers[peer]
        own.messages += 1
        own.num_bytes += num_bytes

    def strike(self, peer: Hashable) -> bool:
        """Count nonsense. True if that was too much: the session ends."""
        own = self._filled(peer)
        own.strikes = max(own.strikes - 1, 0.0)
        return own.strikes < 1

    def _filled(self, peer: Hashable) -> Allowance:
        """The peer's allowance as of now."""
        now = time.monotonic()
        own = self._peers.get(peer)
        if own is None:
            if len(self._peers) >= MAX_PEERS:
                self._peers.popitem(last=False)
            own = self._peers[peer] = Allowance(now, MESSAGES_AT_ONCE, self._bytes_at_once)
            return own
        passed_s, own.at = now - own.at, now
        own.messages = min(max(own.messages, 0.0) + passed_s * MESSAGES_PER_S, MESSAGES_AT_ONCE)
        own.num_bytes = min(max(own.num_bytes, 0.0) + passed_s * BYTES_PER_S, self._bytes_at_once)
        own.strikes = min(own.strikes + passed_s * STRIKES_PER_S, STRIKES_AT_ONCE)
        return own
