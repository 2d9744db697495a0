"""Shares of time, in figures and in words."""

import pytest

from common.protocol import Spent
from trainer.profile import Profile, profile_words

NOBODY = Spent(0, 0, 0, 0, 0)


def test_shares_of_the_training_thread_make_up_all_of_its_time() -> None:
    profile = Profile.of(10.0, {"step": 6.0, "push": 1.0, "wait": 2.0}, {"feeder": 5.0}, NOBODY)
    assert profile.trainer == pytest.approx({"step": 0.6, "push": 0.1, "wait": 0.2, "other": 0.1})
    assert profile.beside == {"feeder": 0.5}
    assert profile.scorers == {}


def test_shares_of_scorers_are_of_the_time_of_all_of_them() -> None:
    profile = Profile.of(10.0, {}, {}, Spent(read_s=2, score_s=12, load_s=1, answer_s=1, idle_s=4))
    assert profile.scorers == {"read": 0.1, "score": 0.6, "load": 0.05, "answer": 0.05, "idle": 0.2}


def test_a_run_that_never_began_has_no_shares_past_one() -> None:
    profile = Profile.of(0.0, {"evaluate": 1.0}, {"io": 2.0}, NOBODY)
    assert (profile.trainer, profile.beside) == ({"evaluate": 1.0, "other": 0.0}, {"io": 1.0})


def test_waiting_has_one_curve_of_its_own_elsewhere() -> None:
    curves = Profile.of(4.0, {"step": 3.0, "wait": 1.0}, {"io": 1.0}, Spent(1, 0, 0, 0, 1)).curves()
    assert curves["time/step_fraction"] == 0.75
    assert curves["time/io_fraction"] == 0.25
    assert curves["scorer_time/idle_fraction"] == 0.5
    assert "time/wait_fraction" not in curves


def test_words_name_every_phase_that_took_time() -> None:
    profile = Profile.of(10.0, {"step": 6.0, "wait": 2.0}, {"feeder": 1.0, "io": 0.5}, Spent(1, 6, 1, 1, 1))
    assert profile_words(profile.summary()) == (
        "Time of the trainer: steps 60.0%, waiting 20.0%, other 20.0%; beside it the thread that prepares batches was "
        "busy 10.0% of the time and the one that talks to scorers 5.0%. Time of the scorers: reading 10.0%, scoring "
        "60.0%, loading weights 10.0%, answering 10.0%, idle 10.0%."
    )


def test_scorers_that_were_last_heard_before_they_worked_have_no_shares() -> None:
    assert Profile.of(10.0, {"step": 6.0}, {}, Spent(0, 0, 0, 0, idle_s=2)).scorers == {}
    assert Profile.of(10.0, {"step": 6.0}, {}, Spent(0, 0, load_s=1, answer_s=0, idle_s=3)).scorers["idle"] == 0.75
