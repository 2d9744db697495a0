"""What the environment says of several trainer ranks; torchrun sets it, and so does `marginstream run --trainers`."""

import os

from common.config import TrainerOptions
from common.errors import ConfigError

LAST_PORT = 65535


def num_ranks() -> int:
    """Trainer processes that train one model together; 1 without any such environment."""
    return max(1, _number("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def has_others() -> bool:
    """Whether this is one rank of several; False for an environment that makes no sense."""
    try:
        return num_ranks() > 1
    except ConfigError:
        return False


def rank() -> int:
    """Number of this one, 0 to W - 1."""
    if (num := num_ranks()) == 1:
        return 0
    if (own := _number("RANK", 0)) >= num:
        raise ConfigError(f"the environment variable RANK must be below WORLD_SIZE, which is {num}, got {own}")
    return own


def local_rank() -> int:
    """Number of this one among those on its host: its GPU, and its port."""
    return _number("LOCAL_RANK", 0) if num_ranks() > 1 else 0


def is_one_host() -> bool:
    """Whether all ranks are on one host."""
    return _number("LOCAL_WORLD_SIZE", 0) == num_ranks()


def is_restart() -> bool:
    """Whether torchrun started this one because an earlier one failed; where it runs on several hosts, one on ours."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def for_rank(options: TrainerOptions, *, is_restarted: bool) -> TrainerOptions:
    """The options as this rank follows them.

    Started again by torchrun after a failure, a trainer goes on with its run, as with --resume. Ranks on one host have
    a port each.

    Args:
        is_restarted: `is_restart` of any rank.

    Raises:
        ConfigError: options that do not go with restarts or with this many ports.
    """
    if options.out is None and _number("TORCHELASTIC_MAX_RESTARTS", 0) > 0:
        raise ConfigError("torchrun --max-restarts needs --out: the folder of the run that a restart goes on with")
    update: dict[str, object] = {}
    if is_restarted and options.out is not None:
        update["resume"] = True
    if options.metrics_port and local_rank():
        port = update["metrics_port"] = options.metrics_port + local_rank()
        if port > LAST_PORT:
            raise ConfigError(
                f"--metrics-port {options.metrics_port}: rank {rank()} would be at port {port}, and {LAST_PORT} is the "
                "last; choose a lower one"
            )
    return options.model_copy(update=update) if update else options


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ConfigError(f"the environment variable {name} must be a number, got {value!r}; torchrun sets it")
    return int(value)
