"""Flags from the fields of an options model. tyro lists and splits them; pydantic alone judges their values."""

import difflib
import os
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin

import tyro

from common.config.base import COMMAND_FIELDS, Options
from common.errors import ConfigError

_METAVARS = {int: "N", float: "X", str: "NAME", Path: "PATH"}


def flag(key: str) -> str:
    """`augment.crop_padding` -> `--augment.crop-padding`."""
    return "--" + key.replace("_", "-")


def option_keys(kind: type[Options], prefix: str = "") -> list[str]:
    """All keys of a model, nested ones dotted, without the groups themselves."""
    keys: list[str] = []
    for name, field in kind.model_fields.items():
        group = group_of(field.annotation)
        keys += option_keys(group, f"{prefix}{name}.") if group else [prefix + name]
    return keys


def group_of(annotation: Any) -> type[Options] | None:
    """The options model that an annotation names, if it names one."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Options) else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; a nested one is found by its last part too."""
    known = list(known)
    for candidate in known:
        if candidate.rpartition(".")[2] == name:
            return candidate
    by_last_part = {candidate.rpartition(".")[2]: candidate for candidate in reversed(known)}
    matches = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(name, by_last_part, n=1)
    return by_last_part.get(matches[0], matches[0]) if matches else None


def parse_flags(
    kind: type[Options], argv: Sequence[str], *, prog: str, elsewhere: Mapping[str, type[Options]]
) -> dict[str, Any]:
    """The options given as flags, and only those: a nested table of str, bool, None and lists of str.

    Args:
        elsewhere: options of the other commands by command, for the message about a flag that is one of theirs.

    Raises:
        ConfigError: an unknown flag, or one with too few or too many values.
        SystemExit: after `--help`.
    """
    description = (kind.__doc__ or "").strip()
    try:
        given, unknown = tyro.cli(
            _twin(kind), prog=prog, args=list(argv), description=description, return_unknown_args=True
        )
    except BrokenPipeError:  # --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    if unknown:
        raise ConfigError(_explain_unknown(unknown, kind, prog, elsewhere))
    return _values(kind, given, "")


def _twin(kind: type[Options]) -> Any:
    """A typed dictionary with the same keys, where every value is a list of words, so that absent means not given."""
    aliases: Mapping[str, tuple[str, ...]] = getattr(kind, "flag_aliases", {})
    positional: frozenset[str] = getattr(kind, "positional", frozenset())
    fields: dict[str, Any] = {}
    for name in sorted(kind.model_fields, key=lambda name: name not in COMMAND_FIELDS):
        field = kind.model_fields[name]
        group = group_of(field.annotation)
        text = field.description
        if group:
            fields[name] = Annotated[_twin(group), tyro.conf.arg(help=text)]
        elif name in positional:
            shown = tyro.conf.arg(help=text, metavar=f"{name.upper().removesuffix('S')} ...", help_behavior_hint="")
            fields[name] = tyro.conf.Positional[Annotated[tuple[str, ...], shown]]
        elif field.annotation is bool:
            hint = "(default: on)" if field.default else "(default: off)"
            shown = tyro.conf.arg(help=text, help_behavior_hint=hint, aliases=aliases.get(name))
            fields[name] = Annotated[bool, shown]
        else:
            fields[name] = Annotated[
                tuple[str, ...],
                tyro.conf.arg(
                    help=text,
                    metavar=_metavar(field.annotation),
                    help_behavior_hint=_default_hint(field.is_required(), field.default),
                    aliases=aliases.get(name),
                ),
            ]
    make: Any = TypedDict
    return make(kind.__name__, fields, total=False)


def _metavar(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _metavar(args[0])
    if origin is Literal:
        return "{" + ",".join(map(str, args)) + "}"
    if origin in (Union, types.UnionType):
        return "|".join(_metavar(arg) for arg in args if arg is not type(None))
    if origin is tuple:
        return f"{_metavar(args[0])} ..."
    return _METAVARS.get(annotation, "VALUE")


def _default_hint(required: bool, default: Any) -> str:
    if required:
        return "(required)"
    if default is None or default == ():
        return ""
    return f"(default: {default:g})" if isinstance(default, float) else f"(default: {default})"


def _values(kind: type[Options], given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in given.items():
        annotation = kind.model_fields[name].annotation
        group = group_of(annotation)
        if group:
            nested = _values(group, value, f"{prefix}{name}.")
            values |= {name: nested} if nested else {}
        elif isinstance(value, bool):
            values[name] = value
        elif get_origin(annotation) is tuple:
            values[name] = list(value)
        else:
            values[name] = _one_value(flag(prefix + name), value, optional=type(None) in get_args(annotation))
    return values


def _one_value(name: str, words: Sequence[str], *, optional: bool) -> str | None:
    if not words:
        raise ConfigError(f"{name} needs a value")
    if len(words) > 1:
        raise ConfigError(f"{name} takes one value, got {' '.join(words)}")
    return None if optional and words[0] == "none" else words[0]


def _explain_unknown(
    words: Sequence[str], kind: type[Options], prog: str, elsewhere: Mapping[str, type[Options]]
) -> str:
    name = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
    if name is None:
        return f"unexpected argument {words[0]}; options start with --, see {prog} --help"
    key = name.lstrip("-").replace("-", "_")
    for command, other in elsewhere.items():
        if key in option_keys(other):
            return f"{name} is an option of marginstream {command}, not of {prog}"
    meant = nearest(key, option_keys(kind))
    return f"unknown option {name}; " + (f"did you mean {flag(meant)}?" if meant else f"see {prog} --help")
