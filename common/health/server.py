"""A small HTTP server on loopback, on threads of its own, for people and programs that watch this process.

It answers GET and HEAD, one request a connection; whoever sends anything else gets an error page, whoever is slow is
cut off, and of too many connections the oldest is closed.
"""

import contextlib
import logging
import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from common.errors import EndpointError
from common.health.pages import TEXT, Page, Pages
from common.sparing_log import SparingLog
from common.waiting import Wait, joined

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
REQUEST_S = 5.0  # for each piece of a request to come, and for its answer to go
MOST_CONNECTIONS = 16
POLL_S = 0.5
LOG_EVERY_S = 60.0
STOP_S = 2.0


class HealthServer:
    """Serves `pages` while the context is open.

    Args:
        port: 0 takes any free one.

    Attributes:
        port: the one that is open.

    Raises:
        EndpointError: the port is in use or not permitted.
    """

    def __init__(self, port: int) -> None:
        self.pages = Pages()
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise EndpointError(
                f"--metrics-port {port}: cannot listen on {HOST}:{port}: {error.strerror or error}; choose another "
                "port, or 0 for any free one"
            ) from error
        self._server.pages = self.pages
        self.port = int(self._server.server_address[1])
        self._is_ending = False
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        log.info("health and metrics at http://%s:%d/healthz, /readyz and /metrics", HOST, self.port)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_ending = True
        with contextlib.suppress(OSError):  # a connection ends its wait for one
            socket.create_connection((HOST, self.port), timeout=POLL_S).close()
        joined(self._thread, Wait("the thread that serves /metrics to end", STOP_S, "the program ends without it"))
        self._server.server_close()

    def _serve(self) -> None:
        while not self._is_ending:
            self._server.handle_request()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = False  # else another process may listen on the same port, and neither hears of it
    request_queue_size = 64
    timeout = POLL_S
    pages: Pages

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._guard = threading.Lock()
        self._open: dict[Any, None] = {}  # oldest first
        self.sparing = SparingLog(log, LOG_EVERY_S)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the name service who this machine is
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open[request] = None
            if len(self._open) > MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _cut(oldest)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection broke: nobody's business, and no line for each."""
        with self._guard:
            self.sparing.say("broken", "a connection to the metrics port broke", level=logging.INFO, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_S

    def do_GET(self) -> None:
        page = self._page()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def _page(self) -> Page:
        path = self.path.partition("?")[0]
        try:
            return self.server.pages.page(path, self.headers.get("Accept", ""))
        except Exception:  # of whatever is read: it must be seen, and must not end more than this answer
            with self.server._guard:
                self.server.sparing.say(path[:32], f"{path[:32]} failed", level=logging.ERROR, exc_info=True)
            return Page(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, b"this failed; see the log of the process\n")

    def version_string(self) -> str:
        return "marginstream"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests come every few seconds for ever: no line for each."""


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closing anyway
        connection.shutdown(socket.SHUT_RDWR)
