"""What a scorer's --precision does: what it tells the trainer, when it calibrates, and what it refuses."""

import pytest

from common.errors import ConfigError
from common.models import build_model
from common.protocol import PRECISIONS, Candidates, decode, encode
from scorer.backend import Backend, make_backend
from scorer.loop import hello_of
from scorer.staging import StagedWeights
from scorer.torch_backend import TorchBackend
from tests.scorer.leases import SOURCE, lease, options, version, welcome
from tests.scorer.test_replica import staged

SCORES = ("mms", "loss")


@pytest.fixture(scope="module")
def int8() -> TorchBackend:
    backend = make_backend(options("torch", precision="int8", recalibrate_every=2))
    assert isinstance(backend, TorchBackend)
    return backend


def push(backend: Backend, seed: int) -> None:
    weights = staged(build_model("small", SOURCE.sample, seed=seed))
    backend.load(StagedWeights(version(), weights.manifest, weights.flat))


@pytest.mark.parametrize("backend", ["torch", "synthetic", "proxy"])
def test_the_trainer_is_told_which_precision_auto_came_to(backend: str) -> None:
    more = {"proxy_model": "small"} if backend == "proxy" else {}
    given = options(backend, precision="auto", **more)
    told = hello_of(given, make_backend(given)).precision
    assert told in PRECISIONS
    assert told == "float32" or backend == "torch"


def test_int8_is_calibrated_with_the_first_chunk_of_a_session_and_every_so_many_versions(int8: TorchBackend) -> None:
    form, begun, calibrated = int8._replica.form, welcome(SCORES), []
    for _ in range(2):
        int8.begin(begun)
        for seed in range(6):
            push(int8, seed)
            int8.score(lease(), begun)
            int8.score(lease(64), begun)
            calibrated.append(form.num_calibrated)
    assert [count - calibrated[0] for count in calibrated[:6]] == [0, 1, 2, 3, 3, 4]  # with all but the fifth
    assert calibrated[6:] == [count + calibrated[5] for count in calibrated[:6]]
    assert form.num_refreshed == 12


def test_int8_is_calibrated_by_generation_and_not_for_each_rank(int8: TorchBackend) -> None:
    form = int8._replica.form

    def score(rank: int, generation: int) -> int:
        """How often it had to be calibrated for a chunk of a session that begins."""
        begun, before = welcome(SCORES, rank=rank, num_ranks=2, generation=generation), form.num_calibrated
        int8.begin(begun)
        int8.score(lease(), begun)
        return form.num_calibrated - before

    push(int8, 1)
    assert [score(0, 20), score(1, 20), score(1, 20), score(1, 21), score(1, 21)] == [1, 0, 0, 1, 0]


def test_an_audit_of_int8_carries_the_scores_of_the_float32_master(int8: TorchBackend) -> None:
    begun, exact = welcome(SCORES), make_backend(options("torch"))
    answers = []
    for backend in (int8, exact):
        backend.begin(begun)
        push(backend, 9)
        answer = decode(encode(backend.score(lease(is_audit=True), begun)))
        assert isinstance(answer, Candidates)
        answers.append(answer)
    truth = answers[1].finite_scores()
    for row, expected in zip(answers[0].finite_exact_scores(), truth, strict=True):
        assert (row == expected).all()
    assert (answers[0].finite_scores()[0] != truth[0]).any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "fp16"}, "--precision fp16: for CUDA devices"),
        ({"precision": "bf16", "compile": True}, "--compile: forward passes are captured on CUDA devices"),
    ],
)
def test_a_scorer_refuses_at_its_start_what_its_device_has_not(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_backend(options("torch", **given))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_cannot_be_captured_is_an_error_of_the_options(precision: str) -> None:
    with pytest.raises(ValueError, match=f"--compile goes with --precision bf16, fp16 or auto, got {precision}"):
        options("torch", precision=precision, compile=True)
