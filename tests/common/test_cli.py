"""Commands as people start them: in processes of their own, by exit code and what they print."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from common import cli
from common.errors import DataError, PeerTimeout, Rejected

REPOSITORY = Path(__file__).parents[2]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)


def marginstream(*arguments: str) -> subprocess.CompletedProcess[str]:
    return call("-c", "import sys; from common.cli import main; sys.exit(main())", *arguments)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    help_text = capsys.readouterr().out
    assert all(command in help_text for command in ("run", "trainer", "scorer"))
    assert cli.main([]) == 0
    assert capsys.readouterr().out == help_text


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("marginstream ")


def test_an_unknown_command_is_an_error_that_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "error: unknown command trian; did you mean trainer?\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("x"), 2), (Rejected("model", "x"), 3), (PeerTimeout("x"), 4), (KeyboardInterrupt(), 130)],
)
def test_errors_for_people_become_a_line_and_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert cli.guard(fail) == code
    assert capsys.readouterr().err == ("" if code == 130 else "error: x\n")


def test_errors_of_our_own_rise() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.guard(fail)


def test_an_error_that_a_full_disk_does_not_take_keeps_its_exit_code() -> None:
    command = [sys.executable, "-c", "import sys; from common.cli import main; sys.exit(main(['trian']))"]
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run(command, stderr=full, timeout=60, cwd=REPOSITORY, check=False).returncode == 2


@pytest.mark.parametrize("command", ["trainer", "scorer"])
def test_a_wrong_option_ends_the_process_with_code_2_and_one_line(command: str) -> None:
    for ended in (marginstream(command, "--theads", "3"), call("-m", command, "--theads", "3")):
        assert ended.returncode == 2
        assert ended.stderr == "error: unknown option --theads; did you mean --threads?\n"


def test_a_wrong_option_of_run_ends_it_before_anything_starts() -> None:
    ended = marginstream("run", "--push-every", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --push-every must be greater than 0, got 0\n"


def test_dry_run_prints_resolved_options_that_read_back() -> None:
    trainer = call("-m", "trainer", "--dry-run", "--candidates", "64", "--steps", "5")
    assert trainer.returncode == 0
    assert tomllib.loads(trainer.stdout)["candidates"] == 64
    assert "# chunk_size: 64" in trainer.stdout
    scorer = marginstream("scorer", "--dry-run", "--connect", "ipc:///tmp/x", "--device", "cpu")
    assert scorer.returncode == 0
    assert tomllib.loads(scorer.stdout)["scorer_device"] == "cpu"
