"""Options of the command that makes the table of irreducible losses."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from common.config.learning import LearningOptions

SUFFIX = ".pt"


def _check_table(path: Path) -> Path:
    if path.suffix == SUFFIX:
        return path
    # A file of options that serves `run` too may name its run folder.
    raise ValueError(f"must name a file that ends in {SUFFIX}; pass --out FILE{SUFFIX}")


class IrreducibleOptions(LearningOptions):
    """A model of the held-out data, and its loss on every training sample."""

    out: Annotated[Path, AfterValidator(_check_table)] = Field(
        default=Path("irreducible.pt"), description="file for the table; an existing one is kept"
    )
