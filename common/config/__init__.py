"""Every option of every command, declared once. No torch and no sockets: `--help` has to answer at once.

Options are frozen pydantic models, composed by inheritance. `load_options` makes one from defaults, a TOML file and
flags, in this order of precedence.
"""

from common.config.base import Options
from common.config.data import AugmentOptions, DataOptions, SyntheticOptions
from common.config.endpoint import check_connect, check_listen
from common.config.irreducible import IrreducibleOptions
from common.config.learning import LearningOptions
from common.config.loading import load_options
from common.config.run import RunOptions
from common.config.scorer import ScorerOptions, ScoringOptions, SyntheticBackendOptions
from common.config.shared import SharedOptions
from common.config.show import describe_options
from common.config.toml import to_toml, write_toml
from common.config.trainer import TrainerOptions
from common.config.training import (
    LogOptions,
    OptimOptions,
    ScheduleOptions,
    SelectionOptions,
    ServiceOptions,
    StepOptions,
)

__all__ = [
    "AugmentOptions",
    "DataOptions",
    "IrreducibleOptions",
    "LearningOptions",
    "LogOptions",
    "OptimOptions",
    "Options",
    "RunOptions",
    "ScheduleOptions",
    "ScorerOptions",
    "ScoringOptions",
    "SelectionOptions",
    "ServiceOptions",
    "SharedOptions",
    "StepOptions",
    "SyntheticBackendOptions",
    "SyntheticOptions",
    "TrainerOptions",
    "check_connect",
    "check_listen",
    "describe_options",
    "load_options",
    "to_toml",
    "write_toml",
]
