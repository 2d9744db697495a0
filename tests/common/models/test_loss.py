import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import ConfigError
from common.models.loss import own_loss, per_sample_loss


class TokenNet(nn.Module):
    """Next-token logits (B, T, V), with a loss per sequence of its own."""

    def per_sample_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(dim=1)


@pytest.fixture
def model():
    return nn.Linear(3, 3)


def test_the_default_loss_is_cross_entropy_and_differentiable(model):
    targets = torch.tensor([0, 1, 2, 0])
    logits_BC = model(torch.randn(4, 3))
    losses_B = per_sample_loss(model, logits_BC, targets, label_smoothing=0.1)
    assert torch.equal(losses_B, F.cross_entropy(logits_BC, targets, reduction="none", label_smoothing=0.1))
    losses_B.mean().backward()
    assert model.weight.grad is not None


def test_cross_entropy_is_computed_in_float32_and_takes_probabilities(model):
    logits_BC, targets_B = torch.tensor([[4.0, 1.0, 0.5]], dtype=torch.bfloat16), torch.tensor([2])
    by_index = per_sample_loss(model, logits_BC, targets_B)
    assert by_index.dtype == torch.float32
    torch.testing.assert_close(by_index, per_sample_loss(model, logits_BC, F.one_hot(targets_B, 3)).float())


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 3, 7), torch.zeros(4, 7, dtype=torch.int64)),
        (torch.zeros(4, 3), torch.zeros(5, dtype=torch.int64)),
        ({"logits": torch.zeros(4, 3)}, torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_outputs_that_cross_entropy_does_not_fit_are_refused_with_the_remedy(model, outputs, targets):
    with pytest.raises(ConfigError, match=r"Linear returns .*per_sample_loss\(outputs, targets\)"):
        per_sample_loss(model, outputs, targets)


def test_a_models_own_loss_is_one_number_per_sample_and_takes_no_label_smoothing():
    model, targets = TokenNet(), torch.zeros(6, 4, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"label_smoothing.*TokenNet.*set it to 0"):
        per_sample_loss(model, torch.zeros(6, 4, 7), targets, label_smoothing=0.1)
    model.per_sample_loss = lambda outputs, targets: outputs.mean()
    with pytest.raises(ConfigError, match=r"one loss per sample, \(6,\), got a tensor \(\)"):
        per_sample_loss(model, torch.zeros(6, 4, 7), targets)


def test_a_models_own_loss_is_used_through_wrappers():
    model, outputs, targets = TokenNet(), torch.randn(6, 4, 7), torch.zeros(6, 4, dtype=torch.int64)
    expected = model.per_sample_loss(outputs, targets)
    for wrapped in (model, nn.DataParallel(model, device_ids=[]), torch.compile(model, backend="eager")):
        assert torch.equal(per_sample_loss(wrapped, outputs, targets), expected)
    assert own_loss(nn.Linear(3, 3)) is None
