"""What the pages about deploying say must work as written, as far as that can be seen without a cluster."""

import re
from pathlib import Path

import pytest

from tests.deploy.commands import DEPLOY, expanded, fenced, read

ROOT = DEPLOY.parent
PAGES = sorted(DEPLOY.rglob("README.md"))
COMMANDS = [(page, words) for page in PAGES for words in fenced(page)]
HOME = {"HOME": "/home/me", "RUN": "runs/first"}


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[" ".join(words)[:60] for _, words in COMMANDS])
def test_every_command_line_of_a_page_parses(page, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    read([expanded(word, HOME) for word in words], DEPLOY / page.parent.name / "run.toml")


def test_there_are_command_lines():
    assert len({page for page, _ in COMMANDS}) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(r"(?<![\w/.-])deploy/[\w./@-]*[\w/]", page.read_text(encoding="utf-8"))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert all((page.parent / link).exists() for link in links), links


@pytest.mark.parametrize("config", sorted(DEPLOY.rglob("run.toml")))
def test_one_file_of_options_serves_trainer_and_scorers(config: Path):
    trainer = read(["marginstream", "trainer", "--config", str(config)])
    scorer = read(["marginstream", "scorer", "--config", str(config), "--connect", "ipc:///tmp/a/b"])
    assert (trainer.data, trainer.model) == (scorer.data, scorer.model)
