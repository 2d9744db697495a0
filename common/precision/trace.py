"""A model as a graph of operators, and BatchNorm folded into the layer before it.

O = output channels or features, I = input channels or features, K = kernel size.
"""

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import MarginstreamError
from common.models import evaluating, unwrap

Foldable = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


class Untraceable(MarginstreamError):
    """The forward pass cannot be written down as a graph. The message says why."""


class _Tracer(fx.Tracer):
    """Keeps the head as one call, whatever class it has, so that hooks on it go on being called."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self._head = head

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m is self._head or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, head: nn.Linear) -> fx.GraphModule:
    """The eval-mode forward pass of a model as a graph, for any batch size; the model is left as it was.

    Parameters, buffers and modules of torch.nn are the model's own: the graph computes with what they hold at the time.
    The graph takes one (B, ...) tensor; other arguments of `forward` keep their defaults.

    Args:
        model: wrapped or not.
        head: its last linear layer; stays the same object, called as a module.

    Raises:
        Untraceable: control flow depends on values or on the batch size, or arguments without defaults are missing.
    """
    model = unwrap(model)
    root = nn.Sequential(model)  # its forward calls the model with one argument, as scoring does
    with evaluating(root):
        try:
            return fx.GraphModule(root, _Tracer(head).trace(root))
        except Exception as error:  # a forward pass may do anything with what is traced through it
            raise Untraceable(f"{type(model).__name__} cannot be traced: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, TraceError):
        return "its control flow depends on the values or the shape of its inputs"
    first_line = str(error).partition("\n")[0]
    if first_line.startswith("'len' is not supported"):
        return "it asks for the len() of a tensor; x.shape[0] says the same and can be traced"
    return f"{type(error).__name__}: {first_line}"


def norms_after(traced: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Calls of convolutions and linear layers to the call of the BatchNorm that can be folded into them.

    The norm is the layer's only reader, and uses running statistics in eval mode.
    """
    modules = dict(traced.named_modules())
    found = {}
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[str(node.target)], Foldable) or len(node.users) != 1:
            continue
        reader = next(iter(node.users))
        if reader.op == "call_module" and has_statistics(modules[str(reader.target)]):
            found[node] = reader
    return found


def has_statistics(norm: nn.Module) -> bool:
    """Whether it is a BatchNorm that is the same affine map for every batch in eval mode."""
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None


@torch.no_grad()
def folded(layer: Foldable, norm: _BatchNorm | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that gives what `layer`, then `norm` in eval mode, give.

    Args:
        layer: weight (O, I, *K); bias or none.
        norm: over its O outputs, with running statistics; None folds nothing.

    Returns:
        (O, I, *K) and (O,) float32, detached; they may share memory with the layer's own where nothing is folded.
    """
    weight = layer.weight.detach().float()
    bias = torch.zeros(len(weight), device=weight.device) if layer.bias is None else layer.bias.detach().float()
    if norm is None:
        return weight, bias
    scale, shift = affine_of(norm)
    return weight * scale.view(-1, *[1] * (weight.ndim - 1)), torch.addcmul(shift, bias, scale)


@torch.no_grad()
def affine_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """(C,) float32 scale and shift of a BatchNorm in eval mode: outputs are inputs * scale + shift."""
    assert norm.running_mean is not None, "BatchNorm without running statistics"
    assert norm.running_var is not None, "BatchNorm without running statistics"
    scale = torch.rsqrt(norm.running_var.float() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.float()
    shift = -norm.running_mean.float() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.float()
