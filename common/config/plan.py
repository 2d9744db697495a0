"""Options of the plan: those of a run, and how to measure."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from common.config.run import RunOptions


class PlanOptions(RunOptions):
    """Measure this machine for about half a minute, and say what to run on it. Options that are given stay as given."""

    flag_aliases: ClassVar[dict[str, tuple[str, ...]]] = {"as_json": ("--json",)}

    as_json: bool = Field(default=False, description="print one line of JSON instead of tables")
    measure_s: float = Field(
        default=24.0, gt=0, description="seconds of measuring in all, without what it takes to start"
    )

    @model_validator(mode="after")
    def _is_for_one_trainer(self) -> Self:
        if self.trainers > 1:
            raise ValueError(
                f"--trainers {self.trainers}: a plan measures one trainer and its scorers; leave it out, and give each "
                "further trainer as many scorers"
            )
        return self
