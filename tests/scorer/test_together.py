"""Several leases in one forward pass: the same answers as one by one, in all but float32, where each is alone."""

import math

import numpy as np
import pytest
from torch import Tensor

import scorer.torch_backend
from common.data.source import Source
from common.models import build_model
from common.protocol import Candidates, Lease, decode, encode
from scorer.backend import Together, make_backend
from scorer.staging import StagedWeights
from scorer.torch_backend import TorchBackend
from tests.scorer.leases import CHUNK, GENERATION, SOURCE, options, version, welcome
from tests.scorer.test_replica import staged

SCORES = ("mms", "loss", "entropy", "gradient-norm")


def ready(precision: str, **changes: object) -> TorchBackend:
    backend = make_backend(options("torch", precision=precision))
    assert isinstance(backend, TorchBackend)
    assert isinstance(backend, Together)
    backend.begin(welcome(SCORES, **changes))
    weights = staged(build_model("small", SOURCE.sample, seed=1))
    backend.load(StagedWeights(version(), weights.manifest, weights.flat))
    return backend


def leases() -> list[Lease]:
    some = np.packbits(np.arange(CHUNK) % 3 == 0, bitorder="little").tobytes()
    masks = [b"", some, b"", b""]
    return [
        Lease(number, GENERATION, number * CHUNK, (number + 1) * CHUNK, mask, 0, 60.0)
        for number, mask in zip((30, 2, 21, 22), masks, strict=True)  # over the end of an epoch, and back
    ]


def answered(answer: Candidates) -> Candidates:
    got = decode(encode(answer))
    assert isinstance(got, Candidates)
    return got


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize(
    "changes", [{}, {"transfer": "payload"}, {"transfer": "payload", "best_k": 5}, {"embeddings": True}], ids=str
)
def test_answers_are_those_of_each_lease_by_itself(
    precision: str, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer.torch_backend, "FIGURES_S", 0.0)
    backend, begun = ready(precision, **changes), welcome(SCORES, **changes)
    backend.score(leases()[0], begun)  # calibrates
    together = backend.score_together(leases(), begun)
    for lease, answer in zip(leases(), together, strict=True):
        got, alone = (answered(one) for one in (answer, backend.score(lease, begun)))
        got.check(lease, begun)
        assert (got.lease, got.version, got.num) == (lease.lease, version(), lease.num)
        for one, other in zip(got.finite_scores(), alone.finite_scores(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        for name in ("loss_mean", "accuracy", "tau"):
            assert getattr(got, name) == pytest.approx(getattr(alone, name), rel=1e-4)
        for name in ("inputs", "targets", "rows"):
            mine, theirs = getattr(got, name), getattr(alone, name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_array_equal(mine.as_numpy(), theirs.as_numpy())
        for name in ("errors", "features"):
            mine, theirs = getattr(got, name), getattr(alone, name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_allclose(mine.as_numpy(), theirs.as_numpy(), atol=2e-2)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_quick_scorer_tells_means_now_and_then_and_in_float32_always(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, begun = ready(precision), welcome(("mms",))
    told = []
    for figures_s in (0.0, 60.0, 0.0):
        monkeypatch.setattr(scorer.torch_backend, "FIGURES_S", figures_s)
        for lease, answer in zip(leases()[:2], backend.score_together(leases()[:2], begun), strict=True):
            got = answered(answer)
            got.check(lease, begun)
            told.append([getattr(got, name) is not None for name in ("loss_mean", "accuracy", "tau")])
            assert len(got.finite_scores()) == 1
    seldom = [precision == "float32"] * 3
    assert told == [[True] * 3, [True] * 3, seldom, seldom, [True] * 3, [True] * 3]


def test_a_candidate_that_is_not_finite_is_dropped_in_its_own_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, begun = ready("int8"), welcome(SCORES)
    prepare = Source.prepare

    def spoil(self: Source, inputs: Tensor) -> Tensor:
        prepared = prepare(self, inputs)
        prepared[CHUNK + 1] = math.nan  # the second candidate of the second lease
        return prepared

    monkeypatch.setattr(Source, "prepare", spoil)
    monkeypatch.setattr(backend._replica.form, "takes_bytes", False)  # bytes are finite
    answers = backend.score_together([leases()[0], leases()[2]], begun)
    assert [answer.dropped for answer in answers] == [b"", bytes([2, *[0] * (CHUNK // 8 - 1)])]
    assert all(answer.loss_mean is not None for answer in answers)


def test_as_many_leases_as_fit_into_the_time_are_asked_for_and_one_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = welcome(SCORES)
    for precision, expected in (("int8", range(2, 9)), ("float32", range(1, 2))):
        backend = ready(precision)
        assert backend.most_together == 1, "nothing is known yet"
        backend.score(leases()[0], begun)
        backend.score(leases()[0], begun)
        assert backend.most_together in expected
    backend = ready("int8")
    monkeypatch.setattr(scorer.torch_backend, "TOGETHER_S", 1e-9)
    backend.score(leases()[0], begun)
    assert backend.most_together == 1
