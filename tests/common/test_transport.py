"""Sockets and their thread, over real ipc and loopback tcp."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from common.endpoints import claim_ipc_path, port_of, weights_endpoint
from common.errors import EndpointError
from common.processes import private_folder
from common.transport import CONTROL, WEIGHTS, ZERO_COPY_BYTES, Channel, IOThread

WITHIN_S = 10.0
MIB = 1 << 20
TCP = "tcp://127.0.0.1:0"


class Recorder:
    """A handler that keeps what came; `reply` runs on the I/O thread for each message."""

    def __init__(self) -> None:
        self.messages: queue.Queue[tuple[Channel, bytes, list[bytes]]] = queue.Queue()
        self.ticks: queue.Queue[float] = queue.Queue()
        self.reply: Callable[[Channel, bytes], None] = lambda channel, peer: None
        self.farewell: Callable[[], None] = lambda: None
        self.tick: Callable[[], None] = lambda: None

    def on_start(self, io: IOThread) -> None:
        self.io = io

    def on_message(self, channel: Channel, peer: bytes, frames: list[memoryview]) -> None:
        self.messages.put((channel, peer, [bytes(frame) for frame in frames]))
        self.reply(channel, peer)

    def on_tick(self, now: float) -> None:
        self.ticks.put(now)
        self.tick()

    def on_stop(self) -> None:
        self.farewell()

    def next(self) -> tuple[Channel, bytes, list[bytes]]:
        return self.messages.get(timeout=WITHIN_S)


def call(io: IOThread, task: Callable[[], Any]) -> Any:
    """Run a task on the I/O thread; its result."""
    result: queue.Queue[Any] = queue.Queue()
    io.post(lambda: result.put(task()))
    return result.get(timeout=WITHIN_S)


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


class Side:
    """An IOThread with its recorder."""

    def __init__(self, tick_s: float = 0.02, max_frame_bytes: int = 64 * MIB) -> None:
        self.recorder = Recorder()
        self.io = IOThread("test-io", self.recorder, max_frame_bytes=max_frame_bytes, tick_s=tick_s)

    def send(self, channel: Channel, frames: list[bytes], peer: bytes | None = None, *, track: bool = False) -> Any:
        return call(self.io, lambda: self.io.send(channel, frames, peer, track=track))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder with a short path."""
    with private_folder() as path:
        yield Path(path)


@pytest.fixture(params=["ipc", "tcp"])
def endpoint(request: pytest.FixtureRequest, folder: Path) -> str:
    return f"ipc://{folder}/t" if request.param == "ipc" else TCP


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def trainer(opened: contextlib.ExitStack, endpoint: str, **settings: Any) -> tuple[Side, str]:
    side = Side(**settings)
    opened.callback(side.io.stop)
    bound = side.io.bind(CONTROL, endpoint)
    side.io.start()
    return side, bound


def scorer(opened: contextlib.ExitStack, endpoint: str, **settings: Any) -> Side:
    side = Side(**settings)
    opened.callback(side.io.stop)
    side.io.connect(CONTROL, endpoint)
    side.io.start()
    return side


def raw_dealer(opened: contextlib.ExitStack, endpoint: str, **options: int) -> "zmq.Socket[bytes]":
    context = zmq.Context()
    opened.callback(context.term)
    dealer = context.socket(zmq.DEALER)
    opened.callback(dealer.close, 0)
    for name, value in options.items():
        dealer.setsockopt(getattr(zmq, name), value)
    dealer.connect(endpoint)
    return dealer


def introduced(side: Side, dealer: "zmq.Socket[bytes]") -> bytes:
    """The routing id that a trainer gave to a peer."""
    dealer.send(b"hello")
    return side.recorder.next()[1]


# -- what travels -----------------------------------------------------------------------------------------------------


def test_frames_travel_both_ways(endpoint: str, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, endpoint)
    client = scorer(opened, bound)
    frames = [b"one", b"", bytes(range(256)) * 4096]
    until(lambda: client.send(CONTROL, frames) is not False)
    channel, peer, got = server.recorder.next()
    assert (channel, got) == (CONTROL, frames)
    assert server.send(CONTROL, [b"back", b""], peer) is None
    assert client.recorder.next() == (CONTROL, b"", [b"back", b""])


def test_two_channels_are_kept_apart(folder: Path, opened: contextlib.ExitStack) -> None:
    server, control = Side(), f"ipc://{folder}/t"
    opened.callback(server.io.stop)
    server.io.bind(CONTROL, control)
    server.io.bind(WEIGHTS, weights_endpoint(control, 0))
    server.io.start()
    client = scorer(opened, control)
    call(client.io, lambda: client.io.connect(WEIGHTS, weights_endpoint(control, 0)))
    for channel in (WEIGHTS, CONTROL):
        until(lambda channel=channel: client.send(channel, [channel.encode()]) is not False)
        got, peer, frames = server.recorder.next()
        assert (got, frames) == (channel, [channel.encode()])
        server.send(channel, [b"back"], peer)
        assert client.recorder.next() == (channel, b"", [b"back"])


def test_connecting_a_channel_again_replaces_its_peer(folder: Path, opened: contextlib.ExitStack) -> None:
    first, _ = trainer(opened, f"ipc://{folder}/a")
    second, _ = trainer(opened, f"ipc://{folder}/b")
    client = scorer(opened, f"ipc://{folder}/a")
    until(lambda: client.send(CONTROL, [b"1"]) is not False)
    first.recorder.next()
    call(client.io, lambda: client.io.connect(CONTROL, f"ipc://{folder}/b"))
    until(lambda: client.send(CONTROL, [b"2"]) is not False)
    assert second.recorder.next()[2] == [b"2"]
    assert first.recorder.messages.empty()


def test_a_peer_that_nobody_knows_gets_nothing_and_the_sender_is_told(
    endpoint: str, opened: contextlib.ExitStack
) -> None:
    server, _ = trainer(opened, endpoint)
    assert server.send(CONTROL, [b"small"], b"\0none") is False
    assert server.send(CONTROL, [b"large" * ZERO_COPY_BYTES], b"\0none") is False
    assert server.io.alive


def test_a_peer_that_left_cannot_be_reached(endpoint: str, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, endpoint)
    dealer = raw_dealer(opened, bound)
    peer = introduced(server, dealer)
    dealer.close(0)
    until(lambda: server.send(CONTROL, [b"still there?"], peer) is False)


def test_a_scorer_without_a_trainer_is_told_that_nothing_was_sent(folder: Path, opened: contextlib.ExitStack) -> None:
    client = scorer(opened, f"ipc://{folder}/nobody")
    assert client.send(CONTROL, [b"hello"]) is False


def test_a_scorer_reaches_the_next_trainer_at_the_same_endpoint(endpoint: str, opened: contextlib.ExitStack) -> None:
    first, bound = trainer(opened, endpoint)
    client = scorer(opened, bound)
    client.recorder.tick = lambda: client.io.send(CONTROL, [b"hello"])  # as a scorer says HELLO until it is welcomed
    first.recorder.next()
    first.io.stop()
    second, _ = trainer(opened, bound)
    assert second.recorder.next()[2] == [b"hello"]


def test_a_frame_over_the_limit_never_reaches_the_handler(opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, TCP, max_frame_bytes=MIB)
    dealer = raw_dealer(opened, bound)
    dealer.send(bytes(2 * MIB))
    raw_dealer(opened, bound).send(b"honest")
    assert server.recorder.next()[2] == [b"honest"]
    assert server.recorder.messages.empty()


# -- large frames -----------------------------------------------------------------------------------------------------


def test_a_large_frame_is_not_copied_and_its_tracker_says_when_it_has_left(opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, TCP)
    dealer = raw_dealer(opened, bound, RCVHWM=1, RCVBUF=64 << 10)
    peer = introduced(server, dealer)
    buffers = [bytearray(4 * MIB) for _ in range(16)]
    trackers = [server.send(CONTROL, [b"head", buffer], peer, track=True) for buffer in buffers]  # type: ignore[list-item]
    assert not trackers[-1].done, "the peer does not read, so it cannot have left"
    buffers[-1][-1] = 7
    for _ in range(15):
        dealer.recv_multipart()
    head, last = dealer.recv_multipart()
    trackers[-1].wait(WITHIN_S)
    assert all(tracker.done for tracker in trackers)
    assert (head, last[-1]) == (b"head", 7), "what was sent is the memory itself"


def test_small_frames_are_copied_and_need_no_tracker(opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, TCP)
    dealer = raw_dealer(opened, bound)
    peer = introduced(server, dealer)
    small = bytearray(ZERO_COPY_BYTES - 1)
    assert server.send(CONTROL, [small], peer) is None  # type: ignore[list-item]
    small[0] = 7
    assert dealer.recv()[0] == 0


# -- fairness ---------------------------------------------------------------------------------------------------------


def test_a_flood_on_one_channel_does_not_starve_the_other(folder: Path, opened: contextlib.ExitStack) -> None:
    server, control, num = Side(), f"ipc://{folder}/t", 900
    opened.callback(server.io.stop)
    server.io.bind(CONTROL, control)
    server.io.bind(WEIGHTS, weights_endpoint(control, 0))
    sockets = server.io._sockets
    came = threading.Event()

    def hold(channel: Channel, peer: bytes) -> None:
        """The handler stands still in its first message until the flood and the other message have arrived."""
        if not came.is_set():
            came.set()
            assert sockets[WEIGHTS].poll(WITHIN_S * 1000)
            assert sockets[CONTROL].poll(WITHIN_S * 1000)

    server.recorder.reply = hold
    server.io.start()
    flood, other = raw_dealer(opened, control, SNDHWM=0), raw_dealer(opened, weights_endpoint(control, 0))
    flood.send(b"first")
    assert came.wait(WITHIN_S)
    for _ in range(num):
        flood.send(b"nonsense")
    other.send(b"weights")
    order = [server.recorder.next()[0] for _ in range(num + 2)]
    assert order.index(WEIGHTS) <= 200


def test_ticks_go_on_through_a_flood(folder: Path, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, f"ipc://{folder}/t", tick_s=0.001)
    dealer, ended = raw_dealer(opened, bound), threading.Event()

    def flood() -> None:
        while not ended.is_set():
            dealer.send(b"nonsense")

    thread = threading.Thread(target=flood)
    thread.start()
    server.recorder.next()
    for _ in range(10):
        server.recorder.ticks.get(timeout=WITHIN_S)
    ended.set()
    thread.join()


# -- the thread -------------------------------------------------------------------------------------------------------


def test_posted_tasks_run_at_once_in_order_and_on_the_io_thread(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t", tick_s=600.0)
    ran: queue.Queue[tuple[int, str]] = queue.Queue()
    for number in range(1000):
        server.io.post(lambda number=number: ran.put((number, threading.current_thread().name)))
    assert [ran.get(timeout=WITHIN_S) for _ in range(1000)] == [(number, "test-io") for number in range(1000)]


def test_tasks_posted_from_many_threads_all_run(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t", tick_s=600.0)
    ran: queue.Queue[int] = queue.Queue()

    def post_each_after_the_last(first: int) -> None:
        for number in range(first, first + 200):
            server.io.post(lambda number=number: ran.put(number))

    threads = [threading.Thread(target=post_each_after_the_last, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    got = [ran.get(timeout=WITHIN_S) for _ in range(800)]
    for thread in threads:
        thread.join()
    assert len(set(got)) == 800


def test_last_words_that_are_answered_have_been_delivered(endpoint: str, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, endpoint)
    client = scorer(opened, bound)
    until(lambda: client.send(CONTROL, [b"hello"]) is not False)
    peer = server.recorder.next()[1]
    client.recorder.reply = lambda channel, peer: client.io.send(CONTROL, [b"heard"])

    def farewell() -> None:
        server.io.send(CONTROL, [b"goodbye"], peer)
        server.io.receive_until(lambda: not server.recorder.messages.empty(), WITHIN_S)

    server.recorder.farewell = farewell
    server.io.stop()
    assert not server.io.alive
    assert client.recorder.next()[2] == [b"goodbye"]
    assert server.recorder.next()[2] == [b"heard"]


def test_the_wait_for_an_answer_is_bounded(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t")
    server.recorder.farewell = lambda: server.io.receive_until(lambda: False, 0.05)
    server.io.stop()
    assert not server.io.alive


def test_stop_is_bounded_by_a_peer_that_does_not_read(opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, TCP)
    dealer = raw_dealer(opened, bound, RCVHWM=1, RCVBUF=64 << 10)
    peer = introduced(server, dealer)
    for _ in range(16):
        server.send(CONTROL, [bytes(4 * MIB)], peer)
    started = time.monotonic()
    server.io.stop()
    assert time.monotonic() - started < 3.0
    assert not server.io.alive


def test_stop_is_bounded_by_a_handler_that_hangs(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t")
    hangs, goes_on = threading.Event(), threading.Event()
    server.io.post(lambda: (hangs.set(), goes_on.wait(WITHIN_S)))
    assert hangs.wait(WITHIN_S)
    server.io.stop(timeout_s=0.05)
    assert server.io.alive
    goes_on.set()
    server.io.stop()
    assert not server.io.alive


def test_a_thread_that_was_never_started_closes_what_it_opened(endpoint: str) -> None:
    for _ in range(2):
        side = Side()
        side.io.bind(CONTROL, endpoint)
        side.io.stop()


def test_posting_to_a_thread_that_has_ended_does_nothing(folder: Path, opened: contextlib.ExitStack) -> None:
    server, _ = trainer(opened, f"ipc://{folder}/t")
    server.io.stop()
    server.io.post(lambda: pytest.fail("it ran"))
    server.io.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_in_the_handler_ends_the_thread_and_is_kept(folder: Path, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, f"ipc://{folder}/t")

    def fail() -> None:
        raise KeyError("bug")

    server.io.post(fail)
    until(lambda: not server.io.alive)
    assert isinstance(server.io.error, KeyError)
    trainer(opened, bound)  # the endpoint is free again


# -- endpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["0", "*"])
def test_the_system_chooses_a_free_tcp_port(port: str, opened: contextlib.ExitStack) -> None:
    _, first = trainer(opened, f"tcp://127.0.0.1:{port}")
    _, second = trainer(opened, f"tcp://127.0.0.1:{port}")
    assert first.startswith("tcp://127.0.0.1:")
    assert port_of(first) != port_of(second)
    assert port_of(first) > 0


def test_an_endpoint_in_use_is_refused_and_its_owner_keeps_it(endpoint: str, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, endpoint)
    with pytest.raises(EndpointError, match=rf"{bound}.*choose another --listen"):
        trainer(opened, bound)
    client = scorer(opened, bound)
    until(lambda: client.send(CONTROL, [b"hello"]) is not False)
    assert server.recorder.next()[2] == [b"hello"]


def test_an_endpoint_is_free_again_when_its_owner_has_stopped(endpoint: str, opened: contextlib.ExitStack) -> None:
    first, bound = trainer(opened, endpoint)
    first.io.stop()
    trainer(opened, bound)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_an_ipc_folder_that_others_may_enter_is_refused(mode: int, folder: Path) -> None:
    lax = folder / "lax"
    lax.mkdir()
    lax.chmod(mode)
    side = Side()
    with pytest.raises(EndpointError, match=r"must be yours alone, mode 0700 .*lax/marginstream/t"):
        side.io.bind(CONTROL, f"ipc://{lax}/t")
    side.io.stop()
    assert list(lax.iterdir()) == []


def test_a_missing_ipc_folder_is_made_private(folder: Path, opened: contextlib.ExitStack) -> None:
    trainer(opened, f"ipc://{folder}/new/t")
    assert (folder / "new").stat().st_mode & 0o777 == 0o700


def test_an_ipc_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(EndpointError, match=f"cannot make folder {folder}/file/deeper"):
        claim_ipc_path(folder / "file" / "deeper" / "t")


def test_an_ipc_path_past_the_systems_limit_is_refused_before_it_is_cut(folder: Path) -> None:
    with pytest.raises(EndpointError, match="longer than 100 bytes"):
        claim_ipc_path(folder / ("x" * 100))


def test_a_claim_is_released_with_its_descriptor(folder: Path) -> None:
    claim = claim_ipc_path(folder / "t")
    with pytest.raises(EndpointError, match="in use by another trainer"):
        claim_ipc_path(folder / "t")
    os.close(claim)
    os.close(claim_ipc_path(folder / "t"))


@pytest.mark.parametrize(
    ("control", "port", "weights"),
    [
        ("ipc:///run/m/t", 0, "ipc:///run/m/t.w"),
        ("tcp://127.0.0.1:5000", 6000, "tcp://127.0.0.1:6000"),
        ("tcp://[::1]:5000", 6000, "tcp://[::1]:6000"),
        ("tcp://localhost:5000", 6000, "tcp://localhost:6000"),
    ],
)
def test_the_weights_channel_is_beside_the_control_channel(control: str, port: int, weights: str) -> None:
    assert weights_endpoint(control, port) == weights
    assert port_of(weights) == port
