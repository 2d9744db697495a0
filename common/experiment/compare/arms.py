"""Arms of a comparison: `NAME[:KEY=VALUE,...]` and the shared options to the options of a run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import ValidationError

from common.config import RunOptions, SelectionOptions
from common.config.explain import explain
from common.config.flags import group_of, nearest, option_keys
from common.config.loading import merge_tables
from common.errors import ConfigError
from common.selection.registry import METHODS

MODES = ("uniform", "fresh", "stale")
SHARED = (
    "what all arms share: data, model and initialisation; give it once, without an arm",
    ("data", "data_root", "image_size", "label_noise", "synthetic", "augment", "model", "head", "init"),
)
SET = (
    "set by the comparison itself",
    (
        *("mode", "seed", "out", "listen", "connect_s", "resume", "metrics_port", "unhealthy_after_s"),
        *("trainers", "devices", "config", "dry_run"),
    ),
)


@dataclass(frozen=True)
class Arm:
    """One way of selecting.

    Attributes:
        name: as given, without spaces.
        options: of its runs; seed and folder are a trial's.
        own: the options that the arm itself names, as a nested table.
    """

    name: str
    options: RunOptions
    own: Mapping[str, Any]

    @property
    def folder_name(self) -> str:
        """The name where no file system objects to it; two arms may share it but for case."""
        return re.sub(r"[^A-Za-z0-9_.=-]+", "-", self.name).strip(".") or "arm"


def read_arms(words: Sequence[str], given: Mapping[str, Any]) -> list[Arm]:
    """The arms.

    Args:
        given: the shared options that were given, as a nested table.

    Raises:
        ConfigError: names the arm, and what would be right; also for two arms that are the same.
    """
    arms: list[Arm] = []
    for word in words:
        arm = read_arm(word, given)
        for other in arms:
            if other.options == arm.options:
                raise ConfigError(f"--arms: {arm.name} is the same as {other.name}; leave one out")
            if other.folder_name.lower() == arm.folder_name.lower():
                raise ConfigError(f"--arms: {arm.name} and {other.name} would share the folder {arm.folder_name}")
        arms.append(arm)
    return arms


def read_arm(word: str, given: Mapping[str, Any]) -> Arm:
    """One arm. Options of the selection method that are shared go to the arms whose method reads them."""
    name = "".join(word.split())
    mode, separator, rest = name.partition(":")
    if mode not in MODES:
        meant = nearest(mode, MODES)
        remedy = f"did you mean {meant}?" if meant else f"there are {', '.join(MODES)}"
        raise ConfigError(f"arm {word}: unknown arm {mode}; {remedy}")
    if separator and not rest:
        raise ConfigError(f"arm {word}: nothing follows the colon; leave it out, or give KEY=VALUE")
    own: dict[str, Any] = {}
    for index, part in enumerate(rest.split(",") if rest else ()):
        key, equals, value = part.partition("=")
        if not equals and index == 0 and mode == "stale" and key.isdecimal():
            key, equals, value = "push_every", "=", key
        if not equals or not value:
            raise ConfigError(f"arm {word}: {part or 'an empty part'} is not KEY=VALUE")
        _put(own, _check_key(key.replace("-", "_"), word), value, word)
    table = merge_tables(_fitting(given, mode, own), own) | {"mode": mode}
    if mode == "stale" and "max_staleness" not in table:
        table |= _staleness_for(table)
    try:
        options = RunOptions.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"arm {word}: {explain(error, RunOptions, {}, {}, None)}") from error
    return Arm(name, options, own)


def _check_key(key: str, word: str) -> str:
    keys = [known for known in option_keys(RunOptions) if known.partition(".")[0] not in SET[1]]
    for why, names in (SHARED, SET):
        if key.partition(".")[0] in names:
            raise ConfigError(f"arm {word}: {_typed(key)} is {why}")
    if key not in keys:
        meant = nearest(key, keys)
        remedy = f"did you mean {_typed(meant)}?" if meant else "marginstream run --help lists the options"
        raise ConfigError(f"arm {word}: unknown option {_typed(key)}; {remedy}")
    return key


def _typed(key: str) -> str:
    return key.replace("_", "-")


def _put(table: dict[str, Any], key: str, value: str, word: str) -> None:
    *groups, last = key.split(".")
    annotation: Any = RunOptions
    for group in groups:
        table = table.setdefault(group, {})
        annotation = group_of(annotation.model_fields[group].annotation)
    if last in table:
        raise ConfigError(f"arm {word}: {_typed(key)} is given twice")
    if get_origin(annotation.model_fields[last].annotation) is tuple:
        raise ConfigError(f"arm {word}: {_typed(key)} takes a list, which an arm cannot give; share it")
    table[last] = None if value == "none" else value


def _fitting(given: Mapping[str, Any], mode: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The shared options without those that mean nothing to the arm's method."""
    table = dict(given)
    if mode == "uniform":
        table["method"] = "uniform"
    method = own.get("method", table.get("method", RunOptions.model_fields["method"].default))
    if method not in METHODS:
        return table  # refused with the rest
    if method != "rho-loss":
        table.pop("irreducible", None)
    of_methods = {name for entry in METHODS.values() for name in entry.parameters}
    foreign = of_methods - set(METHODS[method].parameters)
    chosen = table.get("selection", {})
    chosen = chosen.dump() if isinstance(chosen, SelectionOptions) else chosen
    table["selection"] = {name: value for name, value in chosen.items() if name not in foreign}
    return table


def _staleness_for(table: Mapping[str, Any]) -> dict[str, Any]:
    """Room for scores of two pushes: an arm that pushes seldom is meant to have old ones."""
    push_every = str(table.get("push_every", ""))
    if not push_every.isdecimal():
        return {}
    return {"max_staleness": max(RunOptions.model_fields["max_staleness"].default, 2 * int(push_every))}
