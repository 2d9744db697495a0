"""`marginstream run` as a process: what it starts, with which options, and what it says."""

import os
import pty
import re
import tomllib
from pathlib import Path

import pytest

from common.config import RunOptions, ScorerOptions, TrainerOptions, load_options
from common.experiment import launch
from common.scheduling import TALKING_CORES
from tests.common.experiment.workplace import LEAVES_ON_TERM, LEAVES_WITH_TRAINER, TRAINS, Make, finish


def test_a_run_ends_with_the_trainers_summary_and_its_folder(workplace: Make) -> None:
    place = workplace(TRAINS)
    code, out, err = place.run("--scorers", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["run folder out", "trainer on cpu, 2 scorers on cpu"]
    assert out.splitlines()[-2:] == ["Trained well.", "Run folder: out"]
    assert "step 50/2000" in out
    assert "\x1b" not in out
    assert {path.name for path in place.out.glob("*.log")} == {"trainer.log", "scorer-0.log", "scorer-1.log"}


def test_every_process_gets_its_options_and_one_private_endpoint(workplace: Make) -> None:
    place = workplace(TRAINS + "; print(oct(os.stat(os.path.dirname(options['listen'][6:])).st_mode))")
    code, _, _ = place.run("--scorers", "2", "--batch-size", "7", "--precision", "bf16", "--threads", "3")
    assert code == 0
    trainer, scorers = place.options("trainer"), [place.options("scorer-0"), place.options("scorer-1")]
    assert (trainer["batch_size"], trainer["out"]) == (7, str(place.out))
    assert [scorer["connect"] for scorer in scorers] == [trainer["listen"]] * 2
    assert [scorer["precision"] for scorer in scorers] == ["bf16"] * 2
    assert {options["threads"] for options in (trainer, *scorers)} == {3}
    assert (place.out / "trainer.log").read_text() == "0o40700\n"
    assert not Path(trainer["listen"].removeprefix("ipc://")).parent.exists()
    assert tomllib.loads((place.out / "options.toml").read_text())["scorers"] == 2


def test_several_trainers_are_ranks_of_one_group_with_a_log_and_options_each(workplace: Make) -> None:
    place = workplace("print(os.environ['RANK'], os.environ['WORLD_SIZE'])\nif os.environ['RANK'] == '0': " + TRAINS)
    code, out, err = place.run("--trainers", "2", "--scorers", "2", "--batch-size", "8")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "2 trainers on cpu, 2 scorers on cpu"
    assert "each step trains on 2 x 8 = 16 samples" in out.splitlines()
    assert (place.out / "trainer.log").read_text() == "0 2\n"
    assert (place.out / "trainer-rank-1.log").read_text() == "1 2\n"
    first, second = place.options("trainer-0"), place.options("trainer-1")
    assert first == second
    assert place.options("scorer-1")["connect"] == first["listen"]
    names = [one["name"] for one in place.summary()["processes"]]
    assert names == ["trainer-0", "trainer-1", "scorer-0", "scorer-1"]
    assert tomllib.loads((place.out / "options.toml").read_text())["trainers"] == 2


def test_the_rank_that_failed_is_named_with_its_log(workplace: Make) -> None:
    fails = "sys.stderr.write('error: no memory\\n'); sys.exit(4)"
    trains = "record(step=50); (folder / 'ready').touch(); until(lambda: is_gone('trainer-1', 1)); sys.exit(1)"
    by_rank = f"if os.environ['RANK'] == '1':\n    life(); until((folder / 'ready').exists); {fails}\n{trains}"
    code, out, err = workplace(by_rank, LEAVES_ON_TERM).run("--trainers", "2")
    assert code == 4
    assert err == "error: no memory\ntrainer-1 ended with exit code 4, see out/trainer-rank-1.log\n"
    assert "Go on with: marginstream run --config out/options.toml --resume" in out.splitlines()


def test_a_trainer_that_could_not_write_all_it_leaves_has_its_summary_shown_and_then_its_error(workplace: Make) -> None:
    leaves = "record(step=50); summarise('Trained well.', unwritten={'model.pt': 'No space left on device'})"
    code, out, err = workplace(f"{leaves}; sys.stderr.write('error: no room for model.pt\\n'); sys.exit(2)").run(
        "--scorers", "0"
    )
    assert code == 2
    assert err == "error: no room for model.pt\n"
    assert out.splitlines()[-3:] == [
        "Trained well.",
        "Go on with: marginstream run --config out/options.toml --resume",
        "Run folder: out",
    ]


def test_a_model_is_never_discarded_with_its_folder_even_where_nothing_was_recorded(workplace: Make) -> None:
    place = workplace("(folder / 'model.pt').touch(); sys.stderr.write('error: disk full\\n'); sys.exit(2)")
    assert place.run("--scorers", "0")[::2] == (2, "error: disk full\n")
    assert (place.out / "model.pt").exists()


def test_traces_go_to_the_run_folder_and_are_named_at_the_end(workplace: Make) -> None:
    traces = "pathlib.Path(options['profile_to']).touch(); " + LEAVES_WITH_TRAINER
    place = workplace(
        "until((folder / 'trace-scorer-0.json').exists); (folder / 'trace-trainer.json').touch(); " + TRAINS, traces
    )
    _, out, _ = place.run("--profile")
    assert out.splitlines()[-2].endswith("in the run folder: trace-scorer-0.json, trace-trainer.json")
    assert place.options("trainer")["profile"]
    assert place.options("scorer-0")["profile_to"] == str(place.out / "trace-scorer-0.json")


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores and pinning"
)
def test_trainer_and_scorer_run_on_cores_of_their_own(workplace: Make) -> None:
    says = f"print(sorted(os.sched_getaffinity(0)), os.environ.get({TALKING_CORES!r}), flush=True); "
    place = workplace(says + TRAINS, says + LEAVES_WITH_TRAINER)
    before = os.sched_getaffinity(0)
    first, second = sorted(before)[:2]
    os.sched_setaffinity(0, {first, second})  # a small machine
    try:
        code, out, _ = place.run("--threads", "1")
    finally:
        os.sched_setaffinity(0, before)
    assert code == 0
    assert f"pinned: trainer to core {first}, scorer-0 to core {second}" in out.splitlines()
    assert (place.out / "trainer.log").read_text() == f"[{first}] {second}\n"
    assert (place.out / "scorer-0.log").read_text() == f"[{second}] None\n"


def test_a_free_port_is_found_for_both_sides(workplace: Make) -> None:
    place = workplace(TRAINS)
    assert place.run("--insecure", "--listen", "tcp://127.0.0.1:*")[0] == 0
    endpoint = place.options("trainer")["listen"]
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", endpoint)
    assert place.options("scorer-0")["connect"] == endpoint


@pytest.mark.parametrize("mode", ["uniform", "fresh"])
def test_modes_without_scorers_start_none_and_say_so(workplace: Make, mode: str) -> None:
    place = workplace(TRAINS)
    code, out, _ = place.run("--mode", mode, "--scorers", "2")
    assert code == 0
    assert f"no scorers are started: --mode {mode}" in out
    assert not list(place.out.glob("scorer*"))


def test_without_local_scorers_people_are_told_where_to_connect_others(workplace: Make) -> None:
    code, out, _ = workplace(TRAINS).run("--scorers", "0", "--listen", "ipc://here")
    assert code == 0
    assert "marginstream scorer --connect ipc://here" in out


def test_wrong_input_is_told_in_one_line_and_leaves_no_folder(workplace: Make) -> None:
    fails = "print('loading'); sys.stderr.write('error: --data-root: no folder x\\n'); sys.exit(2)"
    place = workplace(fails, LEAVES_ON_TERM)
    code, _, err = place.run()
    assert (code, err) == (2, "error: --data-root: no folder x\n")
    assert not place.out.exists()


def test_what_is_wrong_for_both_is_told_once(workplace: Make) -> None:
    wrong = "sys.stderr.write('error: no folder x\\n'); sys.exit(2)"
    place = workplace(wrong, wrong)
    code, out, err = place.run()
    assert (code, err) == (2, "error: no folder x\n")
    assert "went on" not in out


def test_an_unexpected_error_is_told_with_the_end_of_the_log(workplace: Make) -> None:
    place = workplace("for n in range(40): print('line', n)\nraise RuntimeError('out of luck')", LEAVES_ON_TERM)
    code, out, err = place.run()
    assert code == 1
    lines = err.splitlines()
    assert lines[0] == f"error: trainer ended with exit code 1; the end of {place.out}/trainer.log:"
    assert len(lines) == 16
    assert lines[-1] == "  RuntimeError: out of luck"
    assert out.endswith("Run folder: out\n")


def test_an_error_in_the_middle_keeps_the_folder(workplace: Make) -> None:
    place = workplace("record(step=50); sys.stderr.write('error: no scorers\\n'); sys.exit(4)", LEAVES_ON_TERM)
    code, out, err = place.run()
    assert (code, err) == (4, "error: no scorers\n")
    assert out.endswith("Run folder: out\n")


def test_a_reader_that_goes_away_does_not_end_the_run(workplace: Make) -> None:
    place = workplace("tell('ready'); until((folder.parent / 'gone').exists); " + TRAINS)
    process = place.start()
    assert process.stdout is not None
    assert place.told() == "ready"
    process.stdout.close()
    (place.folder / "gone").touch()
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_used_folder_is_refused_before_anything_starts(workplace: Make) -> None:
    place = workplace(TRAINS)
    place.out.mkdir()
    (place.out / "metrics.jsonl").touch()
    code, _, err = place.run()
    assert code == 2
    assert "out holds files already (metrics.jsonl); choose another folder" in err
    assert [path.name for path in place.out.iterdir()] == ["metrics.jsonl"]


def test_a_dry_run_prints_what_each_process_would_be_told_and_starts_nothing(workplace: Make) -> None:
    place = workplace("tell('started')", "tell('started')")
    code, out, err = place.run("--dry-run", "--scorers", "3", "--batch-size", "9", "--precision", "bf16")
    assert (code, err) == (0, "")
    assert not place.out.exists()
    assert out.startswith("# run folder out\n# trainer on cpu, 3 scorers on cpu\n")
    _, trainer, scorers = re.split(r"^# (?:trainer|scorer-0, scorer-1, scorer-2)$", out, flags=re.MULTILINE)
    file = place.folder / "told.toml"
    file.write_text(trainer)
    assert load_options(TrainerOptions, ["--config", str(file)]).batch_size == 9
    file.write_text(scorers)
    assert load_options(ScorerOptions, ["--config", str(file)]).precision == "bf16"


def test_a_dry_run_prints_ranks_that_are_told_the_same_together(capsys: pytest.CaptureFixture[str]) -> None:
    def titles(*devices: str) -> list[str]:
        assert launch.main(RunOptions(trainers=3, scorers=2, dry_run=True, devices=devices)) == 0
        return re.findall(r"^# ((?:trainer|scorer)-.*)$", capsys.readouterr().out, flags=re.MULTILINE)

    assert titles("cpu") == ["trainer-0, trainer-1, trainer-2", "scorer-0, scorer-1"]
    gpus = ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert titles(*gpus) == ["trainer-0", "trainer-1", "trainer-2", "scorer-0, scorer-1"]


def test_on_a_terminal_the_display_is_live_and_stays_to_the_end(workplace: Make) -> None:
    place = workplace(TRAINS)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = place.start("--steps", "50", stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(ours)
    assert finish(process)[0] == 0
    text = shown.decode()
    assert "\x1b[2K" in text  # redrawn in place
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is back
    assert "50/50 steps" in text
    assert text.splitlines()[-2].endswith("Trained well.")
    assert text.splitlines()[-1] == "Run folder: out"
