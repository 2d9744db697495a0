"""Options of the report on runs that have ended."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from common.config.base import Options


class ReportOptions(Options):
    """A page about runs that have ended: figures, pictures, tables, and results.json."""

    positional: ClassVar[frozenset[str]] = frozenset({"runs"})

    runs: tuple[Path, ...] = Field(
        default=(), description="run folders, or folders that hold some, such as that of a comparison"
    )
    out: Path | None = Field(
        default=None,
        description="folder for report.html, results.json and figures/; by default the folder given, if it is one, "
        "else runs/report-TIME",
    )
    targets: tuple[float, ...] = Field(
        default=(), description="held-out accuracies, 0 to 1: what did it take each arm to reach them"
    )
    open: bool = Field(default=False, description="show the page in a browser")
    fields: bool = Field(default=False, description="print what each field of results.json means and stop")

    @model_validator(mode="after")
    def _targets_are_accuracies(self) -> "ReportOptions":
        if any(not 0 < target <= 1 for target in self.targets):
            raise ValueError(f"--targets must be accuracies in (0, 1], got {' '.join(map(str, self.targets))}")
        return self
