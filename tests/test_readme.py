"""What README and the shipped configurations say must work as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import RunOptions, TrainerOptions, load_options
from common.config.compare import CompareFlags
from common.experiment.compare.arms import read_arms
from tests.deploy.commands import read

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATORS = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
SHELL_BLOCKS = re.findall(r"```sh\n(.*?)```", README + OPERATORS, flags=re.DOTALL)
COMMANDS = re.findall(r"^marginstream .*$", "\n".join(SHELL_BLOCKS), flags=re.MULTILINE)
CONFIGS = sorted((ROOT / "deploy" / "configs").rglob("*.toml"))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_of_the_readme_parses(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    read(shlex.split(line, comments=True))


def test_the_readme_has_command_lines():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", [RunOptions, TrainerOptions, CompareFlags])
def test_every_shipped_configuration_loads(path, kind):
    load_options(kind, ["--config", str(path)])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_has_arms_that_can_be_compared(path):
    options = load_options(CompareFlags, ["--config", str(path)])
    assert len(read_arms(options.arms, options.given)) >= 3


def test_the_program_of_the_readme_trains(tmp_path):
    (program,) = [text for text in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "__main__" in text]
    (tmp_path / "my_net.py").write_text(program.replace("steps=1000", "steps=150"))
    result = subprocess.run(
        [sys.executable, "my_net.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "'steps': 150" in result.stdout
    assert "'stale'" in result.stdout, "no step trained on scored candidates"


def test_the_method_of_the_readme_is_the_one_that_is_tested():
    example = (ROOT / "tests" / "common" / "selection" / "example_method.py").read_text(encoding="utf-8").strip()
    assert example in README
    assert '"every-other": Entry("every_other:EveryOther"),' in README
