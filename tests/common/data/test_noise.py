"""Label noise: the share that was asked for, other classes only, the same in every process, and known by id."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import AugmentOptions, DataOptions, SyntheticOptions, TrainerOptions
from common.data.fingerprint import data_fingerprint
from common.data.noise import UniformNoise, with_label_noise
from common.data.source import AbsentSplit, Source, TensorSplit
from common.data.sources import open_source
from common.errors import ConfigError, DataError
from tests.common.data.elsewhere import NOISE, SEED_OF_THE_RUN

NUM = 40_000


def source(num_classes: int = 5, num: int = NUM) -> Source:
    split = TensorSplit(torch.zeros(num, 1), torch.arange(num) % num_classes)
    return Source("test", split, split, num_classes)


def labels(noisy: Source) -> Tensor:
    return noisy.targets(torch.arange(len(noisy.train)))


@pytest.mark.parametrize("share", [0.01, 0.25, 0.9])
def test_the_share_that_was_asked_for_gets_one_of_the_other_classes_equally(share: float) -> None:
    clean, noisy = labels(source()), labels(with_label_noise(source(), share))
    changed = clean != noisy
    assert changed.double().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / NUM) ** 0.5)
    moved = (noisy - clean)[changed] % 5
    expected = int(changed.sum()) / 4
    assert moved.bincount(minlength=5)[1:].tolist() == pytest.approx([expected] * 4, abs=4 * expected**0.5)


def test_two_classes_are_swapped() -> None:
    noisy = with_label_noise(source(num_classes=2, num=1000), 0.5)
    changed = labels(source(num_classes=2, num=1000)) != labels(noisy)
    assert np.array_equal(noisy.is_noisy(np.arange(1000)), changed.numpy())
    assert 400 < int(changed.sum()) < 600


def test_it_is_known_which_labels_are_wrong_and_fetch_and_targets_agree() -> None:
    noisy = with_label_noise(source(), 0.3)
    ids = torch.tensor([7, 39_999, 0, 7, 1234])
    assert torch.equal(noisy.train.fetch(ids)[1], noisy.targets(ids))
    everything = np.arange(NUM)
    assert np.array_equal(noisy.is_noisy(everything), (labels(source()) != labels(noisy)).numpy())
    assert noisy.is_noisy(np.empty(0, dtype=np.int64)).shape == (0,)
    assert noisy.targets(torch.empty(0, dtype=torch.int64)).shape == (0,)


def test_held_out_labels_stay_true() -> None:
    clean = source()
    assert with_label_noise(clean, 0.5).held_out is clean.held_out


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    ids = np.arange(NUM)
    few, many = UniformNoise(0.1, 5), UniformNoise(0.4, 5)
    assert not (few.is_noisy(ids) & ~many.is_noisy(ids)).any()


@pytest.mark.parametrize("share", [0.0, 2**-60, 1 - 2**-53])
def test_shares_at_the_ends_of_the_range_work(share: float) -> None:
    assert UniformNoise(share, 2).is_noisy(np.arange(1000)).mean() == round(share)


def test_another_process_makes_the_same_noise_whatever_the_seed_of_the_run(elsewhere: dict[str, Any]) -> None:
    assert TrainerOptions().seed != SEED_OF_THE_RUN
    ours = open_source(DataOptions(data="digits", label_noise=NOISE))
    assert elsewhere["noisy labels"] == labels(ours).tolist()
    assert labels(ours).tolist() != labels(open_source(DataOptions(data="digits"))).tolist()


def test_without_noise_nothing_is_known() -> None:
    assert open_source(DataOptions(data="digits")).is_noisy(np.arange(5)) is None
    assert open_source(DataOptions(data="synthetic")).is_noisy(np.arange(5)) is None


def test_synthetic_data_know_their_own_noise() -> None:
    chosen = SyntheticOptions(num_samples=2000, label_noise=0.4)
    clean = open_source(DataOptions(data="synthetic", synthetic=SyntheticOptions(num_samples=2000)))
    noisy = open_source(DataOptions(data="synthetic", synthetic=chosen))
    assert np.array_equal(noisy.is_noisy(np.arange(2000)), (labels(clean) != labels(noisy)).numpy())
    with pytest.raises(
        ConfigError, match=r"--label-noise 0.1: --data synthetic has label noise of its own \(synthetic 0.4"
    ):
        open_source(DataOptions(data="synthetic", synthetic=chosen, label_noise=0.1))


def test_training_samples_that_are_absent_stay_absent_and_their_noise_is_known() -> None:
    absent = with_label_noise(dataclasses.replace(source(), train=AbsentSplit(NUM)), 0.2)
    assert isinstance(absent.train, AbsentSplit)
    assert np.array_equal(absent.is_noisy(np.arange(100)), with_label_noise(source(), 0.2).is_noisy(np.arange(100)))
    with pytest.raises(DataError, match="cannot read the training data"):
        absent.targets(torch.arange(3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (source(num_classes=1, num=10), "--label-noise 0.2 needs another class .* --data test has only one"),
        (
            Source("tokens", TensorSplit(torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.int64)), None, 5),
            r"--label-noise 0.2 replaces one class .* targets of --data tokens have the shape \(3,\)",
        ),
    ],
)
def test_noise_is_refused_where_it_has_no_meaning(wrong: Source, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_label_noise(wrong, 0.2)


def test_own_sources_get_the_noise_too(tmp_path, monkeypatch) -> None:
    body = (
        "import torch\nfrom common.data.source import Source, TensorSplit\n"
        "def make():\n    split = TensorSplit(torch.zeros(500, 1), torch.zeros(500, dtype=torch.int64))\n"
        "    return Source('own', split, split, 3)\n"
    )
    (tmp_path / "own_noisy_source.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    opened = open_source(DataOptions(data="own_noisy_source:make", label_noise=0.5))
    assert 150 < int(labels(opened).count_nonzero()) < 350
    assert opened.held_out.fetch(torch.arange(500))[1].count_nonzero() == 0


def test_other_noise_is_other_data_even_if_the_probes_have_equal_labels() -> None:
    shares = (0.0, 1e-12, 2e-12)
    opened = [open_source(DataOptions(data="digits", label_noise=share)) for share in shares]
    assert labels(opened[0]).tolist() == labels(opened[1]).tolist() == labels(opened[2]).tolist()
    found = [data_fingerprint(each, AugmentOptions()) for each in opened]
    assert len({each["data"] for each in found}) == 3
    assert len({each["decoder"] for each in found}) == 1


def test_stored_bytes_still_tell_data_from_decoder() -> None:
    class Stored(TensorSplit):
        def content_digest(self, ids: Tensor) -> bytes:
            return b"files"

    def opened(pixel: int) -> Source:
        split = Stored(torch.full((60, 1, 4, 4), pixel, dtype=torch.uint8), torch.arange(60) % 5)
        return with_label_noise(Source("stored", split, None, 5), 0.2)

    one, other = (data_fingerprint(opened(pixel), AugmentOptions()) for pixel in (1, 2))
    assert one["data"] == other["data"]
    assert one["decoder"] != other["decoder"]
