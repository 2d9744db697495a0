"""What audits found: how far two scorings of the same candidates agree, one by one and on average."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.line_writer import LineWriter
from common.run_folder import to_json
from common.whole_files import replace_file


@dataclass(frozen=True)
class Agreement:
    """How far two scorings of one chunk agree.

    Attributes:
        step: that trained on the chunk.
        kind: "staleness", with older against newer weights; "precision", low precision against float32, same weights.
        precision: of the scorer that scored again.
        staleness: steps between the two versions; 0 for kind "precision".
        overlap: of the selected, in [0, 1]; NaN for a method that does not take the hardest of its candidates.
        rank_correlation: Spearman's, in [-1, 1]; NaN where undefined.
        num_candidates: compared; num_selected: of them, by either.
    """

    step: int
    kind: str
    precision: str
    staleness: int
    overlap: float
    rank_correlation: float
    num_candidates: int
    num_selected: int


def mean_agreement(results: Iterable[Agreement]) -> list[dict[str, Any]]:
    """Means by kind, precision and staleness, in that order: for a summary."""
    groups: dict[tuple[str, str, int], list[Agreement]] = {}
    for result in results:
        groups.setdefault((result.kind, result.precision, result.staleness), []).append(result)
    return [
        {
            "kind": kind,
            "precision": precision,
            "staleness": staleness,
            "overlap": _mean([result.overlap for result in group]),
            "rank_correlation": _mean([result.rank_correlation for result in group]),
            "num": len(group),
        }
        for (kind, precision, staleness), group in sorted(groups.items())
    ]


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else None


class AgreementLog:
    """Appends one JSON line for each audit to a file, which is made with the first.

    Attributes:
        num_written: lines in the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = LineWriter(path)
        self.num_written = 0

    def write(self, results: Sequence[Agreement]) -> None:
        """Those of all results so far that are not in the file yet. While it cannot be written they wait."""
        if len(results) == self.num_written:
            return
        if self._lines.write([to_json(asdict(result)) for result in results[self.num_written :]], kept=True):
            self.num_written = len(results)

    def rewind(self, num_written: int) -> None:
        """Take out what an earlier life of the run wrote behind that many lines."""
        self.num_written = num_written
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            replace_file(self._path, "".join(lines[:num_written]))
