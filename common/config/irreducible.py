"""Options of the command that makes the table of irreducible losses."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from common.config.learning import LearningOptions

SUFFIX = ".pt"


def _check_table(path: Path) -> Path:
    if path.suffix == SUFFIX:
        return path
    # A file of options that serves `run` too may name its run folder.
    raise ValueError(f"must name a file that ends in {SUFFIX}; pass --out FILE{SUFFIX}")


class IrreducibleOptions(LearningOptions):
    """The loss of every training sample under a model that has not seen it."""

    train_on: Literal["halves", "held-out"] = Field(
        default="halves",
        description="halves: two models, each of one half of the training samples, give the losses of the other half; "
        "held-out: one model of the held-out samples, after which accuracy on them is no independent judge of a run",
    )
    out: Annotated[Path, AfterValidator(_check_table)] = Field(
        default=Path("irreducible.pt"), description="file for the table; an existing one is kept"
    )
