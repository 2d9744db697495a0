"""One message onto a socket: its frames, large ones not copied."""

from collections.abc import Sequence

import zmq

ZERO_COPY_BYTES = 64 << 10  # below this a copy is cheaper than the bookkeeping of not copying

Frames = Sequence[bytes | memoryview]

NOBLOCK, SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)  # enums cost microseconds a frame
_send = zmq.backend.Socket.send  # zmq.Socket.send without what it does for other kinds of sockets: 3 us a frame


def send(
    own: "zmq.Socket[bytes]", frames: Frames, peer: bytes | None, *, track: bool
) -> "zmq.MessageTracker | bool | None":
    """Send without blocking. A large frame is not copied: keep it unchanged.

    Args:
        peer: its routing id, on a ROUTER.
        track: ask when the memory of the large frames is free again; costs 7 % of the throughput of 2 MB messages.

    Returns:
        False if there is no such peer, or its queue is full; else a tracker that is done when the last large frame has
        left, None where everything was copied or nobody asked.
    """
    parts = [peer, *frames] if peer is not None else list(frames)
    tracker: zmq.MessageTracker | None = None
    try:
        for index, part in enumerate(parts):
            more = SNDMORE if index < len(parts) - 1 else 0
            if len(part) >= ZERO_COPY_BYTES:
                sent = _send(own, part, NOBLOCK | more, False, track)
                tracker = sent if track else None
            else:
                _send(own, part, NOBLOCK | more)
    except (zmq.Again, zmq.ZMQError) as error:
        if isinstance(error, zmq.Again) or error.errno == zmq.EHOSTUNREACH:
            return False
        raise
    return tracker
