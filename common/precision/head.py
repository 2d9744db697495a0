"""The head apart from what is before it: it computes in float32, once for all slices of a batch, where hooks see it."""

from torch import fx, nn


def cut_before(head: nn.Linear, traced: fx.GraphModule) -> bool:
    """Make a graph return the head's inputs instead of its outputs; in place.

    Returns:
        False where the graph is left as it was: the head's output is not what it returns, or is used elsewhere too.
    """
    modules = dict(traced.named_modules())
    calls = [node for node in traced.graph.nodes if node.op == "call_module" and modules.get(str(node.target)) is head]
    output = next(node for node in traced.graph.nodes if node.op == "output")
    if len(calls) != 1 or output.args[0] is not calls[0] or len(calls[0].users) != 1:
        return False
    (features,) = calls[0].args
    output.args = (features,)
    traced.graph.erase_node(calls[0])
    traced.delete_all_unused_submodules()
    traced.recompile()
    return True
