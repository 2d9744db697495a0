"""People's own code by name: "module:callable", for data sources and for models."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from common.errors import ConfigError


def is_callable_name(name: str) -> bool:
    """Whether `name` is meant as "module:callable" rather than as a name that we know."""
    return ":" in name


def import_callable(name: str, option: str) -> Callable[..., Any]:
    """Imports "module:callable", from the current folder as well as from what is installed.

    Args:
        name: such as "my_data:open_mine" or "package.module:Class.method".
        option: the option it came from, such as "--data", for the message.

    Raises:
        ConfigError: the name has another form, the module does not import, or it has no such callable.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ConfigError(f"{option} {name}: expected module:callable, such as my_module:my_function")
    _add_current_folder()
    found: Any = _import_module(module_name, f"{option} {name}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{option} {name}: module {module_name} has no {attribute}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{option} {name}: {attribute} must be a function or a class, got {type(found).__name__}")
    return found


def _import_module(module_name: str, asked: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(missing + "."):
            raise ConfigError(f"{asked}: module {module_name} needs {missing}, which is not installed") from error
        raise ConfigError(f"{asked}: no module {missing} in {os.getcwd()} or among the installed ones") from error
    except Exception as error:  # whatever people's module raises while it is imported, SyntaxError included
        raise ConfigError(f"{asked}: importing {module_name} failed: {type(error).__name__}: {error}") from error


def _add_current_folder() -> None:
    """As `python -m` does and a console script does not; first, so that a folder's own module is the one meant."""
    folder = os.getcwd()
    if "" not in sys.path and folder not in sys.path:
        sys.path.insert(0, folder)
