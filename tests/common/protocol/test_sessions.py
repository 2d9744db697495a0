"""Messages by which a session begins and ends, and their texts."""

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import MAX_TEXT, PROTOCOL_VERSION, Error, ForeignHello, Reject, decode, encode
from common.protocol.limits import MAX_RANKS
from tests.common.protocol.examples import HELLO, WELCOME, frames_of


def test_a_hello_of_another_protocol_version_shows_its_number_whatever_else_it_holds():
    new = [PROTOCOL_VERSION + 1, {"run": "r", "extra": [1, {"nested": msgpack.Ext(5, b"later")}]}, "x" * 5000]
    assert decode(frames_of(new, 1)) == ForeignHello(PROTOCOL_VERSION + 1)
    assert decode([*frames_of(new, 1), b"a buffer of the future"]) == ForeignHello(PROTOCOL_VERSION + 1)
    assert decode(frames_of([1, "run", "host", 7], 1)) == ForeignHello(1)
    assert decode(frames_of([0], 1)) == ForeignHello(0)
    assert decode(encode(replace(HELLO, protocol=9))) == ForeignHello(9)
    for wrong in ([-1], ["2"], [True], [None], [], {}, [[2]], 2):
        with pytest.raises(ProtocolError):
            decode(frames_of(wrong, 1))


def test_a_foreign_hello_is_only_received():
    with pytest.raises(ProtocolError, match="ForeignHello"):
        encode(ForeignHello(2))


def test_the_answer_to_a_foreign_hello_has_fixed_bytes():
    assert [bytes(frame) for frame in encode(Reject("protocol", "1, not 2"))] == [
        b"MGS\x03\x92\xa8protocol\xa81, not 2"
    ]


def test_texts_for_people_are_clipped_and_made_printable_before_they_are_sent():
    message = decode(encode(Error("malformed", "line 1\nred \x1b[31m \ud800" + "é" * 5000)))
    assert isinstance(message, Error)
    assert message.text.startswith("line 1\nred ?[31m ?é")
    assert len(message.text) == MAX_TEXT
    with pytest.raises(ProtocolError):
        decode(frames_of(["malformed", "\x1b[31m"], 14))
    with pytest.raises(ProtocolError):
        decode(frames_of(["x" * (MAX_TEXT + 1)], 12))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\x00", "\u202eevil", "x" * 257, b"bytes", 7], ids=repr)
def test_names_that_would_spoil_a_log_are_refused(name):
    with pytest.raises(ProtocolError, match=r"Hello.* must be printable|Hello\.name: Expected `str`"):
        encode(replace(HELLO, name=name))


def test_unknown_words_are_refused():
    for field, value in {"fingerprint": {"colour": "red"}, "backend": "pickle"}.items():
        with pytest.raises(ProtocolError):
            encode(replace(HELLO, **{field: value}))
    for field, value in {"scores": ("mms", "mms"), "transfer": "shm", "wire": "fp4", "best_k": 3}.items():
        with pytest.raises(ProtocolError):
            encode(replace(WELCOME, **{field: value}))


NAMED = replace(WELCOME, num_ranks=3, ranks=("10.0.0.2:5555", "[fe80::2]:65535"))


def test_a_welcome_names_the_other_ranks_of_a_trainer():
    for right in (NAMED, replace(NAMED, ranks=()), replace(WELCOME, rank=2, num_ranks=3)):
        assert decode(encode(right)) == right
    many = tuple(f"127.0.{port // 9}.1:{1 + port % 9}" for port in range(MAX_RANKS - 1))
    assert decode(encode(replace(WELCOME, num_ranks=MAX_RANKS, ranks=many))).ranks == many


@pytest.mark.parametrize(
    "address",
    [
        "tcp://10.0.0.2:5555", "ipc:///tmp/x", "/tmp/x", "inproc://x", "node-2:5555", "localhost:5555", "eth0:5555",
        "0.0.0.0:5555", "[::]:5555", "[::ffff:0.0.0.0]:5555", "*:5555", "224.0.0.1:5555", "[ff02::1]:5555",
        "10.0.0.2", "10.0.0.2:", ":5555", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0.2:*", "10.0.0.2:05", "10.0.0.2:+5",
        "10.0.0.2:5555;10.0.0.3:5555", "10.0.0.2:5555 ", "10.0.0.2:5555\n", "10.0.0.2:５５５５", "2:5555", "10.2:5555",
        "010.0.0.2:5555", "10.0.0.256:5555", "fe80::2:5555", "[fe80::2%eth0]:5555", "[10.0.0.2]:5555", "[]:5555", "",
        "9" * 64, 5555, None,
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_not_the_number_of_one_host_and_a_port_is_no_rank(address):
    with pytest.raises(ProtocolError, match=r"Welcome.*ranks"):
        encode(replace(NAMED, ranks=("10.0.0.3:5555", address)))


@pytest.mark.parametrize(
    "changes",
    [
        {"ranks": NAMED.ranks[:1]},
        {"ranks": (*NAMED.ranks, "10.0.0.4:5555")},
        {"ranks": ("10.0.0.2:5555", "10.0.0.2:5555")},
        {"ranks": ("10.0.0.2:5555", "[::ffff:10.0.0.2]:5555")},
        {"rank": 1},
        {"rank": 3, "ranks": ()},
        {"rank": -1, "ranks": ()},
        {"num_ranks": 0, "ranks": ()},
        {"num_ranks": MAX_RANKS + 1, "ranks": ()},
        {"num_samples": 2},
    ],
    ids=str,
)
def test_ranks_that_cannot_be_are_refused(changes):
    with pytest.raises(ProtocolError, match=r"Welcome.*rank"):
        encode(replace(NAMED, **changes))
