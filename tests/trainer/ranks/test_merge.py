"""The summary of all ranks out of each one's own."""

import logging
from typing import Any

import numpy as np
import pytest
import torch

from trainer.ledger import Ledger
from trainer.ranks.group import ALONE
from trainer.ranks.merge import _plain, joint_ledger, merged_summary
from trainer.words import closing_words


def own(rank: int, **changes: Any) -> dict[str, Any]:
    """Of a rank in a stale run of 100 steps, 80 of them to be selected."""
    figures = {
        "accuracy": 0.9 if rank == 0 else float("nan"), "loss": 0.3, "evaluated_at_step": 100, "steps": 100,
        "samples_trained": 800, "selected_fraction": 1.0, "candidates_per_selected": 4.0, "staleness_mean": 1.0,
        "staleness_max": 1, "staleness_counts": {1: 640}, "fallbacks": 0, "degraded_steps": 0, "degraded_s": 0.0,
        "samples_reused": 0, "short_batches": 0, "steps_by_origin": {"plain": 20, "stale": 80},
        "samples_scored": 2560, "scored_elsewhere": {},
        "flops": {"forward_per_sample": 2.0, "backward_per_sample": 4.0, "training": 4800.0,
                  "scoring": {"float32": 5120.0}, "audit": 0.0},
        "candidates_offered": 2560, "scores_remembered": 0, "queue_expired": 0, "waited_fraction": 0.1,
        "start_wait_s": 1.0, "profile": {"trainer": {"step": 0.8, "other": 0.2}, "beside": {"feeder": 0.1},
                                         "scorers": {"score": 1.0}},
        "agreement": [], "leases": {"leased": 160, "consumed": 160}, "refused": {}, "events": {"scorers joined": 1},
        "audits": {}, "alarms": {}, "pushes": 12 if rank == 0 else 0, "wire_bytes_in": 1000, "wire_bytes_out": 10,
        "io_thread_fraction": 0.2, "wall_s": 5.0, "train_s": 4.0, "mode": "stale", "method": "mms", "data": "digits",
        "model": "small", "seed": 0, "checkpoints": {"saved": 2, "failed": 0}, "resumed_at_step": 0, "generation": 1,
        "parameters": "0123456789abcdef",
    }  # fmt: skip
    assert set(changes) <= set(figures)
    return {**figures, **changes}


STARVED = {
    "selected_fraction": 0.25, "candidates_per_selected": 2.0, "staleness_max": 5, "staleness_counts": {1: 80, 5: 80},
    "fallbacks": 60, "steps_by_origin": {"plain": 20, "stale": 20, "fallback": 60}, "waited_fraction": 0.3,
    "alarms": {"no scorer": 1},
}  # fmt: skip


@pytest.fixture
def whole() -> dict[str, Any]:
    return merged_summary([own(0), own(1, **STARVED)])


def test_counts_are_summed(whole: dict[str, Any]) -> None:
    assert whole["samples_trained"] == 1600
    assert whole["leases"] == {"leased": 320, "consumed": 320}
    assert whole["steps_by_origin"] == {"plain": 40, "stale": 100, "fallback": 60}
    assert whole["staleness_counts"] == {1: 720, 5: 80}
    assert whole["alarms"] == {"no scorer": 1}
    assert whole["flops"] == {
        "forward_per_sample": 2.0, "backward_per_sample": 4.0, "training": 9600.0, "scoring": {"float32": 10240.0},
        "audit": 0.0,
    }  # fmt: skip
    assert whole["steps"] == 100, "a step is one of all ranks"


def test_shares_are_of_all_ranks_together(whole: dict[str, Any]) -> None:
    assert whole["selected_fraction"] == pytest.approx((80 + 20) / (80 + 80))
    assert whole["candidates_per_selected"] == pytest.approx((80 * 4 + 20 * 2) / (80 + 20))
    assert whole["staleness_mean"] == pytest.approx((720 * 1 + 80 * 5) / 800)
    assert whole["staleness_max"] == 5
    assert whole["waited_fraction"] == pytest.approx(0.2)
    assert sum(whole["profile"]["trainer"].values()) == pytest.approx(1)


def test_batches_of_ranks_that_went_on_with_fewer_or_more_count_alike() -> None:
    """Whatever was counted before then stands in the counts of rank 0."""
    before = own(0, selected_fraction=0.5, steps_by_origin={"plain": 40, "stale": 90, "reused": 10, "fallback": 100})
    after = own(1, selected_fraction=1.0, steps_by_origin={"stale": 10})
    assert merged_summary([before, after])["selected_fraction"] == pytest.approx((90 + 10 + 10) / 210)
    nothing = own(0, selected_fraction=0.0, steps_by_origin={"plain": 100})
    assert merged_summary([nothing, nothing])["selected_fraction"] == 0


def test_what_rank_0_does_for_all_is_taken_from_it(whole: dict[str, Any]) -> None:
    assert (whole["accuracy"], whole["pushes"], whole["wall_s"]) == (0.9, 12, 5.0)


def test_each_rank_keeps_its_own_figures(whole: dict[str, Any]) -> None:
    assert [one["rank"] for one in whole["ranks"]] == [0, 1]
    assert [one["fallbacks"] for one in whole["ranks"]] == [0, 60]
    assert "accuracy" not in whole["ranks"][1]
    assert "parameters" not in whole


def test_parameters_that_differ_raise_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        merged_summary([own(0), own(1, parameters="fedcba9876543210")])
    assert "ALARM: the ranks' parameters differ" in caplog.text


def test_the_closing_words_speak_of_ranks_and_of_their_batches(whole: dict[str, Any]) -> None:
    words = closing_words(whole)
    assert words.startswith("Trained small on digits by 2 ranks: 100 steps in 5.0 s (1600 samples), held-out")
    assert "60 batches fell back" in words


def test_numbers_of_numpy_travel_as_numbers() -> None:
    told = _plain({"a": np.int64(1), np.int64(2): [np.float32(0.5), "text", None, True]})
    assert told == {"a": 1, 2: [0.5, "text", None, True]}
    assert {type(told["a"]), type(told[2][0])} == {int, float}


def test_one_rank_has_the_ledger_that_it_has() -> None:
    ledger = Ledger(4, ("seen",))
    assert joint_ledger(ledger, ALONE) is ledger
    assert joint_ledger(None, ALONE) is None
    assert torch.equal(ledger.state_dict()["seen"], torch.zeros(4, dtype=torch.uint32))
