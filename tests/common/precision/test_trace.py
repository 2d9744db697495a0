"""Models as graphs, and BatchNorm folded into the layer before it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.models import find_head
from common.models.resnet import CifarResNet
from common.precision.trace import Untraceable, folded, norms_after, trace
from tests.common.precision.models import with_statistics


def test_the_graph_computes_with_the_models_own_parameters_of_the_moment() -> None:
    model = with_statistics(CifarResNet(8, 3, 10))
    traced = trace(model, model.head)
    inputs = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(traced(inputs), model(inputs))
        model.conv.weight.mul_(2)
        assert torch.equal(traced(inputs), model(inputs))


def test_tracing_leaves_flags_as_they_were_and_writes_down_eval_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 2)).train()
    model[0].eval()
    traced = trace(model, model[2])
    assert [module.training for module in model] == [False, True, True]
    inputs = torch.randn(8, 4)
    assert torch.equal(traced.eval()(inputs), model.eval()(inputs))


def test_hooks_on_the_head_are_called_whatever_its_class() -> None:
    class OwnLinear(nn.Linear):
        pass

    model = nn.Sequential(nn.Flatten(), OwnLinear(4, 2))
    traced = trace(model, model[1])
    seen = []
    model[1].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    traced(torch.randn(3, 4))
    assert seen == [(3, 4)]


def test_a_model_that_is_its_head_can_be_traced() -> None:
    head = nn.Linear(4, 2)
    inputs = torch.randn(3, 4)
    assert torch.equal(trace(head, head)(inputs), head(inputs))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x if x.sum() > 0 else -x)


class Counting(Branching):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.reshape(len(x), -1))


@pytest.mark.parametrize(("kind", "reason"), [(Branching, "control flow depends on"), (Counting, r"x.shape\[0\]")])
def test_what_cannot_be_traced_is_said_in_words(kind: type[Branching], reason: str) -> None:
    model = kind()
    with pytest.raises(Untraceable, match=f"{kind.__name__} cannot be traced: .*{reason}"):
        trace(model, model.head)


@pytest.mark.parametrize(
    ("layer", "norm"),
    [
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, eps=0.1)),
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)),
        (nn.Linear(4, 6), nn.BatchNorm1d(6)),
        (nn.Linear(4, 6, bias=False), None),
    ],
    ids=["conv", "groups", "not affine", "linear", "no norm"],
)
@torch.no_grad()
def test_a_folded_layer_gives_what_layer_and_norm_give(layer: nn.Conv2d | nn.Linear, norm: nn.Module | None) -> None:
    inputs = torch.randn(5, 4) if isinstance(layer, nn.Linear) else torch.randn(5, 4, 7, 7)
    weight, bias = folded(layer, with_statistics(norm) if norm else None)
    if isinstance(layer, nn.Linear):
        outputs = F.linear(inputs, weight, bias)
    else:
        outputs = F.conv2d(inputs, weight, bias, groups=layer.groups)
    torch.testing.assert_close(outputs, norm(layer(inputs)) if norm else layer(inputs), rtol=1e-4, atol=1e-5)


def test_only_a_norm_that_is_the_layers_one_reader_and_has_statistics_is_folded() -> None:
    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
            self.head = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.head((x + self.norm(x)).mean((2, 3)))

    model = TwoReaders()
    assert norms_after(trace(model, model.head)) == {}
    of_the_batch = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False), nn.Linear(1, 2))
    assert norms_after(trace(of_the_batch, find_head(of_the_batch))) == {}
    plain = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Linear(1, 2))
    assert len(norms_after(trace(plain, find_head(plain)))) == 1
