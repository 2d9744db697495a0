"""Where arriving weights land: in the model's own layout, bit by bit what a copy would have made of them."""

import pytest
import torch

from common.buckets import flat_buffer
from common.weights import FlatLoader, manifest_of
from scorer.landing import Landing
from tests.common.test_weights import Net, changed, flat_of, randomised


@pytest.mark.parametrize("bucket_bytes", [64, 128, 192, 1 << 20])
def test_bf16_weights_that_land_are_bitwise_those_of_a_copy(bucket_bytes: int) -> None:
    model, copied = randomised(1), Net()
    wire, own = manifest_of(model, wire="bf16", head=model.head), manifest_of(model)
    sent = flat_of(model, wire)
    FlatLoader(copied).load(wire.rows, sent)
    landing = Landing.between(wire, own)
    assert landing is not None
    memory = flat_buffer(landing.total_bytes)
    for start in range(0, wire.total_bytes, bucket_bytes):
        landing.put(memory, start, sent.numpy()[start : start + bucket_bytes])
    for row, landed, expected in zip(
        own.rows, own.views(torch.from_numpy(memory)), own.views(flat_of(copied, own)), strict=True
    ):
        assert landed.numpy().tobytes() == expected.numpy().tobytes(), row.name


def test_weights_in_the_model_s_own_layout_and_those_of_other_dtypes_stay_as_they_come() -> None:
    own = manifest_of(Net())
    assert Landing.between(own, own) is None
    for dtype in ("float16", "float64"):
        assert Landing.between(changed(own, 1, dtype=dtype), own) is None
