"""`marginstream run` as a process: what becomes of it when one of its processes dies, or somebody ends it."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.experiment.supervise import STOP_S, status_of
from common.processes import SAME_SIGNAL_S
from common.run_folder import held_folder
from tests.common.experiment.members import end, member
from tests.common.experiment.progresses import metrics, run
from tests.common.experiment.workplace import LEAVES_ON_TERM, LEAVES_WITH_TRAINER, Make, finish, is_alive

GO_ON = "Go on with: marginstream run --config out/options.toml --resume"


def test_a_killed_trainer_is_told_as_such(workplace: Make) -> None:
    code, out, err = workplace("os.kill(os.getpid(), signal.SIGKILL)", LEAVES_ON_TERM).run()
    assert code == 128 + signal.SIGKILL
    assert err.startswith("error: trainer was ended by SIGKILL and wrote nothing to ")
    assert "resumed" not in out  # it would die before its first step again


@pytest.mark.parametrize("code", [2, 3])
def test_a_scorer_that_cannot_take_part_ends_the_run_before_it_trains(workplace: Make, code: int) -> None:
    refused = f"sys.stderr.write('error: refused: model differs\\n'); sys.exit({code})"
    saves = "lambda *_: (record(step=0), summarise('Trained 0 steps.'), sys.exit(143))"
    trainer = f"signal.signal(signal.SIGTERM, {saves}); (folder / 'ready').touch(); stays()"
    place = workplace(trainer, f"until((folder / 'ready').exists); {refused}")
    ended, out, err = place.run()
    assert (ended, err) == (code, "error: refused: model differs\n")
    assert "Trained" not in out


def test_a_scorer_that_dies_is_started_again_and_the_summary_says_what_became_of_it(workplace: Make) -> None:
    dies_once = f"""
if life() == 1:
    until((folder / "metrics.jsonl").exists)
    os.kill(os.getpid(), signal.SIGKILL)
print("second life", flush=True)
{LEAVES_WITH_TRAINER}
"""
    second_life = "lambda: 'second life' in (folder / 'scorer-0.log').read_text()"
    place = workplace(f"record(step=50); until({second_life}); summarise('Trained on.')", dies_once)
    code, out, err = place.run("--scorers", "1")
    assert (code, err) == (0, "")
    assert "scorer-0 was ended by SIGKILL; restart 1 of 5 in 0.5 s, see out/scorer-0.log" in out.splitlines()
    assert out.splitlines()[-3:] == [
        "Trained on.",
        "Started again: scorer-0 (once, after SIGKILL)",
        "Run folder: out",
    ]
    trainer, scorer = place.summary()["processes"]
    assert (trainer["name"], trainer["restarts"]) == ("trainer", 0)
    assert (scorer["name"], scorer["restarts"]) == ("scorer-0", 1)
    assert [life["ended_by"] for life in scorer["lives"]] == ["SIGKILL", "exit code 0"]
    assert [str(life["pid"]) for life in scorer["lives"]] == (place.out / "options-scorer-0.lives").read_text().split()
    assert all(life["alive_s"] > 0 for life in (*trainer["lives"], *scorer["lives"]))


def test_a_run_goes_on_without_a_scorer_that_keeps_dying(workplace: Make) -> None:
    dies = "life(); until((folder / 'metrics.jsonl').exists); os.kill(os.getpid(), signal.SIGKILL)"
    place = workplace("record(step=50); until(lambda: is_gone('scorer-0', 2)); summarise('Trained on.')", dies)
    code, out, err = place.run("--restarts", "1")
    assert (code, err) == (0, "")
    assert out.splitlines()[-4:] == [
        "Trained on.",
        "Started again: scorer-0 (once, after SIGKILL)",
        "scorer-0 was ended by SIGKILL before the end; the run went on without it, see out/scorer-0.log",
        "Run folder: out",
    ]


CRASHES_ONCE = """
if not options["resume"]:
    record(step=10)
    record(step=20)
    life()
    crash()
os.replace(folder / "metrics.jsonl", folder / "old")
(folder / "metrics.jsonl").write_text((folder / "old").read_text().splitlines()[0] + "\\n")
until(lambda: life_of_scorer() == lives_wanted)
record(step=options["steps"])
print("resumed at", options["listen"])
(folder / "goodbye").touch()
until(lambda: is_gone("scorer-0", lives_wanted))
summarise("Trained after all.")
"""
LEAVES_ON_GOODBYE = "until((folder / 'goodbye').exists)"


def test_a_trainer_that_crashes_goes_on_once_from_its_checkpoint_where_its_scorers_find_it(workplace: Make) -> None:
    trainer = "crash = lambda: (print('first at', options['listen'], flush=True), os.kill(os.getpid(), signal.SIGKILL))"
    trainer += "\nlife_of_scorer = lambda: 1; lives_wanted = 1" + CRASHES_ONCE
    place = workplace(trainer, "life(); " + LEAVES_ON_GOODBYE)
    code, out, err = place.run()
    assert (code, err) == (0, "")
    first, second = (place.out / "trainer.log").read_text().splitlines()
    assert first.removeprefix("first at ") == second.removeprefix("resumed at ")
    said = "trainer was ended by SIGKILL after step 20; resumed once from its last checkpoint, if there is one, "
    assert f"{said}see out/trainer.log" in out.splitlines()
    assert "Started again: trainer (once, after SIGKILL)" in out
    trainer, scorer = place.summary()["processes"]
    assert [life["ended_by"] for life in trainer["lives"]] == ["SIGKILL", "exit code 0"]
    assert len(scorer["lives"]) == 1


def test_scorers_that_a_crashing_trainer_sent_home_are_there_again_for_the_next_one(workplace: Make) -> None:
    trainer = """
def crash():
    (folder / "crashing").touch()
    until(lambda: is_gone("scorer-0", 1))
    raise RuntimeError("out of luck")
lives_wanted = 2
life_of_scorer = lambda: len((folder / "options-scorer-0.lives").read_text().splitlines())
"""
    goes_home = f"""
if life() == 1:
    until((folder / "crashing").exists)
    sys.exit()
{LEAVES_ON_GOODBYE}
"""
    place = workplace(trainer + CRASHES_ONCE, goes_home)
    code, out, _ = place.run()
    assert code == 0
    assert "Started again: trainer (once, after exit code 1)" in out.splitlines()
    scorer = place.summary()["processes"][1]
    assert [life["ended_by"] for life in scorer["lives"]] == ["exit code 0", "exit code 0"]
    assert scorer["restarts"] == 0


def test_a_trainer_that_crashes_again_ends_the_run_with_its_own_last_words(workplace: Make) -> None:
    crashes = "life(); record(step=50); print(f'error of {options[\"resume\"]}'); sys.exit(1)"
    place = workplace(crashes, LEAVES_ON_TERM)
    code, out, err = place.run()
    assert code == 1
    assert err.splitlines()[1:] == ["  error of True"]
    assert out.splitlines()[-3:] == [
        "Started again: trainer (once, after exit code 1)",
        GO_ON,
        "Run folder: out",
    ]
    assert len((place.out / "options-trainer.lives").read_text().splitlines()) == 2


def test_a_trainer_that_was_told_to_end_is_not_resumed(workplace: Make) -> None:
    place = workplace("life(); record(step=50); os.kill(os.getpid(), signal.SIGTERM)", LEAVES_ON_TERM)
    code, out, _ = place.run()
    assert code == 128 + signal.SIGTERM
    assert len((place.out / "options-trainer.lives").read_text().splitlines()) == 1
    assert GO_ON in out.splitlines()


def test_resume_goes_on_in_the_folder_of_an_interrupted_run_and_never_removes_it(workplace: Make) -> None:
    place = workplace("record(step=50) if not options['resume'] else print('error: no disk'); sys.exit(4)")
    assert place.run("--scorers", "0", "--steps", "60")[0] == 4
    code, out, err = place.run("--scorers", "0", "--steps", "60", "--resume")
    assert (code, err) == (4, "error: no disk\n")
    assert out.splitlines()[0] == "going on with the run in out"
    assert "step 50/60" in out
    (place.folder / "trainer" / "__main__.py").write_text("import sys; sys.exit(2)")
    assert place.run("--scorers", "0", "--steps", "60", "--resume")[0] == 2
    assert (place.out / "metrics.jsonl").exists()
    code, _, err = place.run("--scorers", "0", "--steps", "61", "--resume")
    assert code == 2
    assert "--steps was 60 in the run in out and is 61 now" in err


def test_the_folder_of_a_run_that_goes_on_is_left_alone(workplace: Make) -> None:
    place = workplace("record(step=50); sys.exit(4)")
    place.run()
    options = (place.out / "options.toml").read_text()
    with held_folder(place.out):
        code, _, err = place.run("--resume", "--log.log-every", "7")
    assert code == 2
    assert "a trainer is still at work in" in err
    assert (place.out / "options.toml").read_text() == options


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_trainer_save_and_then_ends_the_scorers(workplace: Make, number: signal.Signals) -> None:
    saves = (
        "signal.signal(signal.SIGTERM, lambda *_: (summarise('Stopped early.', stopped_by='SIGTERM'), sys.exit(143)))"
    )
    place = workplace(f"record(step=50)\n{saves}\ntell('ready')\nstays()", LEAVES_WITH_TRAINER)
    process = place.start()
    assert place.told() == "ready"
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, err) == (128 + number, "")
    assert out.splitlines()[-3:] == ["Stopped early.", GO_ON, "Run folder: out"]


def test_a_signal_that_comes_after_the_last_step_changes_nothing(workplace: Make) -> None:
    ends = "signal.signal(signal.SIGTERM, lambda *_: (summarise('Trained.'), sys.exit(0)))"
    place = workplace(f"record(step=60)\n{ends}\ntell('ready')\nstays()", LEAVES_WITH_TRAINER)
    process = place.start()
    assert place.told() == "ready"
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["Trained.", "Run folder: out"]


def test_a_run_whose_trainer_is_stopped_after_its_summary_is_not_to_go_on(workplace: Make) -> None:
    place = workplace("record(step=60); summarise('Trained.'); os.kill(os.getpid(), signal.SIGTERM)")
    code, out, err = place.run("--scorers", "0")
    assert (code, err) == (143, "")
    assert out.splitlines()[-2:] == ["Trained.", "Run folder: out"]


def test_a_trainer_that_fails_while_it_saves_is_told_as_such(workplace: Make) -> None:
    fails = "signal.signal(signal.SIGTERM, lambda *_: sys.exit('error: no place to save'))"
    place = workplace(f"record(step=50)\n{fails}\ntell('ready')\nstays()", LEAVES_WITH_TRAINER)
    process = place.start()
    assert place.told() == "ready"
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, err) == (128 + signal.SIGINT, "error: no place to save\n")
    assert GO_ON in out


def test_a_trainer_that_others_stop_in_order_still_has_the_last_word(workplace: Make) -> None:
    code, out, err = workplace(
        "record(step=50); summarise('Stopped early.', stopped_by='SIGTERM'); sys.exit(143)"
    ).run()
    assert (code, err) == (143, "")
    assert out.splitlines()[-3:] == ["Stopped early.", GO_ON, "Run folder: out"]


def test_a_second_signal_ends_everything_at_once(workplace: Make) -> None:
    trainer = "signal.signal(signal.SIGTERM, lambda *_: tell('saving'))\ntell(str(os.getpid()))\nstays()"
    place = workplace(trainer, "signal.signal(signal.SIGTERM, signal.SIG_IGN); stays()")
    process = place.start()
    pid = int(place.told())
    process.send_signal(signal.SIGTERM)
    assert place.told() == "saving"
    told_at = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SAME_SIGNAL_S)
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    assert time.monotonic() - told_at < STOP_S / 2
    assert code == 128 + signal.SIGTERM
    assert not is_alive(pid)
    assert "Ended by SIGTERM before the trainer had saved." in out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_supervisor_takes_its_trainer_along(workplace: Make) -> None:
    trainer = "signal.signal(signal.SIGTERM, lambda *_: (tell('heard'), sys.exit()))\ntell('ready')\nstays()"
    place = workplace(trainer, "signal.signal(signal.SIGTERM, signal.SIG_DFL); stays()")
    process = place.start()
    assert place.told() == "ready"
    process.kill()
    finish(process)
    assert place.told() == "heard"


def test_what_happens_at_the_moment_is_told_in_words(tmp_path: Path) -> None:
    progress, trainer = run(tmp_path), member("trainer", tmp_path)

    def status(wrong: str = "") -> str:
        return status_of(progress, trainer.now, wrong)

    assert status() == "starting: importing torch, opening the data…"
    trainer.now.log.write_text("2026-01-01 10:00:00,000 INFO trainer.stream: waiting for a scorer\n")
    assert status("scorer-0 is dead") == "scorer-0 is dead; waiting for a scorer"
    progress.add(metrics(50, 1.0, degraded=0.0))
    assert (status(), status("scorer-0 is dead")) == ("", "scorer-0 is dead")
    progress.add(metrics(100, 2.0, degraded=1.0))
    assert status("scorer-0 is dead") == "DEGRADED: no scorer serves, steps fall back; scorer-0 is dead"
    progress.add(metrics(2000, 3.0, degraded=0.0))
    assert status() == "evaluating and saving…"
    end(trainer)
    assert status() == ""
