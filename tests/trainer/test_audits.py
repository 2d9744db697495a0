"""Chunks that are scored twice: which, when, by whom, and what is said of it."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.protocol import Lease
from tests.trainer.chunks import GENERATION, scored
from trainer.agreement import Agreement, AgreementLog, mean_agreement
from trainer.audits import FIRST_LEASE, MAX_WAITING, Audits
from trainer.chunks import Payload

NUM = 8  # candidates of a chunk


def audits(fraction: float = 1.0, *, lowest_is_hard: bool = True, selects_best: bool = True) -> Audits:
    return Audits(
        fraction,
        batch_size=NUM // 2,
        generation=GENERATION,
        seed=3,
        score_name="mms",
        lowest_is_hard=lowest_is_hard,
        selects_best=selects_best,
        lease_s=60.0,
    )


def leased(own: Audits, *, announced: int = 99, session: int = 1) -> Lease:
    lease = own.next_lease(session, announced)
    assert lease is not None, "nothing to lease"
    return lease


def test_the_fraction_that_was_asked_for_is_chosen_by_position_alone() -> None:
    chunks = [scored(start, NUM) for start in range(0, 4000 * NUM, NUM)]
    chosen = []
    for _ in range(2):
        own = audits(0.1)
        picked = []
        for chunk in chunks:
            own.choose([chunk], 0)
            if (lease := own.next_lease(len(picked), 0)) is not None:
                picked.append(lease.start)
        chosen.append(picked)
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) / 4000 == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / 4000))
    none = audits(0.0)
    none.choose(chunks, 0)
    assert none.counts["asked"] == 0


def test_an_audit_waits_for_weights_as_new_as_its_step() -> None:
    own = audits()
    own.choose([scored(0, NUM, step=3)], step=7)
    assert own.next_lease(1, 6) is None
    lease = leased(own, announced=8)
    assert (lease.start, lease.stop, lease.oldest_step, lease.is_audit) == (0, NUM, 7, True)
    assert lease.lease > FIRST_LEASE


def test_an_audit_keeps_no_samples_alive() -> None:
    own = audits()
    payload = Payload(torch.arange(NUM), torch.zeros(NUM, 3), torch.zeros(NUM))
    own.choose([scored(0, NUM, payload=payload)], step=0)
    assert own._waiting[0].chunk.payload is None


def test_an_audit_that_is_not_answered_in_time_is_given_up_and_frees_its_session() -> None:
    own = audits()
    own.choose([scored(0, NUM), scored(NUM, NUM)], step=0)
    leased(own, session=1)
    own.expire(time.monotonic() + 59.0)
    assert own.next_lease(1, 0) is None
    own.expire(time.monotonic() + 61.0)
    assert own.counts["abandoned"] == 1
    assert leased(own, session=1).start == NUM


def test_where_the_best_are_not_taken_there_is_no_overlap_of_the_selected() -> None:
    own = audits(selects_best=False)
    own.choose([scored(0, NUM)], step=0)
    own.compare(leased(own).lease, scored(0, NUM), (), ("mms",), "float32")
    assert math.isnan(own.results[0].overlap)
    assert own.results[0].rank_correlation == 1.0


def test_a_session_has_one_audit_at_a_time() -> None:
    own = audits()
    own.choose([scored(0, NUM), scored(NUM, NUM)], step=0)
    leased(own, session=1)
    assert own.next_lease(1, 0) is None
    assert leased(own, session=2).start == NUM


def test_an_answer_is_compared_by_the_difference_of_the_two_versions() -> None:
    own = audits()
    old = [0.0, 1, 2, 3, 4, 5, 6, 7]
    new = [0.0, 1, 6, 7, 4, 5, 2, 3]  # 0 and 1 of the four lowest stay
    own.choose([scored(0, NUM, step=3, scores=old)], step=7)
    lease = leased(own, announced=7)
    own.compare(lease.lease, scored(0, NUM, step=9, scores=new), (), ("mms",), "float32")
    (result,) = own.results
    assert (result.kind, result.staleness, result.step, result.num_selected) == ("staleness", 6, 7, 4)
    assert result.overlap == 0.5
    assert result.rank_correlation == pytest.approx(1 - 6 * (4 * 16) / (8 * 63))
    assert own.counts == {"asked": 1, "answered": 1, "abandoned": 0, "candidates": NUM}
    assert own.num_forward == NUM


def test_a_share_of_the_chunk_is_selected_as_of_all_candidates() -> None:
    own = audits()
    own.choose([scored(start, NUM) for start in (0, NUM, 2 * NUM, 3 * NUM)], step=0)  # 4 of 32 selected
    lease = leased(own)
    own.compare(lease.lease, scored(0, NUM), (), ("mms",), "float32")
    assert own.results[0].num_selected == 1


def test_exact_scores_say_what_precision_costs() -> None:
    own = audits(lowest_is_hard=False)
    own.choose([scored(0, NUM)], step=0)
    exact = np.array([7, 1, 2, 3, 4, 5, 6, 0], dtype=np.float32)  # the hardest and the easiest change places
    own.compare(leased(own).lease, scored(0, NUM), (np.zeros(NUM, np.float32), exact), ("loss", "mms"), "bf16")
    staleness, precision = own.results
    assert (staleness.kind, staleness.overlap) == ("staleness", 1.0)
    assert (precision.kind, precision.precision, precision.staleness) == ("precision", "bf16", 0)
    assert precision.overlap == 0.75
    assert own.num_forward == 2 * NUM


def test_only_positions_that_wanted_a_score_are_compared() -> None:
    wanted = np.array([True, True, False, True, True, False, True, True])
    values = torch.arange(float(NUM)).where(torch.from_numpy(wanted), float("nan"))
    chunk = replace(scored(0, NUM), scores={"mms": values}, wanted=wanted)
    own = audits()
    own.choose([chunk], step=0)
    lease = leased(own)
    assert lease.num == 6
    own.compare(lease.lease, chunk, (values.numpy()[wanted],), ("mms",), "bf16")
    assert [result.num_candidates for result in own.results] == [6, 6]
    assert [result.overlap for result in own.results] == [1.0, 1.0]
    assert own.counts["candidates"] == 6


def test_what_is_lost_with_its_session_or_never_leased_is_counted() -> None:
    own = audits()
    for start in range(0, (MAX_WAITING + 2) * NUM, NUM):
        own.choose([scored(start, NUM)], step=0)
    assert own.counts["abandoned"] == 2  # the oldest
    lease = leased(own, session=5)
    own.lose(5)
    assert own.counts["abandoned"] == 3
    own.compare(lease.lease, scored(lease.start, NUM), (), ("mms",), "float32")  # late
    assert own.results == []
    own.end()
    num = MAX_WAITING + 2
    assert own.counts == {"asked": num, "answered": 0, "abandoned": num, "candidates": 0}


def test_after_the_end_nothing_is_asked_or_compared_so_that_the_closing_figures_agree() -> None:
    own = audits()
    own.choose([scored(0, NUM), scored(NUM, NUM)], step=0)
    lease = leased(own)
    own.end()
    own.choose([scored(2 * NUM, NUM)], step=1)
    own.compare(lease.lease, scored(0, NUM), (), ("mms",), "float32")
    own.end()
    assert own.counts == {"asked": 2, "answered": 0, "abandoned": 2, "candidates": 0}
    assert (own.results, own.num_forward) == ([], 0)


def agreement(staleness: int, overlap: float, rank_correlation: float, kind: str = "staleness") -> Agreement:
    return Agreement(1, kind, "float32", staleness, overlap, rank_correlation, 8, 4)


def test_means_are_taken_by_kind_and_staleness_without_what_is_undefined() -> None:
    results = [agreement(8, 0.5, 0.2), agreement(0, 1.0, 1.0), agreement(8, 0.7, math.nan)]
    first, second = mean_agreement(results)
    assert (first["staleness"], first["overlap"], first["num"]) == (0, 1.0, 1)
    assert (second["staleness"], second["num"]) == (8, 2)
    assert second["overlap"] == pytest.approx(0.6)
    assert second["rank_correlation"] == 0.2


def test_the_log_holds_every_result_once(tmp_path: Path) -> None:
    path = tmp_path / "agreement.jsonl"
    log = AgreementLog(path)
    log.write([])
    assert not path.exists()
    results = [agreement(1, 0.5, math.nan)]
    log.write(results)
    results.append(agreement(2, 1.0, 1.0))
    log.write(results)
    log.write(results)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["staleness"] for line in lines] == [1, 2]
    assert lines[0]["rank_correlation"] is None


def test_results_for_which_the_disk_had_no_room_come_with_the_next_ones(tmp_path: Path) -> None:
    path = tmp_path / "agreement.jsonl"
    path.symlink_to("/dev/full")
    log = AgreementLog(path)
    results = [agreement(1, 0.5, 0.5)]
    log.write(results)
    assert log.num_written == 0
    path.unlink()
    log.write([*results, agreement(2, 0.5, 0.5)])
    assert len(path.read_text().splitlines()) == log.num_written == 2


def test_after_a_restart_results_are_kept_what_was_out_is_abandoned_and_the_log_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    own = audits()
    for start in range(0, 3 * NUM, NUM):
        own.choose([scored(start, NUM)], 0)
    own.compare(leased(own).lease, scored(0, NUM, step=4), (), ("mms",), "float32")
    leased(own, session=2)
    log = AgreementLog(tmp_path / "agreement.jsonl")
    log.write(own.results)
    state, num_written = own.state_dict(), log.num_written
    log.write([*own.results, agreement(9, 1.0, 1.0)])

    again, later = audits(), AgreementLog(tmp_path / "agreement.jsonl")
    again.load_state_dict(state)
    assert again.results == own.results
    assert again.counts == {"asked": 3, "answered": 1, "abandoned": 2, "candidates": NUM}
    assert again.num_forward == NUM
    later.rewind(num_written)
    later.write(again.results)
    assert len((tmp_path / "agreement.jsonl").read_text().splitlines()) == 1
