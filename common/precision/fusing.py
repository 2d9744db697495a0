"""A traced model with its convolutions folded and fused. What is no convolution stays the master's."""

import operator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.precision.fused import FusedConv, Group
from common.precision.trace import norms_after

RELUS: tuple[Any, ...] = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")


def fuse(traced: fx.GraphModule, dtype: torch.dtype) -> list[FusedConv]:
    """Replace each convolution, and the BatchNorm, addition and ReLU that only it feeds, by one operator in `dtype`.

    Args:
        traced: as `common.precision.trace.trace` made it, on one device; changed in place.

    Returns:
        The operators, for refreshing.
    """
    norms = norms_after(traced)
    modules = dict(traced.named_modules())
    operators = []
    for node in list(traced.graph.nodes):
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or not _is_plain(conv):
            continue
        norm = norms.get(node)
        group = Group(conv, cast(_BatchNorm, modules[str(norm.target)]) if norm else None, [node])
        if norm is not None:
            group.nodes.append(norm)
        _extend(group, modules)
        operators.append(FusedConv(group, dtype))
        _replace(traced, group, operators[-1], f"fused_{len(operators)}")
    traced.graph.lint()
    traced.recompile()
    return operators


def _is_plain(conv: nn.Conv2d) -> bool:
    """A convolution whose forward pass is torch's own, with padding by numbers of zeros."""
    return (
        type(conv) is nn.Conv2d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and not conv._forward_hooks
        and not conv._forward_pre_hooks
    )


def _extend(group: Group, modules: dict[str, nn.Module]) -> None:
    """Take in an addition and a ReLU that are the only readers of what is there."""
    reader = _only_reader(group.nodes[-1])
    if reader is not None and reader.target in ADDITIONS and len(reader.args) == 2 and not reader.kwargs:
        others = [value for value in reader.args if value is not group.nodes[-1]]
        if len(others) == 1 and isinstance(others[0], fx.Node):
            group.other = others[0]
            group.nodes.append(reader)
            reader = _only_reader(reader)
    if reader is not None and _is_relu(reader, modules):
        group.nodes.append(reader)
        group.relu = True


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules.get(str(node.target))) is nn.ReLU
    return node.target in RELUS and len(node.all_input_nodes) == 1


def _replace(traced: fx.GraphModule, group: Group, operator: FusedConv, name: str) -> None:
    """Call the operator where the group's last node was: by then there is what it adds."""
    first, last = group.nodes[0], group.nodes[-1]
    traced.add_submodule(name, operator)
    with traced.graph.inserting_before(last):
        inputs = [first.args[0]] if group.other is None else [first.args[0], group.other]
        call = traced.graph.call_module(name, tuple(inputs))
    last.replace_all_uses_with(call)
    for node in reversed(group.nodes):
        traced.graph.erase_node(node)
