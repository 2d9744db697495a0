"""Candidates: what contradicts itself, and what does not answer its lease."""

import numpy as np
import pytest
from msgspec.structs import replace

from common.errors import ProtocolError
from common.protocol import Array, Candidates, Placed, decode, encode, pack_mask
from tests.common.protocol.examples import CANDIDATES, LEASE, WELCOME, with_embeddings, with_payload

INPUTS, TARGETS = Array.of(np.zeros((6, 2), dtype=np.uint8)), Array.of(np.zeros(6, dtype=np.int64))
PLACED = Placed(0, 1, "uint8", (6, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss_mean": float("nan")},
        {"loss_mean": float("inf")},
        {"accuracy": float("nan")},
        {"accuracy": 1.5},
        {"num": 7},
        {"num": 65_537},
        {"dropped": b"\x40"},
        {"dropped": b"\x00\x00"},
        {"scores": (Array.of(np.zeros(6)),)},
        {"scores": (Array.of(np.zeros(5, dtype=np.float32)),)},
        {"scores": (Array.of(np.zeros((6, 1), dtype=np.float32)),)},
        {"scores": CANDIDATES.scores * 6},
        {"inputs": Array.of(np.zeros((6, 2)))},
        {"rows": Array.of(np.zeros(2, dtype=np.int32))},
        {"inputs": Array.of(np.zeros((5, 2))), "targets": Array.of(np.zeros(5))},
        {"inputs": Array.of(np.zeros(())), "targets": Array.of(np.zeros(6))},
        {"inputs": Array("uint8", (6, 2), bytes(11)), "targets": Array.of(np.zeros(6))},
        {"inputs": INPUTS, "targets": TARGETS, "placed": PLACED},
        {"placed": PLACED},
        {"targets": TARGETS, "placed": PLACED._replace(shape=(5, 2))},
        {"targets": TARGETS, "placed": PLACED._replace(shape=())},
        {"targets": TARGETS, "placed": PLACED._replace(dtype="object")},
        {"targets": TARGETS, "placed": PLACED._replace(slot=-1)},
        {"targets": TARGETS, "placed": PLACED._replace(use=0)},
        {"targets": TARGETS, "placed": PLACED._replace(shape=(6, 2**62, 0))},
        {"tau": -0.1},
        {"tau": float("nan")},
        {"errors": Array.of(np.zeros((6, 3), dtype=np.float16))},
        {"features": Array.of(np.zeros((6, 3), dtype=np.float16))},
        {"errors": Array.of(np.zeros((6, 3))), "features": Array.of(np.zeros((6, 3)))},
        {name: Array.of(np.zeros((5, 3), dtype=np.float16)) for name in ("errors", "features")},
        {name: Array.of(np.zeros((6, 0), dtype=np.float16)) for name in ("errors", "features")},
        {name: Array.of(np.zeros((6, 3, 1), dtype=np.float16)) for name in ("errors", "features")},
    ],
    ids=[
        *(
            "NaN loss",
            "infinite loss",
            "NaN accuracy",
            "accuracy",
            "num",
            "chunk",
            "bits past the end",
            "long mask",
            "float64 scores",
        ),
        *("few scores", "2-D scores", "six scores", "no targets", "rows alone", "5 of 6", "0-D", "short buffer"),
        *("inputs twice", "placed alone", "5 of 6 placed", "0-D placed", "placed objects", "slot", "use", "vast zeros"),
        *("negative tau", "NaN tau", "errors alone", "features alone", "float64 embeddings", "5 of 6 embeddings"),
        *("no columns", "3-D embeddings"),
    ],
)
def test_candidates_that_contradict_themselves_cannot_be_sent(wrong):
    with pytest.raises(ProtocolError):
        encode(replace(CANDIDATES, **wrong))


def test_good_candidates_pass_the_check_against_their_lease():
    CANDIDATES.check(LEASE, WELCOME)
    with_payload().check(LEASE, replace(WELCOME, transfer="payload"))
    with_payload([4, 0], 2).check(LEASE, replace(WELCOME, transfer="payload", best_k=2))
    masked = replace(LEASE, stop=1008, mask=b"\x7e")
    CANDIDATES.check(masked, WELCOME)


def test_placed_inputs_travel_as_their_place_and_are_no_payload_until_they_are_looked_up():
    message = replace(CANDIDATES, targets=TARGETS, placed=PLACED)
    received = decode(encode(message))
    assert (received.placed, received.inputs) == (PLACED, None)
    assert received.placed.nbytes == 12
    with pytest.raises(ProtocolError, match="a payload is wanted, got none"):
        received.check(LEASE, replace(WELCOME, transfer="payload"))


EMBEDDINGS = replace(WELCOME, embeddings=True)


def test_embeddings_come_where_they_are_wanted_and_only_there():
    with_embeddings().check(LEASE, EMBEDDINGS)
    with pytest.raises(ProtocolError, match="embeddings are not wanted, got some"):
        with_embeddings().check(LEASE, WELCOME)
    with pytest.raises(ProtocolError, match="embeddings are wanted, got none"):
        CANDIDATES.check(LEASE, EMBEDDINGS)
    received = decode(encode(with_embeddings(tau=1.5)))
    assert isinstance(received, Candidates)
    assert received == with_embeddings(tau=1.5)
    assert received.features is not None
    assert received.features.as_numpy().dtype == np.float16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["errors", "features"])
def test_embeddings_must_be_finite_or_their_rows_listed_as_dropped(name, bad):
    rows = np.zeros((6, 4), dtype=np.float16)
    rows[[2, 4], [0, 3]] = bad
    candidates = with_embeddings(**{name: rows}, dropped=pack_mask(np.arange(6) == 2))
    with pytest.raises(ProtocolError, match=f"1 rows of {name} are not finite"):
        candidates.check(LEASE, EMBEDDINGS)
    replace(candidates, dropped=b"\x14").check(LEASE, EMBEDDINGS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite_or_listed_as_dropped(bad):
    scores = np.arange(6, dtype=np.float32)
    scores[2] = bad
    candidates = replace(CANDIDATES, scores=(Array.of(scores),))
    with pytest.raises(ProtocolError, match="1 scores mms are not finite"):
        candidates.check(LEASE, WELCOME)
    listed = replace(candidates, dropped=pack_mask(np.arange(6) == 2))
    listed.check(LEASE, WELCOME)
    np.testing.assert_array_equal(listed.finite_scores()[0], np.float32([0, 1, np.nan, 3, 4, 5]), strict=True)
    assert listed.dropped_flags().tolist() == [False, False, True, False, False, False]


PAYLOAD = replace(WELCOME, transfer="payload")


BEST_2 = replace(PAYLOAD, best_k=2)


@pytest.mark.parametrize(
    ("candidates", "lease", "welcome"),
    [
        (CANDIDATES, replace(LEASE, lease=1), WELCOME),
        (CANDIDATES, replace(LEASE, generation=2), WELCOME),
        (CANDIDATES, replace(LEASE, stop=1007), WELCOME),
        (CANDIDATES, replace(LEASE, mask=b"\x1f"), WELCOME),
        (CANDIDATES, LEASE, replace(WELCOME, scores=("mms", "loss"))),
        (CANDIDATES, LEASE, PAYLOAD),
        (with_payload(), LEASE, WELCOME),
        (with_payload(), LEASE, BEST_2),
        (with_payload([0, 1], 2), LEASE, PAYLOAD),
        (with_payload([0, 1, 2], 3), LEASE, BEST_2),
        (with_payload([1, 1], 2), LEASE, BEST_2),
        (with_payload([0, 6], 2), LEASE, BEST_2),
        (with_payload([-1, 0], 2), LEASE, BEST_2),
        (replace(with_payload([3, 0], 2), dropped=b"\x01"), LEASE, BEST_2),
    ],
    ids=[
        *("lease", "generation", "one too few", "one too many", "scores", "no payload", "payload unasked"),
        *("all for best", "best for all", "too many rows", "repeated", "past the end", "negative", "dropped row"),
    ],
)
def test_an_answer_that_does_not_fit_its_lease_is_refused(candidates, lease, welcome):
    encode(candidates)  # well-formed, only wrong
    with pytest.raises(ProtocolError):
        candidates.check(lease, welcome)


def test_a_chunk_without_a_wanted_position_is_answered_by_no_candidates():
    lease = replace(LEASE, mask=b"\x00")
    empty = replace(CANDIDATES, num=0, scores=(Array("float32", (0,), b""),), loss_mean=None, accuracy=None)
    received = decode(encode(empty))
    assert received == empty
    received.check(lease, WELCOME)
    assert lease.positions().shape == (0,)


def test_exact_scores_come_with_audits_only_and_one_for_each_score():
    audit = replace(LEASE, is_audit=True)
    exact = replace(CANDIDATES, exact_scores=CANDIDATES.scores)
    exact.check(audit, WELCOME)
    CANDIDATES.check(audit, WELCOME)
    assert decode(encode(exact)) == exact
    for wrong, lease in ((exact, LEASE), (replace(exact, exact_scores=exact.scores * 2), audit)):
        with pytest.raises(ProtocolError, match="exact scores are for audits"):
            wrong.check(lease, WELCOME)
    dropped = replace(exact, exact_scores=(Array.of(np.full(6, np.nan, dtype=np.float32)),))
    with pytest.raises(ProtocolError, match="6 scores mms are not finite"):
        dropped.check(audit, WELCOME)
