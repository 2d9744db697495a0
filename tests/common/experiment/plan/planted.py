"""A machine as it might have been measured: round numbers."""

from dataclasses import replace
from typing import Any

from common.config.plan import PlanOptions
from common.experiment.plan.measured import Measured, Scoring, Together

FLOAT32 = Scoring("float32", 64, sample_s=100e-6, overlap=1.0, load_s=1e-6, is_good=True)
INT8 = Scoring("int8", 64, sample_s=20e-6, overlap=0.9, load_s=1e-3, is_good=True)
CRUDE = Scoring("bf16", 64, sample_s=10e-6, overlap=0.3, load_s=1e-3, is_good=False)


def measured(**changes: Any) -> Measured:
    """32 selected a step of 10 ms; a candidate costs the trainer 100 us and a scorer in int8 25 us: q = 4."""
    made = Measured(
        trainer_device="cpu",
        scorer_device="cpu",
        cores=2,
        threads=1,
        batch_size=32,
        step_s={1: 10e-3, 2: 8e-3},
        forward_s=100e-6,
        read_s=4e-6,
        scoring=(FLOAT32, INT8, CRUDE),
        message_s=64e-6,
        push_s=100e-6,
        weights_s=1e-3,
        weights_bytes=1_000_000,
    )
    return replace(made, **changes)


def together(candidates_per_s: float, *, step_s: float = 10e-3, alone_s: float = 10e-3) -> Together:
    return Together("int8", 64, 1, step_s, alone_s, candidates_per_s)


def options(**given: Any) -> PlanOptions:
    return PlanOptions.model_validate(given)
