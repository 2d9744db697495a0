"""Nodes that can read bytes without an operator of their own: they move them, pool them, or ask for their shape."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

Modules = dict[str, nn.Module]

_MOVING_FUNCTIONS = {torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze}
_MOVING_METHODS = {"flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze", "contiguous"}
_MOVING_MODULES = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_SPLITTING = {torch.chunk, torch.split, "chunk", "split"}
_JOINING = {torch.cat, torch.concat, torch.concatenate}
_MEANS = {torch.mean, "mean"}


def reads_bytes(node: fx.Node, modules: Modules) -> bool:
    """Whether bytes serve it as well as floats."""
    return (
        moves(node, modules)
        or averages(node, modules)
        or joins(node)
        or zero_padding(node) is not None
        or max_pooling(node, modules) is not None
    )


def moves(node: fx.Node, modules: Modules) -> bool:
    """Whether its result consists of values of its first argument."""
    if not (node.args and isinstance(node.args[0], fx.Node)):
        return False
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _MOVING_MODULES)
    if node.target is operator.getitem:
        return True
    if node.target in _SPLITTING:
        return all(user.target is operator.getitem for user in node.users)
    if node.target is F.dropout:
        return node.kwargs.get("training") is False
    return node.target in (_MOVING_METHODS if node.op == "call_method" else _MOVING_FUNCTIONS)


def asks_for_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in {"size", "dim", "numel"}
    return node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")


def averages(node: fx.Node, modules: Modules) -> bool:
    """Whether each result is a mean of values of its first argument."""
    module = modules[str(node.target)] if node.op == "call_module" else None
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return True
    if isinstance(module, nn.AvgPool2d):
        return module.padding in (0, (0, 0)) and module.divisor_override is None
    if node.op == "call_function" and node.target is F.avg_pool2d:
        return len(node.args) <= 3 and set(node.kwargs) <= {"kernel_size", "stride"}
    if node.op == "call_function" and node.target is F.adaptive_avg_pool2d:
        return True
    return node.op in ("call_function", "call_method") and node.target in _MEANS and "dtype" not in node.kwargs


def image_mean(node: fx.Node, modules: Modules) -> bool | None:
    """Whether a mean over the pixels of images keeps their two dimensions; None for other nodes."""
    module = modules[str(node.target)] if node.op == "call_module" else None
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return True if module.output_size in (1, (1, 1)) else None
    if node.op == "call_function" and node.target is F.adaptive_avg_pool2d:
        return True if node.args[1:] in ((1,), ((1, 1),)) else None
    if module is not None or node.target not in _MEANS:
        return None
    named = dict(zip(("input", "dim", "keepdim"), node.args, strict=False)) | node.kwargs
    dims = named.get("dim")
    if set(named) - {"input", "dim", "keepdim"} or not isinstance(dims, list | tuple):
        return None
    return bool(named.get("keepdim", False)) if sorted(dims) in ([2, 3], [-2, -1]) else None


def joins(node: fx.Node) -> bool:
    """Whether it concatenates a list of tensors."""
    return node.op == "call_function" and node.target in _JOINING and isinstance(node.args[0], list | tuple)


def zero_padding(node: fx.Node) -> tuple[int, ...] | None:
    """What `F.pad` pads with zeros, if that is what the node does."""
    if node.op != "call_function" or node.target is not F.pad:
        return None
    named = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | node.kwargs
    if named.get("mode", "constant") != "constant" or named.get("value") not in (None, 0):
        return None
    pad = named["pad"]
    is_numbers = isinstance(pad, list | tuple) and all(isinstance(number, int) for number in pad)
    return tuple(pad) if is_numbers else None  # type: ignore[arg-type]


def max_pooling(node: fx.Node, modules: Modules) -> tuple[tuple[int, int], ...] | None:
    """Kernel, stride and padding of a plain max pooling of images, if that is what the node does."""
    module = modules[str(node.target)] if node.op == "call_module" else None
    if isinstance(module, nn.MaxPool2d):
        named: dict[str, Any] = {
            name: getattr(module, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        }
    elif node.op == "call_function" and node.target is F.max_pool2d:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        named = dict(zip(names, node.args, strict=False)) | node.kwargs
    else:
        return None
    if named.get("ceil_mode") or named.get("return_indices") or _pair(named.get("dilation", 1)) != (1, 1):
        return None
    kernel = _pair(named["kernel_size"])
    stride = kernel if named.get("stride") in (None, [], ()) else _pair(named["stride"])
    return kernel, stride, _pair(named.get("padding", 0))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
