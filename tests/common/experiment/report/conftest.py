"""One study and one report, written once."""

from pathlib import Path

import pytest

from common.experiment.records import RunRecord
from common.experiment.report import write_report
from common.experiment.results import Results, RunResult
from tests.common.experiment.report import planted

NASTY = "<script>alert('$1$')</script>"  # a name as people may give it


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, dict[str, list[RunRecord]]]:
    return planted.study(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def report(made: tuple[Results, dict[str, list[RunRecord]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study in which a run failed and names hold what could be markup."""
    results, records = made
    failed = RunResult(seed=7, folder="x", status="failed", error="ran out of <memory>")
    plain = results.arms[0].model_copy(update={"runs": [*results.arms[0].runs, failed]})
    fresh = results.arms[1].model_copy(update={"name": NASTY})
    results = results.model_copy(update={"arms": [plain, fresh, *results.arms[2:]], "verdict": [f"{NASTY} wins."]})
    records = {NASTY if name == "fresh" else name: runs for name, runs in records.items()}
    return write_report(results, tmp_path_factory.mktemp("report"), records)
