"""The selection methods, a file each. `common.selection.registry` lists them."""

from importlib import import_module

from common.selection.method import Method, Setting
from common.selection.registry import METHODS


def load_method(name: str, setting: Setting) -> Method:
    """The method of a name in the registry, ready to select.

    Raises:
        ValueError: the setting lacks something that the method needs; the message names it.
    """
    module, _, attribute = METHODS[name].target.partition(":")
    method: Method = getattr(import_module(f"common.selection.methods.{module}"), attribute)(setting)
    return method
