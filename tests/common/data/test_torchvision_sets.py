import hashlib
import pickle
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import DataOptions
from common.data import torchvision_sets
from common.data.source import Source
from common.data.sources import open_source
from common.errors import ConfigError, DataError

datasets = pytest.importorskip("torchvision.datasets")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def open_set(name: str, root: Path, image_size: int | None = None) -> Source:
    return open_source(DataOptions(data=name, data_root=root, image_size=image_size))


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


class OldPickler(pickle._Pickler):
    """Writes dtypes as the numpy of 2009 did, with align=0 where numpy now expects a boolean."""

    def reducer_override(self, value):
        if isinstance(value, np.dtype):
            make, _, state = value.__reduce__()
            return make, (value.str[1:], 0, 1), state
        return NotImplemented


def write_pickle(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        OldPickler(opened, protocol=2).dump(content)


def write_cifar(root: Path, monkeypatch, name: str, key: str) -> dict[str, dict]:
    """A small archive in the published format; the MD5s that torchvision asks for become those of its files."""
    dataset = getattr(datasets, name)
    random = np.random.default_rng(0)
    batches, checks = {}, {}
    for file, _ in dataset.train_list + dataset.test_list:
        pixels = random.integers(0, 256, (4, 3072), dtype=np.uint8)
        batches[file] = {"data": pixels, key: random.integers(0, 10, 4).tolist()}
        write_pickle(root / dataset.base_folder / file, batches[file])
        checks[file] = md5(root / dataset.base_folder / file)
    meta = root / dataset.base_folder / dataset.meta["filename"]
    write_pickle(meta, {dataset.meta["key"]: [f"class {index}" for index in range(10)]})
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, part, [[file, checks[file]] for file, _ in getattr(dataset, part)])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5(meta)})
    return batches


@pytest.mark.parametrize(
    ("name", "class_name", "key", "num_batches", "num_classes"),
    [("cifar10", "CIFAR10", "labels", 5, 10), ("cifar100", "CIFAR100", "fine_labels", 1, 100)],
)
def test_cifar_is_read_from_its_published_format(
    tmp_path, monkeypatch, name, class_name, key, num_batches, num_classes
):
    batches = write_cifar(tmp_path, monkeypatch, class_name, key)
    source = open_set(name, tmp_path)
    assert (len(source.train), len(source.held_out), source.num_classes) == (4 * num_batches, 4, num_classes)
    inputs, targets = source.train.fetch(torch.tensor([1, 4 * num_batches - 1]))
    train = [batch for file, batch in batches.items() if not file.startswith("test")]
    np.testing.assert_array_equal(inputs[0].numpy(), train[0]["data"][1].reshape(3, 32, 32))
    np.testing.assert_array_equal(inputs[1].numpy(), train[-1]["data"][3].reshape(3, 32, 32))
    assert targets.tolist() == [train[0][key][1], train[-1][key][3]]
    assert source.class_names[3] == "class 3"
    assert source.sample.is_image


class _Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a file that is not the published one was unpickled",))


def test_a_cifar_file_that_is_not_the_published_one_is_never_unpickled(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, "CIFAR10", "labels")
    file = tmp_path / "cifar-10-batches-py/data_batch_3"
    file.write_bytes(pickle.dumps(_Harmful()))
    with pytest.raises(DataError, match=r"cifar10: .* does not hold the data"):
        open_set("cifar10", tmp_path)


def write_mnist(root: Path, class_name: str, num_train: int = 5) -> dict[str, np.ndarray]:
    """The four raw files of the MNIST family."""
    folder = root / class_name / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    written = {}
    for part, num in (("train", num_train), ("t10k", 3)):
        images = random.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, num, dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, num, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, num) + labels.tobytes())
        written |= {f"{part} images": images, f"{part} labels": labels}
    return written


@pytest.mark.parametrize(("name", "class_name"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_the_mnist_family_is_read_from_its_raw_files(tmp_path, name, class_name):
    written = write_mnist(tmp_path, class_name)
    source = open_set(name, tmp_path)
    inputs, targets = source.train.fetch(torch.arange(5))
    np.testing.assert_array_equal(inputs[:, 0].numpy(), written["train images"])
    assert targets.tolist() == written["train labels"].tolist()
    assert (inputs.dtype, targets.dtype) == (torch.uint8, torch.int64)
    held_out, _ = source.held_out.fetch(torch.arange(3))
    np.testing.assert_array_equal(held_out[:, 0].numpy(), written["t10k images"])


def test_a_raw_file_that_was_cut_short_is_an_error_that_names_the_folder(tmp_path):
    write_mnist(tmp_path, "MNIST")
    file = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=f"mnist: {tmp_path} does not hold the data"):
        open_set("mnist", tmp_path)


def test_images_of_a_named_set_are_resized_when_asked(tmp_path):
    write_mnist(tmp_path, "MNIST")
    plain, resized = open_set("mnist", tmp_path), open_set("mnist", tmp_path, image_size=14)
    assert resized.sample.shape == (1, 14, 14)
    assert resized.decoder.startswith("pillow")
    assert len(resized.held_out) == 3
    inputs, targets = resized.train.fetch(torch.tensor([2, 0]))
    original, expected = plain.train.fetch(torch.tensor([2, 0]))
    assert torch.equal(targets, expected)
    averaged = torch.nn.functional.avg_pool2d(original.float(), 7)
    torch.testing.assert_close(
        torch.nn.functional.avg_pool2d(inputs.float(), 7).mean(), averaged.mean(), atol=4, rtol=0
    )


def test_svhn_is_read_from_its_matlab_files(tmp_path, monkeypatch):
    from scipy.io import savemat

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    labels = np.array([[10], [1], [9], [10]], dtype=np.uint8)
    split_list = {}
    for part in ("train", "test"):
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": images, "y": labels})
        split_list[part] = ["http://localhost/", file.name, md5(file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    source = open_set("svhn", tmp_path)
    inputs, targets = source.train.fetch(torch.arange(4))
    np.testing.assert_array_equal(inputs.numpy(), images.transpose(3, 2, 0, 1))
    assert targets.tolist() == [0, 1, 9, 0]  # 10 stands for the digit 0


def write_pcam(root: Path) -> np.ndarray:
    h5py = pytest.importorskip("h5py")
    (root / "pcam").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
    for part in ("train", "test"):
        with h5py.File(root / "pcam" / f"camelyonpatch_level_2_split_{part}_x.h5", "w") as file:
            file["x"] = images
        with h5py.File(root / "pcam" / f"camelyonpatch_level_2_split_{part}_y.h5", "w") as file:
            file["y"] = (np.arange(6, dtype=np.uint8) % 2).reshape(6, 1, 1, 1)
    return images


def test_pcam_reads_the_patches_asked_for_in_their_order(tmp_path):
    images = write_pcam(tmp_path)
    source = open_set("pcam", tmp_path)
    ids = torch.tensor([5, 0, 5, 2])
    inputs, targets = source.train.fetch(ids)
    np.testing.assert_array_equal(inputs.numpy(), images.transpose(0, 3, 1, 2)[ids.numpy()])
    assert targets.tolist() == source.targets(ids).tolist() == [1, 0, 1, 0]
    assert open_set("pcam", tmp_path, image_size=48).sample.shape == (3, 48, 48)


def test_pcam_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ConfigError, match="pip install h5py"):
        open_set("pcam", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_without_data_and_network_the_error_names_folder_set_and_option(tmp_path, name):
    with pytest.raises(DataError) as caught:
        open_set(name, tmp_path / "nothing")
    message = str(caught.value)
    assert message.startswith(f"{name}: {tmp_path / 'nothing'} does not hold the data")
    assert "Name or service not known" in message
    assert "--data-root FOLDER" in message
    assert torchvision_sets._SETS[name].files in message


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"mnist: {tmp_path / 'file'} does not hold the data"):
        open_set("mnist", tmp_path / "file")


def test_waits_for_the_network_are_bounded_and_put_back():
    before = socket.getdefaulttimeout()
    with torchvision_sets._bounded_waits():
        assert 0 < socket.getdefaulttimeout() <= 10
    assert socket.getdefaulttimeout() == before
