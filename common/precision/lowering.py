"""From the nodes of a traced graph to steps that read and write slots, as bytes where that serves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from common.precision import moves
from common.precision.grid import FEW, Grid
from common.precision.int8_layer import Int8Layer
from common.precision.patterns import Group, Shapes, find_groups, relu_bound
from common.precision.pooling import Averaged, ImageMean, MaxPool
from common.precision.steps import Dequantise, Node, Quantise, QuantisePixels, Relu, ZeroPad


@dataclass
class Call:
    """One step of the pass: which slots it reads, which it writes, and which nobody reads after it."""

    compute: Callable[..., Any]
    inputs: list[int]
    output: int
    dead: list[int] = field(default_factory=list)


@dataclass
class Family:
    """Grids that must stand for the same numbers, and the nodes whose values those are."""

    grids: list[Grid]
    nodes: list[fx.Node]


class Lowered:
    """Steps for a graph.

    Attributes:
        calls: in the order in which they run.
        input: the slot for the graph's tensor.
        num_slots: of which each is written once.
        families: what calibration has to find ranges for.
    """

    def __init__(self, traced: fx.GraphModule, shapes: Shapes, head: nn.Linear) -> None:
        self.calls: list[Call] = []
        self.families: list[Family] = []
        self.input = -1
        self.num_slots = 0
        self._traced = traced
        self._modules = dict(traced.named_modules())
        self._shapes = shapes
        self._groups = find_groups(traced, shapes, head)
        self._inside = {node for group in self._groups.values() for node in group.nodes[:-1]}
        self._floats: dict[fx.Node, int] = {}
        self._bytes: dict[fx.Node, int] = {}
        self._grids: dict[fx.Node, Grid] = {}
        self._bounded: list[Grid] = []
        self._roots: dict[int, int] = {}  # slot to the first of those whose memory it may share
        for node in traced.graph.nodes:
            if node not in self._inside:
                self._lower(node)
        self._end_lives()

    def result(self, slots: list[Any]) -> Any:
        """What the graph returns, from the slots after the last call."""
        return fx.map_arg(self._returned, lambda node: slots[self._floats[node]])

    def _lower(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.input = self._floats[node] = self._new_slot()
        elif node.op == "output":
            for read in node.all_input_nodes:
                self._float(read)
            self._returned = node.args[0]
        elif node in self._groups:
            self._lower_group(self._groups[node])
        elif not self._lower_on_bytes(node):
            as_it_is = moves.asks_for_shape(node)
            inputs = [self._either(read) if as_it_is else self._float(read) for read in node.all_input_nodes]
            self._floats[node] = self._emit(Node(node, self._traced), inputs)

    def _lower_group(self, group: Group) -> None:
        num_spare = self._num_spare(group)
        if num_spare:
            self._bytes[group.x] = self._emit(QuantisePixels(self._new_grid(group.x)), [self._floats[group.x]])
        inputs = [self._byte(group.x)]
        other = None
        if group.other is not None:
            inputs.append(self._byte(group.other))
            other = self._grids[group.other]
        wants_bytes = other is not None or any(self._takes_bytes(user) for user in group.last.users)
        out = self._new_grid(group.last) if wants_bytes else None
        if out is not None and group.relu not in (None, float("inf")):
            self._bounded.append(out)
        slot = self._emit(Int8Layer(group, self._grids[group.x], out, other, num_spare=num_spare), inputs)
        (self._floats if out is None else self._bytes)[group.last] = slot

    def _num_spare(self, group: Group) -> int:
        """Channels to add to floats that only this group reads, so that each pixel's bytes make one integer."""
        layer = group.layer.layer
        if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or group.x in self._bytes or len(group.x.users) > 1:
            return 0
        return FEW - layer.in_channels if 1 < layer.in_channels < FEW else 0

    def _lower_on_bytes(self, node: fx.Node) -> bool:
        """Whether the node could be computed on bytes, which are there anyway."""
        if moves.joins(node):
            return self._lower_join(node)
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node) or first not in self._bytes:
            return False
        grid, modules = self._grids[first], self._modules
        source = self._bytes[first]
        keepdim = moves.image_mean(node, modules) if len(self._shapes.get(first, ())) == 4 else None
        if keepdim is not None:
            self._floats[node] = self._emit(ImageMean(grid, keepdim), [source])
            return True
        if moves.averages(node, modules):
            self._floats[node] = self._emit(Averaged(grid, Node(node, self._traced)), self._beside(first, node))
            return True
        if (pad := moves.zero_padding(node)) is not None:
            slot = self._emit(ZeroPad(grid, pad), [source])
        elif (pooling := moves.max_pooling(node, modules)) is not None:
            slot = self._emit(MaxPool(*pooling), [source], shares=source)
        elif relu_bound(node, modules) == float("inf"):
            slot = self._emit(Relu(grid), [source], shares=source)
        elif moves.moves(node, modules):
            slot = self._emit(Node(node, self._traced), self._beside(first, node), shares=source)
        else:
            return False
        self._bytes[node] = slot
        self._grids[node] = grid
        return True

    def _lower_join(self, node: fx.Node) -> bool:
        joined = node.args[0]
        assert isinstance(joined, list | tuple), "torch.cat takes a sequence"
        parts = [part for part in joined if isinstance(part, fx.Node) and part in self._bytes]
        if len(parts) < len(joined):
            return False
        if any(self._grids[part] is grid for part in parts for grid in self._bounded):
            return False  # such a ReLU clips where its grid ends, and a grid shared with others may go further
        inputs = [self._bytes[read] for read in node.all_input_nodes]
        self._unite([self._grids[part] for part in parts])
        self._bytes[node] = self._emit(Node(node, self._traced), inputs)
        self._grids[node] = self._grids[parts[0]]
        return True

    def _takes_bytes(self, node: fx.Node) -> bool:
        """Whether a reader is served by bytes as well as by floats."""
        if node in self._groups or node in self._inside:
            return True
        return moves.reads_bytes(node, self._modules)

    def _float(self, node: fx.Node) -> int:
        """The slot with the node's value as it is, or as float32 made from its bytes."""
        if node not in self._floats:
            self._floats[node] = self._emit(Dequantise(self._grids[node]), [self._bytes[node]])
        return self._floats[node]

    def _byte(self, node: fx.Node) -> int:
        if node not in self._bytes:
            grid = self._new_grid(node)
            self._bytes[node] = self._emit(Quantise(grid), [self._floats[node]])
        return self._bytes[node]

    def _either(self, node: fx.Node) -> int:
        return self._bytes[node] if node in self._bytes else self._floats[node]

    def _beside(self, first: fx.Node, node: fx.Node) -> list[int]:
        """What a node reads, its first argument as bytes."""
        return [self._bytes[read] if read is first else self._float(read) for read in node.all_input_nodes]

    def _new_grid(self, node: fx.Node) -> Grid:
        grid = self._grids[node] = Grid()
        self.families.append(Family([grid], [node]))
        return grid

    def _unite(self, grids: list[Grid]) -> None:
        """Make these grids one family, with those that are in one with them."""
        united = [family for family in self.families if any(grid in family.grids for grid in grids)]
        self.families = [family for family in self.families if family not in united]
        self.families.append(
            Family(
                [grid for family in united for grid in family.grids],
                [node for family in united for node in family.nodes],
            )
        )

    def _new_slot(self) -> int:
        self.num_slots += 1
        return self.num_slots - 1

    def _emit(self, compute: Callable[..., Any], inputs: list[int], shares: int | None = None) -> int:
        """Append a step; `shares` is a slot whose memory its result may be."""
        output = self._new_slot()
        self._roots[output] = output if shares is None else self._roots[shares]
        self.calls.append(Call(compute, inputs, output))
        return output

    def _end_lives(self) -> None:
        """Free slots after their last readers, and let additions overwrite what nobody reads after them."""
        last_use = {slot: index for index, call in enumerate(self.calls) for slot in call.inputs}
        kept = {self._floats[node] for node in _nodes_in(self._returned)}
        end_of_root: dict[int, int] = {}
        for slot, root in self._roots.items():
            end = len(self.calls) if slot in kept else last_use.get(slot, -1)
            end_of_root[root] = max(end_of_root.get(root, -1), end)
        for index, call in enumerate(self.calls):
            call.dead = [slot for slot in set(call.inputs) if last_use[slot] == index and slot not in kept]
            if isinstance(call.compute, Int8Layer) and len(call.inputs) == 2:
                x_root, other_root = (self._roots[slot] for slot in call.inputs)
                call.compute.may_overwrite = x_root != other_root and end_of_root[other_root] == index


def _nodes_in(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return found
