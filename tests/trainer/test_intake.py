"""What the trainer believes of a CANDIDATES message, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec import structs

from common.errors import ProtocolError
from common.protocol import Array, Candidates, Lease, Version, Welcome, decode, encode, pack_mask
from trainer.chunks import ScoredChunk
from trainer.intake import scored_chunk
from trainer.terms import Terms

GENERATION = 7
LEASE = Lease(3, GENERATION, 40, 44, b"", 5, 60.0)
TERMS = Terms(
    run="", generation=GENERATION, seed=0, num_samples=100, num_classes=10, chunk_size=4, scores=("mms",),
    lowest_is_hard=True, transfer="reference", best_k=None, fingerprint={}, sample_shape=(1, 2), sample_dtype="uint8",
    target_shape=(),
)  # fmt: skip
ANNOUNCED = [Version(GENERATION, step) for step in (4, 5, 6)]


def message(**changes: object) -> Candidates:
    scores = changes.pop("scores", [3.0, 1.0, 2.0, 0.5])
    fields = {
        "lease": 3, "version": Version(GENERATION, 6), "num": 4, "dropped": b"", "loss_mean": 0.5, "accuracy": 0.25,
        "read_s": 0.0, "score_s": 0.0, "scores": (Array.of(np.array(scores, dtype=np.float32)),),
    }  # fmt: skip
    return Candidates(**(fields | changes))  # type: ignore[arg-type]


def welcome(terms: Terms) -> Welcome:
    return terms.welcome(1, wire="float32", weights_port=0, version=None)


def take(candidates: Candidates, terms: Terms = TERMS, lease: Lease = LEASE) -> ScoredChunk:
    """As it is taken off the wire."""
    arrived = decode(encode(candidates))
    assert isinstance(arrived, Candidates)
    return scored_chunk(arrived, lease, welcome(terms), terms, ANNOUNCED)


def masked(*wanted: bool) -> Lease:
    return structs.replace(LEASE, mask=pack_mask(np.array(wanted)))


def payload_terms(best_k: int | None = None) -> Terms:
    return replace(TERMS, transfer="payload", best_k=best_k)


def shipped(num: int = 4, **changes: object) -> dict[str, object]:
    inputs = np.arange(2 * num, dtype=np.uint8).reshape(num, 1, 2)
    return {"inputs": Array.of(inputs), "targets": Array.of(np.arange(num, dtype=np.int64)), **changes}


def test_scores_become_a_chunk_of_the_leases_positions() -> None:
    chunk = take(message())
    assert (chunk.start, chunk.stop, chunk.version) == (40, 44, Version(GENERATION, 6))
    assert {name: row.tolist() for name, row in chunk.scores.items()} == {"mms": [3, 1, 2, 0.5]}
    assert chunk.scores["mms"].dtype == torch.float32
    assert chunk.wanted is None
    assert (chunk.loss_mean, chunk.accuracy, chunk.payload) == (0.5, 0.25, None)


def test_listed_candidates_come_back_as_nan() -> None:
    chunk = take(message(scores=[3, float("nan"), 2, 7], dropped=pack_mask(np.array([False, True, False, True]))))
    assert chunk.scores["mms"].isnan().tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scores": [1, float("nan"), 2, 3]}, "1 scores mms are not finite"),
        ({"scores": [1, float("inf"), 2, 3]}, "not finite"),
        ({"version": Version(GENERATION, 4)}, "older than their lease allows"),
        ({"version": Version(GENERATION, 9)}, "never announced"),
        ({"version": Version(GENERATION - 1, 6)}, "generation 6"),
        ({"lease": 4}, "answer lease 3"),
        ({"num": 3, "scores": [1, 2, 3]}, "wants 4 scores, got 3"),
        ({"scores": [1, 2, 3, 4], **shipped()}, "a payload is not wanted, got one"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        take(message(**changes))


def test_the_number_of_scores_is_the_one_that_was_agreed() -> None:
    two = (message().scores[0], message().scores[0])
    candidates = structs.replace(message(), scores=two)
    with pytest.raises(ProtocolError, match="the scores are mms, got 2"):
        take(candidates)


def test_a_payload_of_all_becomes_tensors_over_the_frames() -> None:
    chunk = take(message(**shipped()), payload_terms())
    assert chunk.payload is not None
    assert chunk.payload.rows.tolist() == [0, 1, 2, 3]
    assert chunk.payload.inputs.tolist() == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]
    assert chunk.payload.inputs.dtype == torch.uint8
    assert chunk.payload.targets.tolist() == [0, 1, 2, 3]


def test_a_payload_of_the_best_says_which_they_are() -> None:
    rows = Array.of(np.array([3, 1], dtype=np.int32))
    chunk = take(message(**shipped(2, rows=rows)), payload_terms(best_k=2))
    assert chunk.payload is not None
    assert chunk.payload.rows.tolist() == [3, 1]
    assert chunk.payload.rows.dtype == torch.int64


@pytest.mark.parametrize(
    ("changes", "best_k", "says"),
    [
        ({}, None, "a payload is wanted, got none"),
        (shipped(inputs=Array.of(np.zeros((4, 1, 3), np.uint8))), None, r"payload inputs are uint8 \(1, 3\)"),
        (shipped(inputs=Array.of(np.zeros((4, 1, 2), np.float32))), None, "payload inputs are float32"),
        (shipped(targets=Array.of(np.zeros((4, 2), np.int64))), None, r"payload targets are int64 \(2,\)"),
        (shipped(targets=Array.of(np.zeros(4, np.int32))), None, "payload targets are int32"),
        (shipped(), 2, "got no rows"),
        (shipped(2, rows=Array.of(np.array([1, 1], np.int32))), 2, "different ones"),
        (shipped(2, rows=Array.of(np.array([1, 4], np.int32))), 2, r"in \[0, 4\)"),
        (shipped(3, rows=Array.of(np.array([0, 1, 2], np.int32))), 2, "at most 2"),
    ],
)
def test_a_payload_other_than_agreed_is_refused(changes: dict[str, object], best_k: int | None, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        take(message(**changes), payload_terms(best_k))


def test_a_payload_row_that_was_dropped_is_refused() -> None:
    mask = pack_mask(np.array([False, True, False, False]))
    rows = Array.of(np.array([0, 1], dtype=np.int32))
    with pytest.raises(ProtocolError, match="not dropped"):
        take(message(dropped=mask, **shipped(2, rows=rows)), payload_terms(best_k=2))


def test_scores_of_a_masked_lease_stand_at_the_positions_that_were_wanted() -> None:
    answer = message(num=2, scores=[3.0, 1.0])
    chunk = take(answer, lease=masked(False, True, False, True))
    assert (len(chunk), chunk.start, chunk.stop) == (4, 40, 44)
    assert chunk.wanted.tolist() == [False, True, False, True]
    assert chunk.scores["mms"].isnan().tolist() == [True, False, True, False]
    assert chunk.scores["mms"][[1, 3]].tolist() == [3, 1]


def test_candidates_dropped_out_of_a_masked_lease_are_wanted_and_nan() -> None:
    answer = message(num=2, scores=[float("nan"), 1.0], dropped=pack_mask(np.array([True, False])))
    chunk = take(answer, lease=masked(False, True, False, True))
    assert chunk.wanted.tolist() == [False, True, False, True]
    assert chunk.scores["mms"].isnan().tolist() == [True, True, True, False]


def test_every_score_that_was_agreed_is_spread_under_its_name() -> None:
    terms = replace(TERMS, scores=("loss", "mms"))
    rows = tuple(Array.of(np.array(row, dtype=np.float32)) for row in ([3.0, 1.0], [0.5, 0.25]))
    chunk = take(structs.replace(message(num=2, scores=[0, 0]), scores=rows), terms, masked(True, False, False, True))
    assert {name: row.nan_to_num(nan=-1).tolist() for name, row in chunk.scores.items()} == {
        "loss": [3, -1, -1, 1],
        "mms": [0.5, -1, -1, 0.25],
    }


@pytest.mark.parametrize("num", [1, 3, 4])
def test_another_number_of_scores_than_the_mask_wants_is_refused(num: int) -> None:
    with pytest.raises(ProtocolError, match=f"wants 2 scores, got {num}"):
        take(message(num=num, scores=[0.0] * num), lease=masked(False, True, False, True))


def test_a_payload_under_a_mask_belongs_to_the_wanted_positions() -> None:
    lease = masked(False, True, False, True)
    chunk = take(message(num=2, scores=[3, 1], **shipped(2)), payload_terms(), lease)
    assert chunk.payload.rows.tolist() == [1, 3]
    rows = Array.of(np.array([1], dtype=np.int32))
    chunk = take(message(num=2, scores=[3, 1], **shipped(1, rows=rows)), payload_terms(best_k=1), lease)
    assert chunk.payload.rows.tolist() == [3]
    assert chunk.payload.inputs.tolist() == [[[0, 1]]]


def test_embeddings_come_with_the_chunk_and_have_the_sizes_of_the_head() -> None:
    terms = replace(TERMS, embeddings=True, embedding_sizes=(2, 3))
    rows = {
        "errors": Array.of(np.arange(8, dtype=np.float16).reshape(4, 2)),
        "features": Array.of(np.arange(12, dtype=np.float16).reshape(4, 3)),
    }
    chunk = take(message(**rows), terms)
    assert chunk.errors.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert chunk.features.shape == (4, 3)
    with pytest.raises(ProtocolError, match="the head has"):
        take(message(**rows), replace(terms, embedding_sizes=(2, 4)))


# -- what would end a step of training --------------------------------------------------------------------------------


def test_scores_below_zero_are_refused_where_there_are_none() -> None:
    terms = replace(TERMS, not_negative=("mms",))
    assert take(message(scores=[0.0, -0.0, 2, 1]), terms).scores["mms"].tolist() == [0, 0, 2, 1]
    with pytest.raises(ProtocolError, match=r"scores mms are at least 0, got -0\.5"):
        take(message(scores=[3, -0.5, 2, 1]), terms)
    take(message(scores=[3, -0.5, 2, 1], dropped=pack_mask(np.array([False, True, False, False]))), terms)
    take(message(scores=[3, -0.5, 2, 1]))  # losses of a model's own may be


@pytest.mark.parametrize("target", [-1, 10, 2**62])
def test_payload_of_a_class_that_does_not_exist_is_refused(target: int) -> None:
    targets = Array.of(np.array([0, 9, target, 1]))
    with pytest.raises(ProtocolError, match=r"payload targets must be in \[0, 10\), got"):
        take(message(**shipped(targets=targets)), payload_terms())


def test_payload_that_is_no_number_is_refused_unless_its_candidate_is_listed_as_dropped() -> None:
    terms = replace(payload_terms(), sample_dtype="float32")
    inputs = np.ones((4, 1, 2), dtype=np.float32)
    inputs[1, 0, 1] = np.inf
    own = shipped(inputs=Array.of(inputs))
    with pytest.raises(ProtocolError, match="1 payload inputs are not finite"):
        take(message(**own), terms)
    take(message(**own, dropped=pack_mask(np.array([False, True, False, False]))), terms)
    best = replace(terms, best_k=2)
    with pytest.raises(ProtocolError, match="1 payload inputs are not finite"):
        take(message(**shipped(2, inputs=Array.of(inputs[:2]), rows=Array.of(np.array([3, 0], np.int32)))), best)
