"""What one scorer was sent of the weights: how far it is, and whether it can be handed more unasked."""

from dataclasses import dataclass, field

import zmq

from common.protocol import Fetch, Version


@dataclass
class Transfer:
    """Of the version that a scorer was sent last. Owned by the I/O thread.

    Attributes:
        peer: the weights channel's routing id, once the scorer has fetched anything.
        next_bucket: of that version, the first that was not sent.
        outgoing: buckets on their way.
        is_hinted: the scorer was told of a version and has not asked for any since.
    """

    peer: bytes = b""
    version: Version | None = None
    next_bucket: int = 0
    outgoing: list[zmq.MessageTracker] = field(default_factory=list)
    is_hinted: bool = False
    _is_unasked: bool = False

    def is_over(self, resident: Version | None) -> bool:
        """Whether the scorer computes with all that it was sent, and so has room for the next version."""
        self.forget_sent()
        return self.version is not None and self.version == resident and not (self.is_hinted or self.outgoing)

    def asks(self, peer: bytes, fetch: Fetch) -> bool:
        """Note a FETCH. False for one that crossed the same version, handed out unasked: it is on its way."""
        is_crossing = self._is_unasked and (self.peer, self.version, 0) == (peer, fetch.version, fetch.first_bucket)
        self.peer, self.is_hinted, self._is_unasked = peer, False, False
        return not is_crossing

    def is_next(self, fetch: Fetch) -> bool:
        """Whether the scorer asks for the next buckets of its version, or for the first ones of a later version."""
        if self.version == fetch.version:
            return fetch.first_bucket == self.next_bucket
        return fetch.first_bucket == 0 and (self.version is None or self.version < fetch.version)

    def note(self, version: Version, stop: int, *, is_unasked: bool = False) -> None:
        """The buckets before `stop` are on their way."""
        self.next_bucket = max(self.next_bucket, stop) if self.version == version else stop
        self.version, self._is_unasked = version, is_unasked

    def forget_sent(self) -> None:
        self.outgoing = [tracker for tracker in self.outgoing if not tracker.done]
