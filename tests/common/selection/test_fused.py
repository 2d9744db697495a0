"""All scores of one pass: the numbers of the slow references, in bounded memory."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from common.selection import fused
from common.selection.fused import ROWS, fused_scores
from common.selection.scores import minimal_margin_score
from tests import reference
from tests.common.selection.test_scores import any_softmax_heads, assert_scores, finite_heads


def rows_of(
    logits_BC: Tensor, weight_CD: Tensor, targets_B: Tensor, names: tuple[str, ...] = ROWS
) -> dict[str, Tensor]:
    return fused_scores(names, logits_BC, weight_CD=weight_CD, targets_B=targets_B)


def some_head(num: int, num_classes: int, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits_BC = torch.randn(num, num_classes, generator=generator) * 3
    weight_CD = torch.randn(num_classes, width, generator=generator)
    return logits_BC, weight_CD, torch.randint(0, num_classes, (num,), generator=generator)


@given(any_softmax_heads)
@settings(deadline=None)
def test_every_score_matches_paper_notation(head):
    logits_BC, weight_CD, _, targets_B = head
    rows = rows_of(logits_BC, weight_CD, targets_B)
    assert_scores(rows["loss"], reference.cross_entropy_score(logits_BC, targets_B), 1e-5)
    finite = logits_BC.isfinite().all(dim=1)  # a logit that is not finite shows in the extremes
    assert torch.equal(rows["highest"].isfinite() & rows["lowest"].isfinite(), finite)
    kept = logits_BC[finite], targets_B[finite]
    assert_scores(rows["mms"][finite], reference.minimal_margin_score(kept[0], weight_CD))
    assert_scores(rows["entropy"][finite], reference.entropy_score(kept[0]))
    assert_scores(rows["gradient-norm"][finite], reference.gradient_norm_bound(*kept))
    assert rows["correct"][finite].tolist() == (kept[0].argmax(dim=1) == kept[1]).float().tolist()


@given(finite_heads)
@settings(deadline=None)
def test_the_margin_is_bitwise_that_of_the_pure_function(head):
    logits_BC, weight_CD, _, targets_B = head
    if logits_BC.shape[1] > 1:
        margins_B = rows_of(logits_BC, weight_CD, targets_B, ("mms",))["mms"]
        assert torch.equal(margins_B, minimal_margin_score(logits_BC, weight_CD))


def test_a_class_that_is_masked_out_adds_nothing_to_the_entropy():
    masked_BC = torch.tensor([[1.0, -math.inf, 2.0]])
    expected = fused_scores(["entropy"], masked_BC[:, [0, 2]])["entropy"]
    torch.testing.assert_close(fused_scores(["entropy"], masked_BC)["entropy"], expected)


def test_losses_and_bounds_of_confident_samples_stay_apart():
    logits_BC, targets_B = torch.tensor([[20.0, 0.0], [22.0, 0.0]]), torch.tensor([0, 0])
    rows = fused_scores(["loss", "gradient-norm"], logits_BC, targets_B=targets_B)
    expected_B = [math.exp(-20), math.exp(-22)]
    assert rows["loss"].tolist() == pytest.approx(expected_B, rel=1e-5)
    assert rows["gradient-norm"].tolist() == pytest.approx([math.sqrt(2) * value for value in expected_B], rel=1e-5)


def test_a_row_is_the_same_whatever_else_is_asked_for():
    head = some_head(40, 10)
    together = rows_of(*head)
    for names in itertools.combinations(ROWS, 2):
        for name, row_B in rows_of(*head, names).items():
            assert torch.equal(row_B, together[name]), names


@pytest.mark.parametrize("rows_a_tile", [1, 7])
def test_tiles_do_not_show_in_the_scores(monkeypatch, rows_a_tile):
    head = some_head(40, 10)
    whole = rows_of(*head)
    monkeypatch.setattr(fused, "_CPU_TILE", 10 * rows_a_tile)
    for name, row_B in rows_of(*head).items():
        torch.testing.assert_close(row_B, whole[name], rtol=1e-6, atol=1e-6, msg=name)


def peak_bytes(recorded: profile) -> int:
    """The most that was allocated at any one time, workspaces of operators included."""
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_scores_of_a_hundred_thousand_classes_take_a_few_rows_of_memory():
    logits_BC, weight_CD, targets_B = some_head(64, 100_000)
    rows_of(logits_BC[:1], weight_CD, targets_B[:1])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        rows_of(logits_BC, weight_CD, targets_B)
    row_bytes = 4 * logits_BC.shape[1]
    assert 2 * row_bytes <= peak_bytes(recorded) < 5 * row_bytes


def test_logits_and_targets_are_left_alone():
    logits_BC, weight_CD, targets_B = some_head(5, 3)
    copies = logits_BC.clone(), targets_B.clone()
    rows_of(logits_BC, weight_CD, targets_B)
    assert torch.equal(logits_BC, copies[0])
    assert torch.equal(targets_B, copies[1])


def test_no_candidates_have_no_scores():
    none = torch.zeros(0, 3), torch.zeros(3, 2), torch.zeros(0, dtype=torch.int64)
    assert [row_B.shape for row_B in rows_of(*none).values()] == [(0,)] * len(ROWS)


def test_what_is_missing_or_does_not_fit_is_refused():
    logits_BC, _, targets_B = some_head(5, 3)
    with pytest.raises(ValueError, match="unknown score 'margin'; available: mms"):
        fused_scores(["margin"], logits_BC)
    with pytest.raises(ValueError, match="needs weight_CD"):
        fused_scores(["mms"], logits_BC)
    with pytest.raises(ValueError, match=r"weight_CD must be \(3, D\).*got \(4, 2\)"):
        fused_scores(["mms"], logits_BC, weight_CD=torch.zeros(4, 2))
    with pytest.raises(ValueError, match="loss needs targets_B"):
        fused_scores(["loss"], logits_BC)
    with pytest.raises(ValueError, match="C >= 2"):
        fused_scores(["loss"], logits_BC[:, :1], targets_B=targets_B)
    with pytest.raises(RuntimeError, match="out of bounds"):
        fused_scores(["loss"], logits_BC, targets_B=torch.full((5,), 3))


@pytest.mark.gpu
def test_scores_on_the_gpu_are_those_of_the_cpu():
    logits_BC, weight_CD, targets_B = some_head(300, 1000)
    on_cpu = rows_of(logits_BC, weight_CD, targets_B)
    for name, row_B in rows_of(logits_BC.cuda(), weight_CD.cuda(), targets_B.cuda()).items():
        assert row_B.device.type == "cpu"
        torch.testing.assert_close(row_B, on_cpu[name], rtol=1e-5, atol=1e-5, msg=name)
