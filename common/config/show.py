"""Resolved options for people: what `--dry-run` prints."""

from common.config.base import Options
from common.config.shared import SharedOptions
from common.config.toml import to_toml
from common.config.trainer import TrainerOptions


def describe_options(options: Options, title: str) -> str:
    """TOML text that `--config` reads back, under a title, with what is derived from the options as comments."""
    lines = [f"# {title}"]
    if isinstance(options, SharedOptions):
        lines.append(f"# threads: {options.num_threads or 'chosen by torch'}")
    if isinstance(options, TrainerOptions) and options.mode != "uniform":
        lines.append(f"# chunk_size: {options.resolved_chunk_size}, candidates: at most {options.max_candidates}")
    return "\n".join([*lines, to_toml(options.dump())])
