"""Processes of a run and what they leave in their logs."""

import subprocess
import sys
from pathlib import Path

from common.experiment.children import Child, last_lines


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
