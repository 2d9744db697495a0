"""What became of the handshakes of a process's tcp connections, as ZeroMQ tells a monitor."""

import contextlib
import itertools

import zmq
from zmq.utils.monitor import parse_monitor_message

RETRY_S = 1.0
_ENDS = (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)  # ZeroMQ does not try again after these
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | _ENDS[0] | _ENDS[1]
_numbers = itertools.count()


class Handshakes:
    """Watches sockets that connect. Driven by the thread that owns them, and by no other.

    Attributes:
        last: the newest outcome, one of ZeroMQ's events and its value; (0, 0) before the first. For any thread.
    """

    def __init__(self) -> None:
        self._watched: dict[zmq.Socket[bytes], zmq.Socket[bytes]] = {}  # to the socket that tells of it
        self._ended: set[zmq.Socket[bytes]] = set()
        self._next_retry = 0.0
        self.last = (0, 0)

    def watch(self, socket: "zmq.Socket[bytes]") -> None:
        """Before it connects."""
        address = f"inproc://handshakes-{next(_numbers)}"
        socket.monitor(address, _EVENTS)
        told = socket.context.socket(zmq.PAIR)
        told.setsockopt(zmq.LINGER, 0)
        told.connect(address)
        self._watched[socket] = told

    def tick(self, now: float) -> list["zmq.Socket[bytes]"]:
        """Takes in what happened since. Returns the sockets to connect again: they do not try by themselves."""
        for socket, told in list(self._watched.items()):
            if socket.closed:
                told.close(0)
                del self._watched[socket]
                self._ended.discard(socket)
            else:
                self._take_in(socket, told)
        if not self._ended or now < self._next_retry:
            return []
        self._next_retry = now + RETRY_S
        return list(self._ended)

    def close(self) -> None:
        for told in self._watched.values():
            told.close(0)
        self._watched.clear()

    @property
    def open(self) -> list["zmq.Socket[bytes]"]:
        """The watched sockets that are not closed."""
        return [socket for socket in self._watched if not socket.closed]

    def _take_in(self, socket: "zmq.Socket[bytes]", told: "zmq.Socket[bytes]") -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                message = parse_monitor_message(told.recv_multipart(zmq.NOBLOCK))
                event = int(message["event"])
                if event != zmq.EVENT_MONITOR_STOPPED:
                    self.last = (event, int(message["value"]))
                if event in _ENDS:
                    self._ended.add(socket)
