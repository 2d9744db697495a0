"""The resident weights: whole versions in place, float32 exactly the trainer's scores, bf16 with a float32 head."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.data.source import SampleSpec
from common.errors import ProtocolError
from common.models import build_model, find_head
from common.protocol import Version, Weights
from common.scoring import score_candidates
from common.weights import copy_tensors, manifest_of, model_tensors
from scorer.replica import Replica
from scorer.staging import StagedWeights

CPU = torch.device("cpu")
SAMPLE = SampleSpec((3, 16, 16), torch.uint8, (), 100, 10)
NAMES = ("mms", "loss", "entropy")


def trained_model(seed: int = 0) -> nn.Module:
    """A residual net whose BatchNorm statistics are not those of its start."""
    model = build_model("resnet8", SAMPLE, seed=seed)
    with torch.no_grad():
        model(torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))
    return model


def staged(model: nn.Module, wire: str = "float32", step: int = 1) -> StagedWeights:
    manifest = manifest_of(model, wire=wire, head=find_head(model))
    flat = torch.zeros(manifest.total_bytes, dtype=torch.uint8)
    copy_tensors(manifest.views(flat), list(model_tensors(model).values()))
    return StagedWeights(Version(1, step), manifest.rows, flat.numpy())


def make_replica(precision: str = "float32", model: nn.Module | None = None) -> Replica:
    own = build_model("resnet8", SAMPLE, seed=99) if model is None else model
    return Replica(own, find_head(own), CPU, precision)


def candidates(num: int = 40) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(num, 3, 16, 16, generator=draw), torch.randint(10, (num,), generator=draw)


def test_float32_scores_are_bitwise_those_of_fresh_mode_in_the_trainer() -> None:
    model = trained_model().train()
    replica = make_replica()
    replica.load(staged(model))
    inputs, targets = candidates()
    expected = score_candidates(model, find_head(model), inputs, targets, NAMES)
    got = replica.score(inputs, targets, NAMES)
    for name in NAMES:
        assert torch.equal(got.scores[name], expected.scores[name]), name
    assert (got.loss_mean, got.accuracy) == (expected.loss_mean, expected.accuracy)
    assert model.training


def test_a_load_replaces_every_tensor_batch_norm_statistics_among_them() -> None:
    own = build_model("resnet8", SAMPLE, seed=99)
    replica, model = make_replica(model=own), trained_model()
    replica.load(staged(model))
    for (name, tensor), other in zip(own.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_scores_follow_the_version_that_was_loaded_last() -> None:
    replica = make_replica()
    inputs, targets = candidates()
    by_version = []
    for seed in (1, 2, 1):
        replica.load(staged(trained_model(seed)))
        by_version.append(replica.score(inputs, targets, ["mms"]).scores["mms"])
    assert torch.equal(by_version[0], by_version[2])
    assert not torch.equal(by_version[0], by_version[1])


class Crowd(nn.Module):
    """Logits far from zero and close together: where bfloat16 ties what float32 tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Identity()
        self.head = nn.Linear(2, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
            self.head.bias.copy_(torch.tensor([100.0, 100.0, 0.0]))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs))


@pytest.mark.parametrize("wire", ["float32", "bf16"])
def test_the_head_computes_in_float32_under_bf16(wire: str) -> None:
    # Margins of 2^-6 between logits around 100, where neighbours in bfloat16 are 1/2 apart. All inputs are exact in it.
    inputs = torch.tensor([[0.0, 2.0**-6 * (row + 1)] for row in range(8)])
    own = Crowd()
    replica = Replica(own, own.head, CPU, "bf16")
    replica.load(staged(Crowd(), wire))
    scored = replica.score(inputs, torch.zeros(8, dtype=torch.int64), ["mms"])
    # The rows of the two top classes are (1, 0) and (1, 1), at a distance of 1.
    torch.testing.assert_close(scored.scores["mms"], inputs[:, 1], rtol=0, atol=1e-5)
    assert len(scored.scores["mms"].unique()) == 8, "bfloat16 would tie the top two classes"


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_rounds_to_bfloat16_exactly_where_the_processor_computes_in_it(
    has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.precision.low.cpu_has_bf16", lambda: has_bf16)
    model = trained_model()
    inputs, targets = candidates()
    replica, exact = make_replica("bf16"), make_replica()
    for one in (replica, exact):
        one.load(staged(model))
    rough, fine = (one.score(inputs, targets, ["mms"]).scores["mms"] for one in (replica, exact))
    torch.testing.assert_close(rough, fine, rtol=0.2, atol=0.05)
    assert torch.allclose(rough, fine, rtol=1e-3, atol=1e-5) is not has_bf16


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_scores_of_a_low_precision_follow_the_version_that_was_loaded_last(precision: str) -> None:
    replica = make_replica(precision)
    inputs, targets = candidates()
    by_version = []
    for seed in (1, 2, 2, 1):
        replica.load(staged(trained_model(seed)))
        by_version.append(replica.score(inputs, targets, ["loss"]).scores["loss"])
        exact = replica.score(inputs, targets, ["loss"], exact=True).scores["loss"]
        torch.testing.assert_close(by_version[-1], exact, rtol=0.1, atol=0.1)
    assert not torch.allclose(by_version[0], by_version[1], rtol=0.1, atol=0.1)


def test_bf16_weights_give_the_scores_of_the_rounded_model() -> None:
    model = trained_model()
    replica = make_replica()
    replica.load(staged(model, "bf16"))
    head = find_head(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if not any(parameter is one for one in head.parameters()):
                parameter.copy_(parameter.bfloat16().float())
    inputs, targets = candidates()
    expected = score_candidates(model, head, inputs, targets, ["mms"])
    assert torch.equal(replica.score(inputs, targets, ["mms"]).scores["mms"], expected.scores["mms"])


def bucket_0(weights: StagedWeights, **changes: int) -> Weights:
    total = changes.get("total_bytes", len(weights.flat))
    return Weights(weights.version, 0, 1, total, 0, weights.manifest, weights.flat.data)


def test_weights_that_fit_are_let_through_and_others_are_refused_before_they_are_staged() -> None:
    replica = make_replica()
    replica.check_manifest(bucket_0(staged(trained_model())))
    replica.check_manifest(bucket_0(staged(trained_model(), "bf16")))
    deeper = build_model("resnet14", SAMPLE, seed=0)
    with pytest.raises(ProtocolError, match="tensors announced, the model has"):
        replica.check_manifest(bucket_0(staged(deeper)))


def test_a_buffer_of_another_size_than_its_tensors_is_refused() -> None:
    weights = staged(trained_model())
    for total in (len(weights.flat) - 64, len(weights.flat) + 64, 1 << 35):
        with pytest.raises(ProtocolError, match=f"{total} bytes announced, their tensors take {len(weights.flat)}"):
            make_replica().check_manifest(bucket_0(weights, total_bytes=total))


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_what_a_load_leaves_in_place_of_the_staged_bytes_is_nowhere_in_use(precision: str) -> None:
    replica, fresh = make_replica(precision), make_replica(precision)
    inputs, targets = candidates()
    for seed in (1, 2, 3):
        weights = staged(trained_model(seed))
        replica.load(weights)
        np.copyto(weights.flat, 255)  # NaN, in every dtype of floats
        got = replica.score(inputs, targets, ["mms"])
    fresh.load(staged(trained_model(1)))
    fresh.score(inputs, targets, ["mms"])  # int8 is calibrated with the first version
    fresh.load(staged(trained_model(3)))
    assert torch.equal(got.scores["mms"], fresh.score(inputs, targets, ["mms"]).scores["mms"])


def test_staged_bytes_may_be_reused_after_a_load() -> None:
    replica, model = make_replica(), trained_model()
    weights = staged(model)
    replica.load(weights)
    inputs, targets = candidates()
    before = replica.score(inputs, targets, ["mms"]).scores["mms"]
    np.copyto(weights.flat, 255)
    assert torch.equal(replica.score(inputs, targets, ["mms"]).scores["mms"], before)
