"""Weights as one flat buffer: its layout, the round trip, and whose weights fit whose model."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.arrays import as_array, as_tensor
from common.buckets import BUCKET_BYTES, bucket_checksum, bucket_span, flat_buffer, num_buckets
from common.errors import ProtocolError
from common.protocol import Array, TensorSpec
from common.weights import (
    DTYPES,
    FlatLoader,
    Manifest,
    copy_tensors,
    load_flat,
    manifest_of,
    model_fingerprint,
    model_tensors,
)


class Net(nn.Module):
    """Odd sizes, a scalar, BatchNorm buffers (one of them int64), and a body that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.body = nn.Linear(5, 7)
        self.norm = nn.BatchNorm1d(7)
        self.tied = nn.Linear(5, 7, bias=False)
        self.tied.weight = self.body.weight
        self.head = nn.Linear(7, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.norm(self.body(inputs) + self.tied(inputs))) * self.scale


def randomised(seed: int) -> Net:
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        for tensor in model_tensors(model).values():
            tensor.copy_(torch.randn(tensor.shape) * 1e3)
    return model


def flat_of(model: nn.Module, manifest: Manifest) -> Tensor:
    flat = torch.zeros(manifest.total_bytes, dtype=torch.uint8)
    copy_tensors(manifest.views(flat), list(model_tensors(model).values()))
    return flat


def test_every_tensor_starts_at_a_multiple_of_64_bytes_and_none_overlap() -> None:
    manifest = manifest_of(Net())
    stops = [0]
    for row, offset in zip(manifest.rows, manifest.offsets, strict=False):
        assert offset % 64 == 0, "as aligned as torch's own allocations"
        assert stops[-1] <= offset < stops[-1] + 64
        stops.append(offset + row.nbytes)
    assert stops[-1] <= manifest.total_bytes
    assert manifest.total_bytes % 64 == 0


def test_parameters_and_buffers_both_travel() -> None:
    names = [row.name for row in manifest_of(Net()).rows]
    assert names == list(Net().state_dict())
    assert {"scale", "norm.running_mean", "norm.num_batches_tracked"} <= set(names)


def test_views_share_the_memory_of_the_buffer() -> None:
    manifest = manifest_of(Net())
    flat = torch.zeros(manifest.total_bytes, dtype=torch.uint8)
    for row, view in zip(manifest.rows, manifest.views(flat), strict=True):
        assert (view.shape, view.dtype) == (row.shape, DTYPES[row.dtype])
        view.fill_(1)
    assert int(flat.count_nonzero()) > 0
    assert all(bool((view == 1).all()) for view in manifest.views(flat))


def test_a_model_comes_back_bitwise_through_a_flat_buffer() -> None:
    model, other = randomised(1), randomised(2)
    pointers = {name: tensor.data_ptr() for name, tensor in model_tensors(other).items()}
    manifest = manifest_of(model)
    load_flat(other, manifest, flat_of(model, manifest))
    for name, tensor in model_tensors(other).items():
        assert torch.equal(tensor, model_tensors(model)[name]), name
        assert tensor.data_ptr() == pointers[name], "in place: graphs and optimisers keep their addresses"


def test_special_values_come_back_bitwise() -> None:
    model, other = Net(), Net()
    bits = torch.tensor([0x7FC00001, 0x7F800000, 0x80000000 - (1 << 32), 0x00000001, 0x3F800000], dtype=torch.int32)
    with torch.no_grad():
        model.body.weight[0].copy_(bits.view(torch.float32))
    load_flat(other, manifest_of(model), flat_of(model, manifest_of(model)))
    assert torch.equal(other.body.weight[0].view(torch.int32), model.body.weight[0].view(torch.int32))


def test_the_bf16_wire_rounds_parameters_but_neither_head_nor_buffers() -> None:
    model = Net()
    wire = {row.name: row.dtype for row in manifest_of(model, wire="bf16", head=model.head).rows}
    assert wire == {
        "scale": "bfloat16",
        "body.weight": "bfloat16",
        "body.bias": "bfloat16",
        "norm.weight": "bfloat16",
        "norm.bias": "bfloat16",
        "norm.running_mean": "float32",
        "norm.running_var": "float32",
        "norm.num_batches_tracked": "int64",
        "tied.weight": "bfloat16",
        "head.weight": "float32",
        "head.bias": "float32",
    }


def test_a_weight_that_the_head_shares_is_exempt_under_both_names() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "head": nn.Linear(4, 7)})
    model["embed"].weight = model["head"].weight
    wire = {row.name: row.dtype for row in manifest_of(model, wire="bf16", head=model["head"]).rows}
    assert wire == {"embed.weight": "float32", "head.weight": "float32", "head.bias": "float32"}


def test_weights_on_a_bf16_wire_arrive_rounded_once_and_the_rest_bitwise() -> None:
    model, other = randomised(1), randomised(2)
    manifest = manifest_of(model, wire="bf16", head=model.head)
    assert manifest.total_bytes < manifest_of(model).total_bytes
    load_flat(other, manifest, flat_of(model, manifest))
    sent = model_tensors(model)
    for (name, tensor), row in zip(model_tensors(other).items(), manifest.rows, strict=True):
        expected = sent[name].bfloat16().float() if row.dtype == "bfloat16" else sent[name]
        assert torch.equal(tensor, expected), name


def changed(manifest: Manifest, index: int, **fields: object) -> Manifest:
    rows = list(manifest.rows)
    rows[index] = rows[index]._replace(**fields)  # type: ignore[arg-type]
    return replace(manifest, rows=tuple(rows))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "trunk.weight"}, "tensor 'trunk.weight' where the model has 'body.weight'"),
        ({"shape": (5, 7)}, r"body.weight has shape \(5, 7\), the model's has \(7, 5\)"),
        ({"dtype": "int32"}, "body.weight has dtype int32, the model's has float32"),
    ],
)
def test_weights_of_another_model_are_refused_naming_the_difference(fields: dict[str, object], says: str) -> None:
    own = manifest_of(Net())
    with pytest.raises(ProtocolError, match=says):
        changed(own, 1, **fields).check_matches(own)


def test_weights_with_more_or_fewer_tensors_are_refused() -> None:
    own = manifest_of(Net())
    with pytest.raises(ProtocolError, match="10 tensors announced, the model has 11"):
        Manifest(own.rows[:-1]).check_matches(own)


def test_only_floating_point_tensors_may_change_their_dtype_on_the_wire() -> None:
    own = manifest_of(Net())
    manifest_of(Net(), wire="bf16").check_matches(own)
    index = [row.name for row in own.rows].index("norm.num_batches_tracked")
    with pytest.raises(ProtocolError, match="num_batches_tracked has dtype float32"):
        changed(own, index, dtype="float32").check_matches(own)


def test_the_fingerprint_tells_names_shapes_and_dtypes_apart_and_not_values() -> None:
    assert model_fingerprint(randomised(1)) == model_fingerprint(randomised(2))
    digests = {model_fingerprint(model) for model in (Net(), Net().double(), nn.Linear(2, 3), nn.Linear(3, 2))}
    assert len(digests) == 4
    assert model_fingerprint(nn.Sequential(nn.Linear(2, 3))) != model_fingerprint(nn.Linear(2, 3))


@pytest.mark.parametrize("wire", ["float32", "bf16"])
def test_a_loader_writes_every_version_into_the_same_tensors(wire: str) -> None:
    model, other = Net(), Net().eval()
    loader = FlatLoader(other)
    before = {name: (id(tensor), tensor.data_ptr()) for name, tensor in other.state_dict(keep_vars=True).items()}
    manifest = manifest_of(model, wire=wire, head=model.head)
    dtypes = {row.name: row.dtype for row in manifest.rows}
    for seed in range(3):
        model = randomised(seed)
        loader.load(manifest.rows, flat_of(model, manifest))
        for name, tensor in other.state_dict(keep_vars=True).items():
            assert (id(tensor), tensor.data_ptr()) == before[name]
            assert torch.equal(tensor, model.state_dict()[name].to(getattr(torch, dtypes[name])).to(tensor))
        assert other.tied.weight is other.body.weight


def test_a_model_moves_into_a_buffer_of_its_own_layout_and_leaves_its_memory_for_the_next_version() -> None:
    other = Net().eval()
    loader, rows = FlatLoader(other), manifest_of(other).rows
    before = {name: (id(tensor), tensor.data_ptr()) for name, tensor in other.state_dict(keep_vars=True).items()}
    free = torch.from_numpy(flat_buffer(manifest_of(other).total_bytes))
    for seed in range(5):
        model = randomised(seed)
        free.copy_(flat_of(model, manifest_of(model)))
        free = loader.swap(rows, free)
        free.fill_(255)
        for name, tensor in other.state_dict(keep_vars=True).items():
            assert id(tensor) == before[name][0]
            assert (tensor.data_ptr() == before[name][1]) == (seed % 2 == 1)
            assert torch.equal(tensor, model.state_dict()[name])


def test_a_model_does_not_move_into_a_buffer_that_is_not_aligned() -> None:
    model, other = randomised(1), Net()
    manifest = manifest_of(model)
    flat = torch.from_numpy(flat_buffer(manifest.total_bytes + 8))[8:].copy_(flat_of(model, manifest))
    loader = FlatLoader(other)
    assert loader.swap(manifest.rows, flat) is flat
    flat.fill_(255)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in other.state_dict().items())


def test_a_loader_takes_a_model_whose_tensors_are_not_contiguous() -> None:
    model, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    manifest = manifest_of(model)
    FlatLoader(other).load(manifest.rows, flat_of(model, manifest))
    assert torch.equal(other.weight, model.weight)
    assert other.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("total", [0, 1, *(num * BUCKET_BYTES + more for num in (1, 4, 9) for more in (-1, 0, 1))])
def test_buckets_cover_the_buffer_exactly_once(total: int) -> None:
    spans = [bucket_span(bucket, total) for bucket in range(num_buckets(total))]
    assert spans[0][0] == 0
    assert spans[-1][1] == total
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    assert all(stop - start <= BUCKET_BYTES for start, stop in spans)


@pytest.mark.parametrize("size", [0, 1, 63, 4095, 4096, 4097, 100_000])
def test_a_checksum_tells_a_bucket_from_one_that_is_torn_cut_or_another_s(size: int) -> None:
    data = bytearray(np.random.default_rng(size).bytes(size))
    checksum = bucket_checksum(data)
    assert checksum == bucket_checksum(bytes(data)) == bucket_checksum(memoryview(data))
    for index in {0, size // 2, size - 1} if size else ():
        data[index] ^= 1
        assert bucket_checksum(data) != checksum, f"one bit of byte {index}"
        data[index] ^= 1
    assert bucket_checksum(bytes(data) + b"\0") != checksum
    torn = bytes(data[: size // 2]) + np.random.default_rng(size + 1).bytes(size - size // 2)
    assert torn == data or bucket_checksum(torn) != checksum


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 3)])
def test_tensors_of_every_dtype_and_shape_become_arrays_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = (torch.arange(torch.Size(shape).numel()) % 2).view(shape).to(DTYPES[dtype])
    array = as_array(tensor)
    assert (array.dtype, array.shape) == (dtype, shape)
    back = as_tensor(Array(dtype, shape, bytes(array.buffer)))
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)


def test_a_contiguous_tensor_is_not_copied_into_its_array() -> None:
    tensor = torch.zeros(4)
    array = as_array(tensor)
    tensor[2] = 1
    assert array.as_numpy().tolist() == [0, 0, 1, 0]
    assert as_array(torch.arange(6).view(2, 3).T).as_numpy().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_manifest_row_knows_its_bytes() -> None:
    assert TensorSpec("a", "bfloat16", (3, 5)).nbytes == 30
    assert TensorSpec("a", "float64", ()).nbytes == 8
