"""Which nodes of a traced graph one int8 operator can compute, and which leave bytes what they are."""

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from common.precision.bank import Layer
from common.precision.fusing import ADDITIONS, RELUS
from common.precision.trace import has_statistics, norms_after

Shapes = dict[fx.Node, tuple[int, ...]]

IN_PLACE: tuple[Any, ...] = (operator.iadd, operator.isub, operator.imul, F.relu_, torch.relu_)


@dataclass
class Group:
    """relu(norm(layer(x)) + other); parts may be missing. The last node gives its value.

    Attributes:
        x, other: nodes that it reads; `other` may be None.
        relu: None, or the bound that it clips at: inf, or 6 for relu6.
    """

    layer: Layer
    x: fx.Node
    nodes: list[fx.Node]
    other: fx.Node | None = None
    relu: float | None = None
    padding: tuple[int, ...] = field(default=(0, 0))

    @property
    def last(self) -> fx.Node:
        return self.nodes[-1]


def without_mutation(traced: fx.GraphModule) -> None:
    """Let readers of a value that was changed in place read what changed it; in place.

    What changes a view of another value is beyond it.
    """
    modules = dict(traced.named_modules())
    place = {node: index for index, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        if node.args and isinstance(node.args[0], fx.Node) and _changes_its_input(node, modules):
            for reader in [reader for reader in node.args[0].users if place[reader] > place[node]]:
                reader.replace_input_with(node.args[0], node)
    traced.recompile()


def _changes_its_input(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    return node.op == "call_function" and (node.target in IN_PLACE or node.kwargs.get("inplace") is True)


def find_groups(traced: fx.GraphModule, shapes: Shapes, head: nn.Linear) -> dict[fx.Node, Group]:
    """By their last nodes: convolutions, linear layers but the head, and BatchNorms of images that stand alone."""
    modules = dict(traced.named_modules())
    norms = norms_after(traced)
    found: dict[fx.Node, Group] = {}
    taken: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node in taken or node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        group = _started(node, modules[str(node.target)], shapes, head)
        if group is None:
            continue
        if (norm := norms.get(node)) is not None and _is_over_outputs(node, shapes):
            group.nodes.append(norm)
            group.layer = Layer(group.layer.layer, modules[str(norm.target)])
        _extend(group, modules, shapes, taken)
        taken.update(group.nodes)
        found[group.last] = group
    return found


def _started(node: fx.Node, module: nn.Module, shapes: Shapes, head: nn.Linear) -> Group | None:
    (x,) = node.args
    if not isinstance(x, fx.Node) or x not in shapes or module is head or has_hooks(module):
        return None
    if type(module) is nn.Conv2d and len(shapes[x]) == 4 and module.padding_mode == "zeros":
        if isinstance(module.padding, str):
            return None
        return Group(Layer(module, None), x, [node], padding=tuple(module.padding))
    if type(module) is nn.Linear:
        return Group(Layer(module, None), x, [node])
    if type(module) is nn.BatchNorm2d and has_statistics(module):
        return Group(Layer(None, module), x, [node])
    return None


def _is_over_outputs(node: fx.Node, shapes: Shapes) -> bool:
    """Whether a BatchNorm of this layer's result is over its outputs: of (B, L, F) it would be over L."""
    return len(shapes[node]) in (2, 4)


def has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _extend(group: Group, modules: dict[str, nn.Module], shapes: Shapes, taken: set[fx.Node]) -> None:
    """Take in an addition and a ReLU that are the only readers of what is there."""
    reader = _only_reader(group.last)
    if reader is not None and reader not in taken and _is_addition(reader) and len(shapes.get(reader, ())) == 4:
        others = [value for value in reader.args if value is not group.last]
        if (
            len(others) == 1
            and isinstance(others[0], fx.Node)
            and shapes.get(others[0]) == shapes[group.last] == shapes[reader]
        ):
            group.other = others[0]
            group.nodes.append(reader)
            reader = _only_reader(reader)
    if reader is not None and (bound := relu_bound(reader, modules)) is not None:
        group.nodes.append(reader)
        group.relu = bound


def _is_addition(node: fx.Node) -> bool:
    return node.target in ADDITIONS and len(node.args) == 2 and not node.kwargs


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def relu_bound(node: fx.Node, modules: dict[str, nn.Module]) -> float | None:
    """Where a ReLU clips at: inf, or 6 for relu6; None for other nodes."""
    if node.op == "call_module":
        return {nn.ReLU: float("inf"), nn.ReLU6: 6.0}.get(type(modules[str(node.target)]))
    if len(node.all_input_nodes) != 1:
        return None
    if node.target in RELUS:
        return float("inf")
    return 6.0 if node.target is F.relu6 else None
