"""The most and the least selected samples, and the counts of classes."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.data.source import AbsentSplit, Source, TensorSplit
from trainer.evaluate import sample_losses
from trainer.gallery import MAX_SAMPLE_BYTES, least_selected, most_selected, write_gallery
from trainer.ledger import Ledger

NUM, CLASSES = 50, 3


def images(*shape: int, names: tuple[str, ...] = ("ant", "bee", "cow")) -> Source:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (NUM, *(shape or (1, 2, 2))), generator=draw, dtype=torch.uint8)
    targets = torch.arange(NUM) % CLASSES
    return Source("images", TensorSplit(inputs, targets), None, CLASSES, class_names=names)


def model_for(source: Source) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(int(np.prod(source.sample.shape)), CLASSES))


def counted(seen: np.ndarray, selected: np.ndarray) -> Ledger:
    """A ledger of these counts."""
    ledger = Ledger(len(seen), ("seen", "selected"))
    ledger.visited(np.repeat(np.arange(len(seen)), seen))
    ledger.trained(np.repeat(np.arange(len(seen)), selected))
    return ledger


def by_number() -> Ledger:
    """Sample i was seen i % 5 times more often than 10, and selected i // 10 times."""
    return counted(10 + np.arange(NUM) % 5, np.arange(NUM) // 10)


def test_the_most_selected_come_first_and_of_equals_those_with_fewer_chances() -> None:
    ledger = by_number()
    ids = most_selected(ledger.seen, ledger.selected, seed=0, num=12)  # type: ignore[arg-type]
    assert (ids // 10).tolist() == [4] * 10 + [3] * 2
    assert (ids % 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0]


def test_the_least_selected_had_chances_and_of_equals_the_most() -> None:
    ledger = by_number()
    ids = least_selected(ledger.seen, ledger.selected, seed=0, num=12)  # type: ignore[arg-type]
    assert (ids // 10).tolist() == [0] * 10 + [1] * 2
    assert (ids % 5).tolist() == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 4, 4]
    seen, selected = np.array([0, 1, 3, 0], dtype=np.uint32), np.array([0, 1, 2, 0], dtype=np.uint32)
    assert least_selected(seen, selected, seed=0).tolist() == [1, 2]
    assert sorted(least_selected(np.zeros_like(seen), selected, seed=0).tolist()) == [0, 1, 2, 3]


def test_ties_are_drawn_by_the_seed_and_not_by_the_order_of_ids() -> None:
    flat = np.ones(10_000, dtype=np.uint32)
    first, again, other = (most_selected(flat, flat, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert max(first) > 1000


def test_a_gallery_holds_samples_as_stored_with_losses_and_counts(tmp_path: Path) -> None:
    source, ledger = images(), by_number()
    model = model_for(source).train()
    assert write_gallery(tmp_path / "gallery.npz", model, source, ledger, seed=0)
    assert all(module.training for module in model.modules())
    gallery = np.load(tmp_path / "gallery.npz")
    for group in ("most", "least"):
        ids = gallery[f"{group}_ids"]
        inputs, targets = source.train.fetch(torch.from_numpy(ids))
        assert np.array_equal(gallery[f"{group}_inputs"], inputs.numpy())
        assert gallery[f"{group}_inputs"].dtype == np.uint8
        assert gallery[f"{group}_targets"].tolist() == targets.tolist()
        losses, _ = sample_losses(model, source, source.train, torch.from_numpy(ids), device="cpu")
        assert gallery[f"{group}_losses"].tolist() == losses.tolist()
        assert gallery[f"{group}_seen"].tolist() == (10 + ids % 5).tolist()
        assert gallery[f"{group}_selected"].tolist() == (ids // 10).tolist()
    assert gallery["class_names"].tolist() == ["ant", "bee", "cow"]
    numbers = np.arange(NUM)
    for name, per_sample in (("sizes", np.ones(NUM)), ("seen", 10 + numbers % 5), ("selected", numbers // 10)):
        expected = [per_sample[numbers % CLASSES == each].sum() for each in range(CLASSES)]
        assert gallery[f"class_{name}"].tolist() == expected, name


def test_samples_without_one_class_each_have_no_counts_of_classes(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(inputs.float().mean(dim=1, keepdim=True))

        def per_sample_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs - targets).square().mean(dim=1)

    tokens = torch.arange(NUM * 4).view(NUM, 4)
    source = Source("tokens", TensorSplit(tokens, tokens[:, 1:]), None, 200)
    assert write_gallery(tmp_path / "gallery.npz", Net(), source, by_number(), seed=0)
    gallery = np.load(tmp_path / "gallery.npz")
    assert gallery["most_inputs"].dtype == np.int64
    assert gallery["most_targets"].shape == (16, 3)
    assert not [name for name in gallery if name.startswith("class")]


@pytest.mark.parametrize(
    ("source", "ledger", "why"),
    [
        (Source("absent", AbsentSplit(NUM), images().train, CLASSES), by_number(), "cannot read its training data"),
        (images(1, 1024, MAX_SAMPLE_BYTES // 1024 + 1), by_number(), "a sample takes 1.0 MiB"),
        (images(), Ledger(NUM, ("loss",)), "no-ledger keeps no counts"),
    ],
)
def test_what_cannot_be_shown_is_left_out_with_a_reason(
    source: Source, ledger: Ledger, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert not write_gallery(tmp_path / "gallery.npz", nn.Linear(1, 1), source, ledger, seed=0)
    assert why in caplog.text
    assert list(tmp_path.iterdir()) == []
