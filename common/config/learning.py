"""How a model is trained, on whatever samples: steps, optimiser, schedule."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.base import Device
from common.config.shared import SharedOptions
from common.config.training import OptimOptions, ScheduleOptions


class LearningOptions(SharedOptions):
    """What every command that trains is told."""

    steps: int = Field(default=2000, gt=0, description="optimiser steps of the whole run")
    batch_size: int = Field(default=32, gt=0, description="selected samples in each step, b; of each rank")
    optimizer: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="optimiser")
    lr: float = Field(default=0.1, gt=0, description="peak learning rate")
    device: Device = Field(default="auto", description="device of the trainer: auto, cpu, cuda, cuda:N or mps")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of order, augmentation and initial parameters")
    optim: OptimOptions = Field(default=OptimOptions(), description="optimiser and loss")
    schedule: ScheduleOptions = Field(default=ScheduleOptions(), description="learning-rate schedule, in steps")

    @model_validator(mode="after")
    def _nesterov_fits(self) -> Self:
        if self.optim.nesterov and (self.optimizer != "sgd" or self.optim.momentum == 0):
            raise ValueError("--optim.nesterov needs --optimizer sgd and --optim.momentum greater than 0")
        return self
