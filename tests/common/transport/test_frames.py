"""What travels over real ipc and loopback tcp, large frames among it."""

import contextlib
from pathlib import Path

import zmq

from common.endpoints import weights_endpoint
from common.sending import ZERO_COPY_BYTES
from common.sockets import Sockets, control_of
from common.transport import CONTROL, WEIGHTS
from tests.common.transport.sides import MIB, TCP, WITHIN_S, Side, call, introduced, raw_dealer, scorer, trainer, until


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


def test_a_scorer_talks_to_each_rank_on_a_channel_of_its_own(folder: Path, opened: contextlib.ExitStack) -> None:
    ranks = [trainer(opened, f"ipc://{folder}/{rank}")[0] for rank in range(3)]
    client, channels = scorer(opened, f"ipc://{folder}/0"), [control_of(rank) for rank in range(3)]
    assert channels[0] == CONTROL
    for rank in (1, 2):
        call(client.io, lambda rank=rank: client.io.connect(channels[rank], f"ipc://{folder}/{rank}"))
    for rank, channel in enumerate(channels):
        until(lambda channel=channel: client.send(channel, [channel.encode()]) is not False)
        _, peer, frames = ranks[rank].recorder.next()
        assert frames == [channel.encode()]
        ranks[rank].send(CONTROL, [b"back"], peer)
        assert client.recorder.next() == (channel, b"", [b"back"])


def test_the_last_words_on_a_channel_that_is_closed_still_leave(endpoint: str, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, endpoint)
    client, channel = scorer(opened, bound), control_of(7)
    call(client.io, lambda: client.io.connect(channel, bound))
    until(lambda: client.send(channel, [b"hello"]) is not False)
    peer = server.recorder.next()[1]
    last = [bytes(8 * MIB), b"goodbye"]
    call(client.io, lambda: [client.io.send(channel, last), client.io.disconnect(channel)])
    assert server.recorder.next() == (CONTROL, peer, last)
    until(lambda: client.send(CONTROL, [b"hello"]) is not False)
    assert server.recorder.next()[2] == [b"hello"], "the others stay open"


def test_the_limit_of_a_frame_is_that_of_its_kind_of_channel(opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, TCP)
    client = Side(max_frame_bytes={CONTROL: MIB, WEIGHTS: 64})
    opened.callback(client.io.stop)
    client.io.connect(control_of(3), bound)
    client.io.start()
    until(lambda: client.send(control_of(3), [b"hello"]) is not False)
    peer = server.recorder.next()[1]
    server.send(CONTROL, [bytes(MIB)], peer)
    assert len(client.recorder.next()[2][0]) == MIB


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


def test_weights_have_threads_of_zeromqs_to_themselves(folder: Path) -> None:
    """Encrypting a bucket takes milliseconds, in which no heartbeat would leave."""
    sockets = Sockets(1 << 20, None, 0)
    affinities = {}
    for channel in (CONTROL, control_of(1), WEIGHTS):
        sockets.connect(channel, f"ipc://{folder}/{channel}")
        affinities[channel] = sockets.by_channel[channel].getsockopt(zmq.AFFINITY)
    num_threads = sockets._context.get(zmq.IO_THREADS)
    sockets.close()
    small, weights = affinities[CONTROL], affinities[WEIGHTS]
    assert affinities[control_of(1)] == small
    assert small & weights == 0
    assert weights
    assert small | weights == (1 << num_threads) - 1, "threads that do nothing"
