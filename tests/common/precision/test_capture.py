"""Forward passes on CUDA: near the master's, and captured ones that follow pushes without a new capture."""

import pytest
import torch

from common.errors import ConfigError
from common.models import find_head
from common.precision.forms import make_form
from common.scoring import score_candidates
from tests.common.precision.test_low import MODELS, Squashed, trained

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["resnet8", "wrn-10-1", "features", "torchvision's resnet18", "unusual additions"])
def test_on_cuda_a_form_follows_the_masters_weights(name: str, precision: str, compiled: bool) -> None:
    make, inputs = MODELS[name]
    model, inputs = trained(make, inputs).cuda(), inputs.cuda()
    form = make_form(model, find_head(model), precision, compile=compiled)
    with torch.inference_mode():
        for _ in range(2):
            expected = model(inputs)
            for num in (len(inputs), 2, len(inputs)):  # fewer than captured, then as many again
                scale = float(expected.abs().max())
                torch.testing.assert_close(form(inputs[:num]), expected[:num], rtol=0, atol=0.1 * scale)
            with torch.no_grad():
                for value in model.state_dict().values():
                    if value.is_floating_point():
                        value.mul_(1.25)
            form.refresh()


def test_a_pass_captured_with_few_samples_is_captured_again_with_more_and_right_for_both() -> None:
    make, inputs = MODELS["resnet8"]
    model, inputs = trained(make, inputs).cuda(), inputs.cuda()
    form = make_form(model, find_head(model), "bf16", compile=True)
    with torch.inference_mode():
        few, many = form(inputs[:4]).clone(), form(inputs).clone()
        again = form(inputs[:4])
    torch.testing.assert_close(again, many[:4])
    torch.testing.assert_close(many[:4], few, rtol=0, atol=0.05 * float(few.abs().max()))


def test_scores_and_embeddings_of_a_captured_pass_are_those_of_the_eager_one() -> None:
    make, inputs = MODELS["resnet8"]
    model, inputs = trained(make, inputs).cuda(), inputs.cuda()
    head, targets = find_head(model), torch.arange(20, device="cuda") % 10
    eager, captured = (
        score_candidates(
            model, head, inputs, targets, ["mms", "loss"], embeddings=True,
            forward=make_form(model, head, "bf16", compile=compiled),
        )
        for compiled in (False, True)
    )  # fmt: skip
    torch.testing.assert_close(captured.scores["loss"], eager.scores["loss"], rtol=0.02, atol=0.02)
    torch.testing.assert_close(captured.features, eager.features, rtol=0.05, atol=0.05)


def test_a_pass_that_does_not_end_in_its_head_is_not_captured() -> None:
    model = Squashed().cuda()
    with pytest.raises(ConfigError, match="--compile: Squashed returns something else than its head's output"):
        make_form(model, model.head, "bf16", compile=True)


def test_int8_on_cuda_is_refused_with_a_remedy() -> None:
    model = Squashed().cuda()
    with pytest.raises(ConfigError, match="--precision int8: for the CPU, the model is on cuda:0; choose bf16, fp16"):
        make_form(model, model.head, "int8")
