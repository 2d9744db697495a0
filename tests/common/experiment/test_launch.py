"""`marginstream run` as a process, with real children: mostly small trainers and scorers of the test's own.

`python -m trainer` looks in the working folder first, so a package of that name there is what `run` starts.
"""

import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.config import ScorerOptions, TrainerOptions, load_options
from common.experiment.children import Child, last_lines

# What the stand-ins share: their options, the run folder, and ways to tell the test something and to wait for it.
PRELUDE = """
import json, os, pathlib, signal, sys, time, tomllib
signal.alarm(60)  # none outlives a test that fails
options_file = pathlib.Path(sys.argv[2])
folder = options_file.parent
options = tomllib.loads(options_file.read_text())

def record(**figures):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"wall_s": 1.0, **figures}) + "\\n")

def summarise(words):
    (folder / "summary.json").write_text(json.dumps({"words": words}))

def tell(text):
    with (folder.parent / "told").open("w") as fifo:
        fifo.write(text)

def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)

def stays():
    while True:
        signal.pause()
"""
TRAINS = "record(step=50); summarise('Trained well.')"
LEAVES_ON_TERM = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); stays()"
LEAVES_WITH_TRAINER = "until((folder / 'summary.json').exists)"

RUN = "import sys; from common.cli import main; sys.exit(main(['run', '--out', 'out', *sys.argv[1:]]))"
CPU = ("--device", "cpu", "--scorer-device", "cpu")


class Workplace:
    """A working folder in which `run` starts a trainer and scorers of the test's own."""

    def __init__(self, folder: Path, trainer: str, scorer: str) -> None:
        self.folder = folder
        self.out = folder / "out"
        os.mkfifo(folder / "told")
        for name, code in (("trainer", trainer), ("scorer", scorer)):
            (folder / name).mkdir()
            (folder / name / "__init__.py").touch()
            (folder / name / "__main__.py").write_text(PRELUDE + code + "\n")

    def start(self, *flags: str, **streams: Any) -> "subprocess.Popen[str]":
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen([sys.executable, "-c", RUN, *CPU, *flags], cwd=self.folder, text=True, **streams)

    def run(self, *flags: str) -> tuple[int, str, str]:
        """Exit code, what stood on stdout, what on stderr."""
        return finish(self.start(*flags))

    def told(self) -> str:
        """Waits for the next thing that a stand-in tells."""
        return (self.folder / "told").read_text()

    def options(self, name: str) -> dict[str, Any]:
        return tomllib.loads((self.out / f"options-{name}.toml").read_text())


Make = Callable[..., Workplace]


@pytest.fixture
def workplace(tmp_path: Path) -> Make:
    def make(trainer: str, scorer: str = LEAVES_WITH_TRAINER) -> Workplace:
        return Workplace(tmp_path, trainer, scorer)

    return make


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
    says = "print(sorted(os.sched_getaffinity(0)), flush=True); "
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
    assert (place.out / "trainer.log").read_text() == f"[{first}]\n"
    assert (place.out / "scorer-0.log").read_text() == f"[{second}]\n"


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


def test_a_killed_trainer_is_told_as_such(workplace: Make) -> None:
    code, _, err = workplace("os.kill(os.getpid(), signal.SIGKILL)", LEAVES_ON_TERM).run()
    assert code == 128 + signal.SIGKILL
    assert err.startswith("error: trainer was ended by SIGKILL and wrote nothing to ")


def test_an_error_in_the_middle_keeps_the_folder(workplace: Make) -> None:
    place = workplace("record(step=50); sys.stderr.write('error: no scorers\\n'); sys.exit(4)", LEAVES_ON_TERM)
    code, out, err = place.run()
    assert (code, err) == (4, "error: no scorers\n")
    assert out.endswith("Run folder: out\n")


@pytest.mark.parametrize("code", [2, 3])
def test_a_scorer_that_cannot_take_part_ends_the_run_before_it_trains(workplace: Make, code: int) -> None:
    refused = f"sys.stderr.write('error: refused: model differs\\n'); sys.exit({code})"
    saves = "lambda *_: (record(step=0), summarise('Trained 0 steps.'), sys.exit(143))"
    trainer = f"signal.signal(signal.SIGTERM, {saves}); (folder / 'ready').touch(); stays()"
    place = workplace(trainer, f"until((folder / 'ready').exists); {refused}")
    ended, out, err = place.run()
    assert (ended, err) == (code, "error: refused: model differs\n")
    assert "Trained" not in out


def test_a_scorer_that_dies_later_does_not_end_the_run(workplace: Make) -> None:
    dies = "until((folder / 'metrics.jsonl').exists); os.kill(os.getpid(), signal.SIGKILL)"
    scorer = f"(folder / (options_file.stem + '.pid')).write_text(str(os.getpid()))\n{dies}"
    trainer = """
def is_gone():  # only when its parent has seen it end
    try:
        os.kill(int((folder / "options-scorer-0.pid").read_text() or 0), 0)
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        pass
    return False
record(step=50)
until(is_gone)
summarise("Trained on.")
"""
    code, out, err = workplace(trainer, scorer).run()
    assert (code, err) == (0, "")
    assert out.splitlines()[-3:] == [
        "Trained on.",
        "scorer-0 was ended by SIGKILL before the end; the run went on without it, see out/scorer-0.log",
        "Run folder: out",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_trainer_save_and_then_ends_the_scorers(workplace: Make, number: signal.Signals) -> None:
    saves = "signal.signal(signal.SIGTERM, lambda *_: (summarise('Stopped early.'), sys.exit(143)))"
    place = workplace(f"record(step=50)\n{saves}\ntell('ready')\nstays()", LEAVES_WITH_TRAINER)
    process = place.start()
    assert place.told() == "ready"
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, err) == (128 + number, "")
    assert out.splitlines()[-2:] == ["Stopped early.", "Run folder: out"]


def test_a_trainer_that_others_stop_in_order_still_has_the_last_word(workplace: Make) -> None:
    code, out, err = workplace("record(step=50); summarise('Stopped early.'); sys.exit(143)").run()
    assert (code, err) == (143, "")
    assert out.splitlines()[-2:] == ["Stopped early.", "Run folder: out"]


def test_a_second_signal_ends_everything_at_once(workplace: Make) -> None:
    trainer = "signal.signal(signal.SIGTERM, lambda *_: tell('saving'))\ntell(str(os.getpid()))\nstays()"
    place = workplace(trainer, "signal.signal(signal.SIGTERM, signal.SIG_IGN); stays()")
    process = place.start()
    pid = int(place.told())
    process.send_signal(signal.SIGTERM)
    assert place.told() == "saving"
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
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


def test_logs_are_shown_without_control_codes(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"one\n\n\x1b[31mred\x1b[0m \x07bell\n 10%\r 20%\r 30%\n\xff\n")
    assert last_lines(log, 3) == ["red bell", " 30%", "\ufffd"]
    assert last_lines(log, 1) == ["\ufffd"]
    assert last_lines(tmp_path / "none", 3) == []


def test_an_error_of_several_lines_is_shown_whole(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("INFO begins\nerror: --a is wrong\n--b is wrong\n")
    with subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(2)"]) as process:
        process.wait(30)
    assert Child("trainer", process, log).error() == "error: --a is wrong\n--b is wrong"
