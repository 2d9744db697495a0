"""Audits over real processes: the same weights select the same samples, and audits change nothing of the training."""

import pytest

from common.models import build_model
from common.protocol import Candidates, decode, encode
from scorer.backend import make_backend
from scorer.staging import StagedWeights
from scorer.torch_backend import TorchBackend
from tests.scorer.leases import SOURCE, lease, options, version, welcome
from tests.scorer.test_replica import staged
from tests.service.processes import Processes


def test_in_lockstep_the_same_weights_select_the_same_samples_again(processes: Processes) -> None:
    lockstep = ("--push-every", "1", "--max-staleness", "0", "--fallback", "wait")
    sizes = ("--candidates", "128", "--chunk-size", "128", "--steps", "60", "--log.audit-fraction", "1")
    processes.service("audited", *lockstep, *sizes, "--selection.warmup-fraction", "0").succeeds()
    lines = processes.lines("audited", "agreement.jsonl")
    same_weights = [line for line in lines if line["staleness"] == 0]
    assert len(same_weights) > 0, lines
    assert {(line["overlap"], line["rank_correlation"]) for line in same_weights} == {(1.0, 1.0)}
    assert min((line["staleness"] for line in lines), default=-1) == 0
    summary = processes.summary("audited")
    audits = summary["audits"]
    assert audits["asked"] == 54  # one chunk in each selecting step
    assert audits["asked"] == audits["answered"] + audits["abandoned"]
    assert audits["answered"] == len(lines)
    assert audits["candidates"] == 128 * len(lines)
    flops = summary["flops"]
    assert flops["audit"] == flops["forward_per_sample"] * audits["candidates"]
    assert summary["samples_scored"] == 128 * 54  # audits are counted apart


def test_audits_cause_no_push_so_that_they_do_not_change_what_they_measure(processes: Processes) -> None:
    sizes = ("--candidates", "128", "--chunk-size", "128", "--steps", "120")
    processes.service(
        "audited", *sizes, "--push-every", "32", "--fallback", "wait", "--log.audit-fraction", "1"
    ).succeeds()
    summary = processes.summary("audited")
    assert summary["audits"]["answered"] > 0
    assert summary["pushes"] + summary["pushes_skipped"] == 4  # at the steps 0, 32, 64 and 96
    ages = {line["staleness"] for line in processes.lines("audited", "agreement.jsonl")}
    assert ages <= {0, 32, 64, 96}


@pytest.mark.parametrize(("precision", "has_exact"), [("float32", False), ("bf16", True)])
def test_a_scorer_of_low_precision_answers_an_audit_with_float32_scores_too(precision: str, has_exact: bool) -> None:
    own = make_backend(options("torch", precision=precision))
    reference = make_backend(options("torch"))
    answers = []
    for backend in (own, reference):
        assert isinstance(backend, TorchBackend)
        begun = welcome(("mms", "loss"))
        backend.begin(begun)
        weights = staged(build_model("small", SOURCE.sample, seed=9))
        backend.load(StagedWeights(version(), weights.manifest, weights.flat))
        asked = lease(is_audit=True)
        answer = decode(encode(backend.score(asked, begun)))
        assert isinstance(answer, Candidates)
        answer.check(asked, begun)
        answers.append(answer)
    exact = answers[0].finite_exact_scores()
    assert len(exact) == (2 if has_exact else 0)
    for row, expected in zip(exact, answers[1].finite_scores(), strict=False):
        assert (row == expected).all()
    if has_exact:
        assert (exact[0] != answers[0].finite_scores()[0]).any()
