"""The head is found by order or by name, and wrappers are seen through."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import ConfigError
from common.models import find_head, unwrap


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.auxiliary = nn.Linear(8, 5)


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_head_is_the_last_linear_layer():
    model = TwoHeads()
    assert find_head(model) is model.auxiliary


def test_a_dotted_path_names_another_head():
    model = TwoHeads()
    assert find_head(model, "classifier.2") is model.classifier[2]


def test_a_model_that_is_one_linear_layer_is_its_own_head():
    model = nn.Linear(2, 3)
    assert find_head(model) is model


@pytest.mark.parametrize(
    ("name", "seen"), [("classifier.1", "got ReLU"), ("classifier", "got Sequential"), ("fc", "got no module")]
)
def test_a_name_of_something_else_is_refused_with_the_linear_layers_listed(name: str, seen: str):
    with pytest.raises(
        ConfigError, match=rf"--head {name}: .*{seen}; .*classifier\.2 \(8 to 3\), auxiliary \(8 to 5\)"
    ):
        find_head(TwoHeads(), name)


def test_of_many_linear_layers_the_last_are_listed():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)))
    with pytest.raises(ConfigError, match=r"19 \(2 to 2\) and 12 before them"):
        find_head(model, "fc")


def test_a_model_without_a_linear_layer_is_refused():
    with pytest.raises(ConfigError, match=r"--head: Sequential has no nn\.Linear"):
        find_head(nn.Sequential(nn.Conv2d(1, 1, 1)))


@pytest.mark.usefixtures("process_group")
def test_wrappers_of_ddp_and_torch_compile_are_seen_through_in_any_order():
    model = TwoHeads()
    for wrapped in (
        DistributedDataParallel(model),
        torch.compile(model, backend="eager"),
        torch.compile(DistributedDataParallel(model), backend="eager"),
        DistributedDataParallel(torch.compile(model, backend="eager")),
    ):
        assert unwrap(wrapped) is model
        assert find_head(wrapped) is model.auxiliary
        assert find_head(wrapped, "classifier.2") is model.classifier[2]


def test_a_model_s_own_attribute_called_module_is_no_wrapper():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.head = nn.Linear(2, 3)

    model = Outer()
    assert unwrap(model) is model
    assert find_head(model) is model.head
