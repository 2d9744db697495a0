"""What pydantic found wrong, in the words of the person who typed it: option, what would be right, value seen."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from common.config.base import Options
from common.config.flags import flag, group_of

# By pydantic's type of error; {limit} is the bound that was passed.
_REQUIREMENTS = {
    "greater_than": "must be greater than {limit}",
    "greater_than_equal": "must be at least {limit}",
    "less_than": "must be less than {limit}",
    "less_than_equal": "must be at most {limit}",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
}
_KINDS = {
    "int": "must be an integer",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "path": "must be a path",
    "model": "must be a table",
    "tuple": "must be a list",
}
_FLAG = re.compile(r"--([a-z][a-z.-]*)")


def explain(
    error: ValidationError,
    kind: type[Options],
    table: Mapping[str, Any],
    flags: Mapping[str, Any],
    path: str | None,
) -> str:
    """One line for each thing wrong, without repetition.

    Args:
        table: what came from the file at `path`; flags: what came from the command line.
    """
    lines = [_explain_one(details, kind, table, flags, path) for details in error.errors()]
    return "\n".join(dict.fromkeys(lines))


def _explain_one(
    details: ErrorDetails,
    kind: type[Options],
    table: Mapping[str, Any],
    flags: Mapping[str, Any],
    path: str | None,
) -> str:
    key = _key(details["loc"], kind)
    if details["type"] == "missing":
        return f"{flag(key)} is needed: {kind.model_fields[key].description}"
    requirement = _requirement(details)
    if requirement.startswith("--"):
        return requirement + _set_in_file(requirement, table, flags, path)
    name = f"{path}: {key}" if _holds(table, key) and not _holds(flags, key) else flag(key)
    requirement, separator, remedy = requirement.partition("; ")
    return f"{name} {requirement}, got {_show(details['input'])}{separator}{remedy}"


def _key(location: tuple[int | str, ...], kind: type[Options]) -> str:
    """The dotted key; what pydantic appends within a value (index, branch of a union) is left out."""
    names: list[str] = []
    model: type[Options] | None = kind
    for part in location:
        if model is None or part not in model.model_fields:
            break
        names.append(str(part))
        model = group_of(model.model_fields[str(part)].annotation)
    return ".".join(names)


def _requirement(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return "must be " + str(context["expected"]).replace("'", "")
    if kind in _REQUIREMENTS:
        limit = next(iter(context.values()), "")
        return _REQUIREMENTS[kind].format(limit=f"{limit:g}" if isinstance(limit, float) else limit)
    requirement = _KINDS.get(kind.partition("_")[0])
    return requirement or "is wrong: " + details["msg"].lower()


def _set_in_file(message: str, table: Mapping[str, Any], flags: Mapping[str, Any], path: str | None) -> str:
    keys = [name.rstrip(".-").replace("-", "_") for name in _FLAG.findall(message)]
    from_file = [key for key in dict.fromkeys(keys) if _holds(table, key) and not _holds(flags, key)]
    return f" ({' and '.join(from_file)} set in {path})" if from_file else ""


def _holds(table: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(table, Mapping) or part not in table:
            return False
        table = table[part]
    return True


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value if value and " " not in value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
