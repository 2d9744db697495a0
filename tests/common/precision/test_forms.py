"""Which precision is to be had where, and what people are told when it is not."""

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.models import find_head
from common.precision.forms import make_form
from tests.common.precision.test_low import MODELS, LooksAtValues, trained


@pytest.mark.parametrize(
    ("precision", "compiled", "message"),
    [
        ("fp16", False, "--precision fp16: for CUDA devices, the model is on the CPU; choose bf16, int8 or auto"),
        ("bf16", True, "--compile: forward passes are captured on CUDA devices, the model is on cpu; leave it off"),
        ("fp8", False, "--precision must be float32, bf16, fp16 or int8, got 'fp8'"),
        ("int8", False, "--precision int8: LooksAtValues cannot be traced.*; choose --precision bf16 or float32"),
    ],
)
def test_what_is_not_to_be_had_on_a_cpu_is_refused_with_a_remedy(precision: str, compiled: bool, message: str) -> None:
    model = LooksAtValues()
    with pytest.raises(ConfigError, match=message):
        make_form(model, model.head, precision, compile=compiled)


def test_float32_is_the_master_bit_by_bit_at_once() -> None:
    make, inputs = MODELS["resnet8"]
    model = trained(make, inputs)
    form = make_form(model, find_head(model), "float32")
    for _ in range(2):
        assert torch.equal(form(inputs), model(inputs))
        with torch.no_grad():
            nn.init.normal_(model.conv.weight)  # type: ignore[union-attr,arg-type]
