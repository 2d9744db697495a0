import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import DataOptions, SyntheticOptions
from common.data import digits
from common.data.source import Source, TensorSplit
from common.data.sources import SOURCE_NAMES, open_source
from common.errors import ConfigError
from common.imports import import_callable
from tests.common.data.elsewhere import digests_of_samples


def all_of(split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.fetch(torch.arange(len(split)))


def open_synthetic(**chosen) -> Source:
    return open_source(DataOptions(data="synthetic", synthetic=SyntheticOptions(**chosen)))


# digits


def test_digits_are_those_of_scikit_learn_scaled_to_bytes():
    from sklearn.datasets import load_digits

    levels, classes = load_digits(return_X_y=True)
    scaled = np.floor(levels * 255 / 16 + 0.5).astype(int)
    expected = sorted((label, *row.tolist()) for row, label in zip(scaled, classes.tolist(), strict=True))
    source = open_source(DataOptions())
    found = []
    for split in (source.train, source.held_out):
        inputs, targets = all_of(split)
        assert (inputs.dtype, inputs.shape[1:], targets.dtype) == (torch.uint8, (1, 8, 8), torch.int64)
        found += [(label, *row) for row, label in zip(inputs.flatten(1).tolist(), targets.tolist(), strict=True)]
    assert sorted(found) == expected


def test_digits_hold_out_the_same_fifth_always():
    first, second = open_source(DataOptions()), open_source(DataOptions())
    assert (len(first.train), len(first.held_out)) == (1437, 360)
    assert torch.equal(all_of(first.held_out)[0], all_of(second.held_out)[0])
    assert all_of(first.held_out)[1].bincount().min() >= 20


def test_the_constants_of_digits_match_its_pixels():
    source = open_source(DataOptions())
    inputs = all_of(source.train)[0].double() / 255
    assert (round(inputs.mean().item(), 4),) == digits.MEAN
    assert (round(inputs.std(correction=0).item(), 4),) == digits.STD
    prepared = source.prepare(all_of(source.train)[0])
    assert abs(prepared.mean().item()) < 1e-3
    assert abs(prepared.std().item() - 1) < 1e-3


def test_digits_are_read_through_scikit_learn_where_its_file_is_elsewhere(monkeypatch):
    expected = all_of(open_source(DataOptions()).train)
    monkeypatch.setattr(digits, "find_spec", lambda _: None)
    for ours, theirs in zip(all_of(open_source(DataOptions()).train), expected, strict=True):
        assert torch.equal(ours, theirs)


# synthetic


def test_synthetic_samples_lie_around_their_class_centres():
    source = open_synthetic(num_classes=5, num_samples=20_000, overlap=0.4)
    inputs, targets = all_of(source.train)
    assert inputs.dtype == torch.float32
    assert (len(source.train), len(source.held_out), source.num_classes) == (20_000, 4_000, 5)
    for label in range(5):
        around = inputs[targets == label]
        angle = 2 * np.pi * label / 5
        torch.testing.assert_close(
            around.mean(0), torch.tensor([np.cos(angle), np.sin(angle)]).float(), atol=0.02, rtol=0
        )
        torch.testing.assert_close(around.std(0), torch.full((2,), 0.4 * np.sin(np.pi / 5)).float(), atol=0.02, rtol=0)


def test_without_overlap_every_sample_is_its_centre():
    inputs, _ = all_of(open_synthetic(num_classes=3, num_samples=30, overlap=0.0).train)
    assert len(inputs.unique(dim=0)) == 3


def test_label_noise_changes_training_labels_only():
    clean = open_synthetic(num_classes=4, num_samples=8000)
    noisy = open_synthetic(num_classes=4, num_samples=8000, label_noise=0.4)
    changed = (all_of(clean.train)[1] != all_of(noisy.train)[1]).double().mean().item()
    assert changed == pytest.approx(0.4 * 3 / 4, abs=0.02)  # a quarter of the draws hits the true class
    assert torch.equal(all_of(clean.train)[0], all_of(noisy.train)[0])
    assert torch.equal(all_of(clean.held_out)[1], all_of(noisy.held_out)[1])


def test_synthetic_samples_follow_their_own_seed_and_nothing_else():
    torch.manual_seed(1)
    first = all_of(open_synthetic(seed=3).train)[0]
    torch.manual_seed(2)
    assert torch.equal(all_of(open_synthetic(seed=3).train)[0], first)
    assert not torch.equal(all_of(open_synthetic(seed=4).train)[0], first)


def test_another_process_makes_the_same_samples(elsewhere):
    assert elsewhere["samples"] == digests_of_samples()


# what a source does


def test_prepare_scales_bytes_casts_floats_and_leaves_tokens():
    split = TensorSplit(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    plain = Source("x", split, None, 2)
    normalised = Source("x", split, None, 2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = torch.full((2, 3, 2, 2), 255, dtype=torch.uint8)
    torch.testing.assert_close(plain.prepare(pixels), torch.ones(2, 3, 2, 2))
    torch.testing.assert_close(normalised.prepare(pixels)[0, :, 0, 0], torch.tensor([1.0, 3.0, 1.0]))
    assert plain.prepare(torch.ones(2, dtype=torch.float64)).dtype == torch.float32
    assert plain.prepare(torch.ones(2, dtype=torch.int64)).dtype == torch.int64


def test_prepare_may_be_called_first_in_inference_mode_and_then_for_training():
    split = TensorSplit(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    source = Source("x", split, None, 2, mean=(0.123,), std=(0.321,))
    with torch.inference_mode():
        source.prepare(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    prepared = source.prepare(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    layer = torch.nn.Conv2d(1, 1, 1)
    layer(prepared).sum().backward()


def test_a_tensor_split_refuses_what_is_no_split():
    with pytest.raises(ValueError, match="one length, got 2 and 3"):
        TensorSplit(torch.zeros(2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one sample"):
        TensorSplit(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be integers"):
        TensorSplit(torch.zeros(2), torch.zeros(2))
    with pytest.raises(IndexError):
        TensorSplit(torch.zeros(2), torch.zeros(2, dtype=torch.int64)).fetch(torch.tensor([-1]))


# names


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="--data cifar: did you mean cifar10"):
        open_source(DataOptions(data="cifar"))
    with pytest.raises(ConfigError, match="known are digits, synthetic"):
        open_source(DataOptions(data="?"))


def test_the_help_of_data_names_every_source():
    description = DataOptions.model_fields["data"].description
    assert description is not None
    assert all(name in description for name in SOURCE_NAMES)


def test_image_size_is_refused_where_there_are_no_images():
    with pytest.raises(ConfigError, match="--image-size 9: samples of --data synthetic are not images"):
        open_source(DataOptions(data="synthetic", image_size=9))


# people's own


@pytest.fixture
def own_module(tmp_path, monkeypatch, request):
    """Writes a module to the current folder, under a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    name = f"own_{abs(hash(request.node.nodeid))}"

    def write(body: str) -> str:
        header = "import torch\nfrom common.data.source import Source, TensorSplit\n"
        Path(f"{name}.py").write_text(header + body)
        return name

    yield write
    sys.modules.pop(name, None)


TOKENS = "Source('tokens', TensorSplit(torch.arange(40).view(10, 4), torch.arange(10)), None, 10)"


@pytest.mark.parametrize("arguments", ["", "options", "options=None"])
def test_own_sources_come_from_the_current_folder_with_or_without_options(own_module, arguments):
    name = own_module(f"def make({arguments}):\n    return {TOKENS}")
    source = open_source(DataOptions(data=f"{name}:make"))
    assert source.sample.shape == (4,)
    assert source.sample.dtype == torch.int64
    inputs, targets = source.train.fetch(torch.tensor([2]))
    assert (inputs.tolist(), targets.tolist()) == ([[8, 9, 10, 11]], [2])


def test_own_sources_get_the_options(own_module):
    name = own_module(f"def make(options):\n    assert options.image_size == 5\n    return {TOKENS}")
    assert open_source(DataOptions(data=f"{name}:make", image_size=5)).name == "tokens"


SPLIT = """
class Split:
    def __len__(self): return {length}
    def fetch(self, ids): return {fetched}
def make(): return Source('own', Split(), None, 3, {more})
"""


@pytest.mark.parametrize(
    ("length", "fetched", "more", "message"),
    [
        ("0", "None", "", "train has no samples"),
        ("5", "ids", "", r"must return two tensors \(inputs, targets\), got Tensor"),
        ("5", "(ids.double(), ids % 3)", "", "inputs must be of uint8, float32, int64; got torch.float64"),
        ("5", "(ids, ids.int())", "", "targets must be int64, got torch.int32"),
        ("5", "(ids, ids)", "", r"target 4 is outside \[0, num_classes = 3\)"),
        ("5", "(ids[:2], ids % 3)", "", r"fetch of 3 ids must give as many inputs, got shape \(2,\)"),
        ("5", "(torch.arange(3), ids % 3)", "", "function of the id; id 4 came twice"),
        ("5", "(ids, ids % 3)", "mean=(.5,), std=(.5,)", r"mean and std have 1 channels.* samples are \(\) int64"),
    ],
)
def test_what_is_wrong_with_an_own_split_is_said(own_module, length, fetched, more, message):
    name = own_module(SPLIT.format(length=length, fetched=fetched, more=more))
    with pytest.raises(ConfigError, match=f"--data {name}:make: .*{message}"):
        open_source(DataOptions(data=f"{name}:make"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def make(): return 3", "must return a common.data.source.Source, got int"),
        ("def make(): return Source('x', 3, None, 2)", r"train must have __len__ and fetch\(ids\), got int"),
        (
            "t = torch.arange(4)\ndef make(): return Source('x', TensorSplit(t, t), TensorSplit(t.view(4, 1), t), 4)",
            r"held_out inputs are \(1,\) int64, those of train \(\) int64",
        ),
        ("def mak(): ...", "has no make; did you mean mak?"),
        ("make = 3", "make must be a function or a class, got int"),
        ("1 / 0", "importing .* failed: ZeroDivisionError: division by zero"),
        ("def make(:", "importing .* failed: SyntaxError"),
        ("import not_there_at_all", "needs not_there_at_all, which is not installed"),
    ],
)
def test_what_is_wrong_with_an_own_module_is_said(own_module, body, message):
    name = own_module(body)
    with pytest.raises(ConfigError, match=f"--data {name}:make: .*{message}"):
        open_source(DataOptions(data=f"{name}:make"))


def test_own_targets_that_are_not_those_of_fetch_are_refused(own_module):
    body = SPLIT.format(length="5", fetched="(ids, ids % 3)\n    def targets(self, ids): return ids % 2", more="")
    name = own_module(body)
    with pytest.raises(ConfigError, match=rf"--data {name}:make: train: targets\(ids\) must give the targets"):
        open_source(DataOptions(data=f"{name}:make"))


@pytest.mark.parametrize("name", ["a:", ":b", "a b:c", "a:b:c", "../a:b", "a:b()"])
def test_names_of_another_form_are_refused(name):
    with pytest.raises(ConfigError, match=r"--model .*: expected module:callable"):
        import_callable(name, "--model")


def test_a_module_that_is_nowhere_is_named_with_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"--data nowhere.at_all:f: no module nowhere in {tmp_path}"):
        import_callable("nowhere.at_all:f", "--data")
