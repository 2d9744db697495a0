"""What is sent comes back, whatever it is."""

from dataclasses import fields
from dataclasses import replace as replace_limits

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.protocol import Limits, Message, decode, encode
from common.protocol.messages import MESSAGE_TYPES
from tests.common.protocol.strategies import STRATEGIES, any_message, decode_or_refuse, flat


def test_every_message_type_is_generated_here():
    assert set(STRATEGIES) == set(MESSAGE_TYPES)


@pytest.mark.parametrize("kind", STRATEGIES, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_equal(kind: type):
    @settings(max_examples=60, deadline=None)
    @given(STRATEGIES[kind])
    def round_trip(message: Message) -> None:
        frames = encode(message)
        assert decode(frames) == message
        received = decode([memoryview(bytes(frame)) for frame in frames])
        assert received == message
        assert type(received) is kind
        assert flat(received) == flat(message)

    round_trip()


@settings(max_examples=60, deadline=None)
@given(any_message, st.sampled_from([field.name for field in fields(Limits)]))
def test_narrower_limits_refuse_or_let_through_what_fits(message: Message, name: str):
    limits = replace_limits(Limits(), **{name: 1})
    received = decode_or_refuse(encode(message), limits)
    assert received is None or received == message
    if name == "max_frames":
        assert (received is None) == (len(encode(message)) > 1)
