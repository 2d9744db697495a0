"""What is added to a summary when the processes have ended."""

import json
from pathlib import Path

import pytest

from common.experiment import closing
from common.experiment.closing import note_processes
from common.experiment.supervise import Outcome
from tests.common.experiment.members import IN_ORDER, end, member


def test_a_full_disk_keeps_the_summary_as_the_trainer_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.json").write_text('{"steps": 40}')
    scorer = member()
    end(scorer, IN_ORDER)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(closing, "replace_file", full)
        note_processes(tmp_path, [scorer], Outcome(0, None))
    said = "warning: summary.json does not say what became of the processes: No space left on device\n"
    assert capsys.readouterr().err == said
    assert json.loads((tmp_path / "summary.json").read_text()) == {"steps": 40}
    note_processes(tmp_path, [scorer], Outcome(0, None))
    assert [one["name"] for one in json.loads((tmp_path / "summary.json").read_text())["processes"]] == ["scorer-0"]
