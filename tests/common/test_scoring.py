import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import ConfigError
from common.models.loss import per_sample_loss
from common.scoring import SCORES, score_candidates, score_parts
from common.selection.scores import cross_entropy_score, entropy_score, gradient_norm_bound, minimal_margin_score


class SmallNet(nn.Module):
    """Convolution, batch norm, dropout and a head: what differs between training and eval mode."""

    def __init__(self, num_logits: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5))
        self.head = nn.Linear(4 * 6 * 6, num_logits)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs))


class TokenNet(nn.Module):
    """Next-token logits (B, T, V), with a loss per sequence of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.head = nn.Linear(8, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.embed(inputs))

    def per_sample_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(dim=1)


class BinaryNet(nn.Module):
    """One logit, and its logistic loss."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs)

    def per_sample_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], targets.float(), reduction="none")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 1, 8, 8, generator=generator), torch.randint(0, 5, (12,), generator=generator)


@pytest.fixture
def token_batch():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randint(0, 7, (2, 6, 4), generator=generator))


def test_all_scores_of_one_pass_are_those_of_the_pure_functions_in_eval_mode(model, batch):
    inputs, targets = batch
    scored = score_candidates(model, model.head, inputs, targets, list(SCORES))
    logits_BC = model.eval()(inputs).detach()
    expected = {
        "mms": minimal_margin_score(logits_BC, model.head.weight.detach()),
        "loss": cross_entropy_score(logits_BC, targets),
        "entropy": entropy_score(logits_BC),
        "gradient-norm": gradient_norm_bound(logits_BC, targets),
    }
    assert scored.scores.keys() == expected.keys()
    for name, scores_B in expected.items():
        torch.testing.assert_close(scored.scores[name], scores_B, msg=name)
    assert scored.num == 12
    assert not bool(scored.dropped.any())
    assert scored.loss_mean == pytest.approx(expected["loss"].mean().item())
    assert scored.accuracy == pytest.approx((logits_BC.argmax(dim=1) == targets).float().mean().item())


def test_one_forward_pass_gives_every_score(model, batch):
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    score_candidates(model, model.head, *batch, list(SCORES))
    assert len(calls) == 1


def test_what_is_given_as_the_forward_pass_computes_the_outputs_instead_of_the_model(model, batch):
    inputs, targets = batch
    seen = []

    def halved(inputs: Tensor) -> Tensor:
        seen.append(torch.is_inference_mode_enabled())
        return model.head(model.body(inputs) / 2)

    model.eval()
    scored = score_candidates(model, model.head, inputs, targets, ["loss"], embeddings=True, forward=halved)
    assert seen == [True]
    features_BD = model.body(inputs).detach() / 2
    expected = cross_entropy_score(model.head(features_BD).detach(), targets)
    torch.testing.assert_close(scored.scores["loss"], expected)
    torch.testing.assert_close(scored.features, features_BD.half())


def test_loss_and_accuracy_come_without_being_asked_for(model, batch):
    inputs, targets = batch
    scored = score_candidates(model, model.head, inputs, targets, [])
    assert scored.scores == {}
    assert math.isfinite(scored.loss_mean)
    assert 0 <= scored.accuracy <= 1


@pytest.mark.parametrize("names", [["mms"], ["loss"], list(SCORES), []])
def test_without_figures_the_scores_are_the_same(names, model, batch):
    inputs, targets = batch
    whole, quick = (
        score_parts(model, model.head, inputs, targets, names, [len(targets)], figures=figures)[0]
        for figures in (True, False)
    )
    assert quick.scores.keys() == whole.scores.keys() == set(names)
    assert all(map(torch.equal, quick.scores.values(), whole.scores.values()))
    assert torch.equal(quick.dropped, whole.dropped)
    assert math.isnan(quick.loss_mean) == ("loss" not in names)
    assert math.isnan(quick.tau) == ("gradient-norm" not in names)


def test_the_model_is_left_as_it_was_with_each_training_flag_its_own(model, batch):
    model.train()
    model.body[1].eval()  # frozen, as in fine-tuning
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    score_candidates(model, model.head, *batch, ["mms"])
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.head._forward_pre_hooks


def test_flags_and_hooks_are_restored_when_the_forward_pass_fails(model, batch):
    model.train()
    model.body.bfloat16()
    with pytest.raises(RuntimeError):
        score_candidates(model, model.head, torch.zeros(2, 3, 8, 8).bfloat16(), batch[1][:2], ["mms"])
    assert all(module.training for module in model.modules())
    assert not model.head._forward_pre_hooks


def test_a_bf16_model_computes_its_float32_head_in_float32(model, batch):
    inputs, targets = batch
    model.body.bfloat16()
    seen = []
    model.head.register_forward_hook(lambda _, args, output: seen.append((args[0].dtype, output.dtype)))
    scored = score_candidates(model, model.head, inputs.bfloat16(), targets, ["mms"])
    assert seen == [(torch.float32, torch.float32)]
    assert not model.head._forward_pre_hooks
    features_BD = model.eval().body(inputs.bfloat16()).detach().float()
    head = model.head
    expected = minimal_margin_score(F.linear(features_BD, head.weight, head.bias).detach(), head.weight.detach())
    assert torch.equal(scored.scores["mms"], expected)


def test_scores_are_ordinary_tensors_that_autograd_accepts(model, batch):
    scored = score_candidates(model, model.head, *batch, ["loss"])
    weights_B = scored.scores["loss"]
    assert not weights_B.is_inference()
    (per_sample_loss(model, model(batch[0]), batch[1]) * weights_B).mean().backward()
    assert model.head.weight.grad is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_candidate_with_a_logit_that_is_not_finite_is_dropped_from_everything(batch, bad):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs

    model, logits_BC = Fixed(), torch.tensor([[1.0, 0.0, 0.5], [9.0, 0.0, bad], [0.0, 1.0, 0.5]])
    scored = score_candidates(model, model.head, logits_BC, torch.tensor([0, 1, 0]), ["mms", "loss", "entropy"])
    assert scored.dropped.tolist() == [False, True, False]
    for scores_B in scored.scores.values():
        assert scores_B.isnan().tolist() == [False, True, False]
    kept = cross_entropy_score(logits_BC[[0, 2]], torch.tensor([0, 0]))
    assert scored.loss_mean == pytest.approx(kept.mean().item())
    assert scored.accuracy == 0.5


def test_nothing_finite_gives_no_mean_and_no_error(model, batch):
    inputs, targets = batch
    scored = score_candidates(model, model.head, torch.full_like(inputs, math.nan), targets, ["mms"])
    assert bool(scored.dropped.all())
    assert math.isnan(scored.loss_mean)
    assert math.isnan(scored.accuracy)


def test_two_passes_over_equal_inputs_are_bitwise_equal(model, batch):
    first, second = (score_candidates(model, model.head, *batch, list(SCORES)) for _ in range(2))
    assert all(torch.equal(first.scores[name], second.scores[name]) for name in SCORES)
    assert (first.loss_mean, first.accuracy) == (second.loss_mean, second.accuracy)


def test_a_model_with_its_own_loss_and_other_outputs_has_the_loss_score(token_batch):
    torch.manual_seed(0)
    model = TokenNet()
    inputs, targets = token_batch
    scored = score_candidates(model, model.head, inputs, targets, ["loss"])
    assert torch.equal(scored.scores["loss"], model.per_sample_loss(model(inputs), targets).detach())
    assert math.isnan(scored.accuracy)
    assert scored.loss_mean == pytest.approx(scored.scores["loss"].mean().item())


@pytest.mark.parametrize("name", ["mms", "entropy", "gradient-norm"])
def test_other_scores_of_such_a_model_are_refused_naming_method_and_remedy(token_batch, name):
    model = TokenNet()
    with pytest.raises(ConfigError, match=f"method '{name}'.*TokenNet.*--method loss"):
        score_candidates(model, model.head, *token_batch, [name])


def test_a_single_logit_model_has_margin_loss_and_accuracy_but_no_entropy():
    torch.manual_seed(0)
    model, inputs, targets = BinaryNet(), torch.randn(8, 3), torch.tensor([0, 1] * 4)
    scored = score_candidates(model, model.head, inputs, targets, ["mms", "loss"])
    logits_B = model(inputs)[:, 0].detach()
    torch.testing.assert_close(scored.scores["mms"], logits_B.abs() / model.head.weight.detach().norm())
    assert scored.accuracy == ((logits_B > 0) == (targets == 1)).float().mean().item()
    with pytest.raises(ConfigError, match=r"method 'entropy'.*BinaryNet.*--method loss"):
        score_candidates(model, model.head, inputs, targets, ["entropy"])


def test_a_head_that_does_not_make_the_logits_is_refused(model, batch):
    with pytest.raises(ConfigError, match=r"returns 5 logits and the head has 3 rows; .*--head"):
        score_candidates(model, nn.Linear(4, 3), *batch, ["mms"])


def test_an_unknown_score_is_refused_with_those_available(model, batch):
    with pytest.raises(ConfigError, match="unknown score 'margin'; available: mms, loss"):
        score_candidates(model, model.head, *batch, ["margin"])


def test_a_compiled_model_is_scored_like_the_module_it_wraps(model, batch):
    compiled = torch.compile(model, backend="eager")
    expected = score_candidates(model, model.head, *batch, ["mms", "loss"])
    scored = score_candidates(compiled, model.head, *batch, ["mms", "loss"])
    assert all(torch.equal(scored.scores[name], expected.scores[name]) for name in expected.scores)
    assert compiled.training
    assert model.training


def test_a_data_parallel_wrapper_is_seen_through(token_batch):
    torch.manual_seed(0)
    model = TokenNet()
    inputs, targets = token_batch
    wrapped = nn.DataParallel(model, device_ids=[])
    scored = score_candidates(wrapped, model.head, inputs, targets, ["loss"])
    assert torch.equal(scored.scores["loss"], per_sample_loss(model, model(inputs), targets).detach())


def test_scores_of_low_precision_are_near_and_leave_the_model_computing_as_before(model, batch):
    inputs, targets = batch
    before = model.eval()(inputs[:1])
    exact = score_candidates(model, model.head, inputs, targets, ["mms"]).scores["mms"]
    low = score_candidates(model, model.head, inputs, targets, ["mms"], precision="bf16").scores["mms"]
    assert not torch.equal(low, exact)
    torch.testing.assert_close(low, exact, rtol=0.1, atol=0.05)
    assert "forward" not in model.head.__dict__
    assert torch.equal(model(inputs[:1]), before)
