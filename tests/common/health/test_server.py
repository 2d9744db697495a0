"""The HTTP server on loopback: what it answers, and what does it no harm."""

import contextlib
import logging
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from common.errors import EndpointError
from common.health import server as server_module
from common.health.checks import Check
from common.health.metrics import Metric, counter, gauge
from common.health.server import MOST_CONNECTIONS, HealthServer

WITHIN_S = 10.0


class Thing:
    """What a server shows."""

    def __init__(self) -> None:
        self.num = 3
        self.is_well = True

    def checks(self) -> list[Check]:
        return [Check("first", True, "fine"), Check("second", self.is_well, "seen")]


METRICS: tuple[Metric[Thing], ...] = (
    counter("things", "things so far", lambda thing: thing.num),
    gauge("inverse", "one by their number", lambda thing: 1 / thing.num),
)


@pytest.fixture
def server() -> Iterator[HealthServer]:
    with HealthServer(0) as opened:
        yield opened


@pytest.fixture
def thing(server: HealthServer) -> Thing:
    shown = Thing()
    server.pages.show(shown, alive=Thing.checks, ready=Thing.checks, metrics=METRICS)
    return shown


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def say(server: HealthServer, data: bytes) -> bytes:
    """All that comes back on a connection of its own, which the server may end before it has heard everything."""
    parts = []
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S) as connection,
        contextlib.suppress(OSError),
    ):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_before_anything_is_shown_a_process_is_alive_and_not_ready(server: HealthServer) -> None:
    assert get(server, "/healthz") == (200, "ok\n")
    assert get(server, "/readyz") == (503, "FAIL start: this process is starting\n")
    assert get(server, "/metrics")[0] == 200


def test_one_check_that_fails_fails_the_page_and_each_says_what_was_seen(server: HealthServer, thing: Thing) -> None:
    assert get(server, "/healthz") == (200, "ok first: fine\nok second: seen\n")
    thing.is_well = False
    assert get(server, "/healthz") == (503, "ok first: fine\nFAIL second: seen\n")
    assert get(server, "/readyz")[0] == 503


def test_metrics_are_read_when_somebody_asks(server: HealthServer, thing: Thing) -> None:
    assert "\nmarginstream_things_total 3.0\n" in get(server, "/metrics")[1]
    thing.num = 4
    _, text = get(server, "/metrics?name[]=any")
    assert "\nmarginstream_things_total 4.0\n" in text
    assert "process_resident_memory_bytes" in text


def test_a_metric_that_cannot_be_read_costs_one_answer(
    server: HealthServer, thing: Thing, caplog: pytest.LogCaptureFixture
) -> None:
    thing.num = 0
    assert get(server, "/metrics")[0] == 500
    assert "ZeroDivisionError" in caplog.text
    thing.num = 1
    assert get(server, "/metrics")[0] == 200


def test_other_paths_and_methods_are_told_so(server: HealthServer, thing: Thing) -> None:
    assert get(server, "/") == (404, "there are /healthz, /readyz and /metrics\n")
    assert get(server, "/metrics", "POST")[0] == 501
    assert get(server, "/healthz", "HEAD") == (200, "")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n: :\r\n",
        os.urandom(1000),
    ],
    ids=["nothing", "zeros", "half", "version", "long", "headers", "broken", "random"],
)
def test_garbage_does_no_harm_and_fills_no_log(
    server: HealthServer, thing: Thing, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = len(caplog.records)
    for _ in range(5):
        say(server, garbage)
    assert get(server, "/healthz")[0] == 200
    assert len(caplog.records) - before <= 1


def test_connections_that_say_nothing_keep_nobody_out(server: HealthServer, thing: Thing) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3 * MOST_CONNECTIONS)]
    assert get(server, "/healthz")[0] == 200
    assert sum(thread.name.startswith("Thread-") for thread in threading.enumerate()) <= MOST_CONNECTIONS + 1
    silent[0].settimeout(WITHIN_S)
    assert silent[0].recv(1) == b""  # the oldest was closed
    for connection in silent:
        connection.close()


def test_whoever_is_too_slow_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.05)
    with (
        HealthServer(0) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S) as connection,
    ):
        connection.sendall(b"GET /hea")
        assert connection.recv(100) == b""


def test_it_listens_on_loopback_only(server: HealthServer) -> None:
    assert server._server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_an_error_with_a_remedy(server: HealthServer) -> None:
    with pytest.raises(EndpointError, match=rf"--metrics-port {server.port}: .*in use; choose another port, or 0"):
        HealthServer(server.port)


def test_nothing_is_left_of_it_when_it_ends() -> None:
    with HealthServer(0) as server:
        get(server, "/metrics")
    assert "health" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(urllib.error.URLError):
        get(server, "/healthz")
