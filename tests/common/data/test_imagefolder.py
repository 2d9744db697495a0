import logging
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.config import DataOptions
from common.data import cache, imagefolder, pixels
from common.data.source import Source
from common.data.sources import open_source
from common.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch) -> Path:
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def write_images(folder: Path, num: int, seed: int = 0, size: tuple[int, int] = (8, 8), suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for index in range(num):
        image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        image.save(folder / f"{index:04}{suffix}")


@pytest.fixture
def folder(tmp_path) -> Path:
    """train/ and test/ with 6 and 2 images in each of two classes."""
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "train" / name, 6, seed)
        write_images(tmp_path / "test" / name, 2, seed + 10)
    return tmp_path


def open_folder(root: Path, image_size: int | None = None) -> Source:
    return open_source(DataOptions(data="imagefolder", data_root=root, image_size=image_size))


def all_of(split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.fetch(torch.arange(len(split)))


def use_disk_cache(monkeypatch) -> None:
    monkeypatch.setattr(imagefolder, "_ON_DISK_FROM_BYTES", 0)


def use_little_memory(monkeypatch) -> None:
    monkeypatch.setattr(imagefolder, "available_memory_bytes", lambda: 100)


def test_ids_follow_sorted_relative_paths_and_classes_sorted_names(folder):
    source = open_folder(folder)
    inputs, targets = source.train.fetch(torch.tensor([7, 0, 7]))
    expected = [folder / "train/dog/0001.png", folder / "train/cat/0000.png", folder / "train/dog/0001.png"]
    for image, path in zip(inputs, expected, strict=True):
        np.testing.assert_array_equal(image.numpy(), np.asarray(Image.open(path)).transpose(2, 0, 1))
    assert targets.tolist() == [1, 0, 1]
    assert targets.dtype == torch.int64
    assert source.class_names == ("cat", "dog")
    assert (len(source.train), len(source.held_out), source.num_classes) == (12, 4, 2)
    assert source.sample.shape == (3, 8, 8)
    assert source.sample.dtype == torch.uint8
    assert source.decoder.startswith("pillow ")


def test_targets_come_without_decoding(folder, monkeypatch):
    use_little_memory(monkeypatch)
    for image_size in (None, 4):
        source = open_folder(folder, image_size)
        expected = all_of(source.train)[1]
        with monkeypatch.context() as patched:
            patched.setattr(pixels, "decode", lambda *_: pytest.fail("decoded"))
            assert torch.equal(source.targets(torch.arange(12)), expected)
            assert source.targets(torch.tensor([11, 0])).tolist() == [1, 0]


def test_val_is_preferred_over_test(folder):
    write_images(folder / "val" / "cat", 1, seed=20)
    write_images(folder / "val" / "dog", 2, seed=21)
    assert len(open_folder(folder).held_out) == 3


@pytest.mark.parametrize("train", ["", "train"])
def test_a_keyed_tenth_is_held_out_of_a_folder_without_a_held_out_part(tmp_path, train):
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / train / name, 15, seed)
    source, again = open_folder(tmp_path), open_folder(tmp_path)
    assert (len(source.train), len(source.held_out)) == (27, 3)
    assert torch.equal(all_of(source.held_out)[0], all_of(again.held_out)[0])
    pooled = torch.cat([all_of(source.train)[0], all_of(source.held_out)[0]])
    assert len(pooled.unique(dim=0)) == 30


def test_mean_and_std_normalise_the_training_images(folder):
    source = open_folder(folder)
    prepared = source.prepare(all_of(source.train)[0])
    torch.testing.assert_close(prepared.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(prepared.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


def test_the_same_pixels_come_from_memory_from_disk_and_from_decoding_on_demand(folder, monkeypatch, cache_home):
    in_memory = open_folder(folder)
    use_disk_cache(monkeypatch)
    first, mapped = open_folder(folder), open_folder(folder)
    assert len(list(cache_home.rglob("*.npy"))) == 1
    use_little_memory(monkeypatch)
    on_demand = open_folder(folder)
    assert in_memory.train.store.in_memory
    assert not on_demand.train.store.in_memory
    for other in (first, mapped, on_demand):
        assert torch.equal(all_of(other.train)[0], all_of(in_memory.train)[0])
        assert torch.equal(all_of(other.held_out)[0], all_of(in_memory.held_out)[0])
        assert (other.mean, other.std) == (in_memory.mean, in_memory.std)


def test_the_cached_file_is_opened_without_decoding_again(folder, monkeypatch):
    use_disk_cache(monkeypatch)
    first = all_of(open_folder(folder).train)[0]
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("decoded again"))
    second = all_of(open_folder(folder).train)[0]
    assert torch.equal(first, second)
    second.zero_()  # what is fetched is the caller's own
    assert torch.equal(first, all_of(open_folder(folder).train)[0])


def test_a_replaced_image_of_equal_size_and_time_is_decoded_again(folder, monkeypatch, cache_home):
    use_disk_cache(monkeypatch)
    image = folder / "train/cat/0000.png"
    before = open_folder(folder).train.fetch(torch.tensor([0]))[0]
    replacement = folder / "replacement.png"
    shutil.copy2(folder / "train/dog/0000.png", replacement)
    stat = image.stat()
    with replacement.open("ab") as file:
        file.write(b"\0" * max(0, stat.st_size - replacement.stat().st_size))
    replacement.rename(image)
    after = open_folder(folder).train.fetch(torch.tensor([0]))[0]
    assert not torch.equal(before, after)
    assert len(list(cache_home.rglob("*.npy"))) == 1, "the file of the old state is removed"


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(path.read_bytes()[:-50]), lambda p: p.write_bytes(b"")]
)
def test_a_cache_file_that_was_cut_short_is_built_again(folder, monkeypatch, cache_home, damage):
    use_disk_cache(monkeypatch)
    expected = all_of(open_folder(folder).train)[0]
    (file,) = cache_home.rglob("*.npy")
    damage(file)
    assert torch.equal(all_of(open_folder(folder).train)[0], expected)


def test_without_a_place_for_the_cache_the_pixels_stay_in_memory(folder, monkeypatch, cache_home):
    use_disk_cache(monkeypatch)
    (cache_home / "marginstream").write_text("a file in the way")
    assert len(all_of(open_folder(folder).train)[0]) == 12


def test_whoever_comes_while_another_is_building_waits_and_takes_what_was_built(cache_home):
    building, waiting = threading.Event(), threading.Event()
    handler = logging.Handler()
    handler.emit = lambda record: waiting.set() if "for another process" in record.msg else None

    def build() -> np.ndarray:
        building.set()
        assert waiting.wait(20), "the second one did not wait"
        return np.ones((2, 3), dtype=np.uint8)

    cache.logger.addHandler(handler)
    cache.logger.setLevel(logging.INFO)
    try:
        with ThreadPoolExecutor(2) as threads:  # a lock of one open file binds other threads as it binds processes
            first = threads.submit(cache.cached_array, "x", "1", (2, 3), build)
            assert building.wait(20)
            second = threads.submit(cache.cached_array, "x", "1", (2, 3), lambda: pytest.fail("built twice"))
            np.testing.assert_array_equal(first.result(30), second.result(30))
    finally:
        cache.logger.removeHandler(handler)
        cache.logger.setLevel(logging.NOTSET)


def test_content_digest_follows_bytes_and_paths(folder):
    def digest(ids):
        return open_folder(folder).train.content_digest(torch.tensor(ids))

    before, other = digest([0, 3]), digest([1, 2])
    assert digest([3, 0]) != before
    image = folder / "train/cat/0003.png"
    image.write_bytes(image.read_bytes() + b"\0")  # equal pixels from different bytes
    assert digest([0, 3]) != before
    assert digest([1, 2]) == other
    image = folder / "train/cat/0001.png"
    image.rename(image.with_name("0001.PNG"))
    assert digest([1, 2]) != other


@pytest.mark.parametrize("on_demand", [False, True])
def test_images_of_different_sizes_need_image_size_and_both_are_named(folder, monkeypatch, on_demand):
    write_images(folder / "test" / "dog", 1, size=(9, 5))
    if on_demand:
        use_little_memory(monkeypatch)
    with pytest.raises(ConfigError, match=r"(?s)cat/0000.png is 8×8, .*test/dog/0000.png is 9×5; pass --image-size N"):
        open_folder(folder)
    assert open_folder(folder, image_size=6).sample.shape == (3, 6, 6)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_image_size_keeps_the_middle_square(tmp_path, suffix):
    grey = np.full((64, 128, 3), 200, dtype=np.uint8)
    grey[:, :32] = grey[:, 96:] = 0
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.fromarray(grey).save(tmp_path / name / f"{index}{suffix}")
    (image,), _ = open_folder(tmp_path, image_size=16).train.fetch(torch.tensor([0]))
    assert image.shape == (3, 16, 16)
    assert abs(image[:, :, 3:-3].int() - 200).max() <= 3


def test_threads_decode_large_images_to_the_same_pixels(tmp_path, monkeypatch):
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / name, 5, seed, size=(160, 150), suffix=".jpg")
    expected = all_of(open_folder(tmp_path).train)[0]
    monkeypatch.setattr(pixels, "_THREADS_FROM_PIXELS", 10**9)
    assert torch.equal(all_of(open_folder(tmp_path).train)[0], expected)


def test_grey_palette_and_transparent_images_become_rgb(folder):
    rgba = Image.new("RGBA", (8, 8), (10, 20, 30, 40))
    rgba.save(folder / "train/cat/0000.png")
    Image.new("L", (8, 8), 77).save(folder / "train/cat/0001.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 5, 6, 7])
    palette.save(folder / "train/cat/0002.png", transparency=b"\x00\x80")
    inputs, _ = open_folder(folder).train.fetch(torch.arange(3))
    assert inputs[:, :, 0, 0].tolist() == [[10, 20, 30], [77, 77, 77], [5, 6, 7]]


def damaged_in(how: str, path: Path) -> None:
    if how == "cut":
        write_images(path.parent, 1, size=(64, 64))
        path.write_bytes((path.parent / "0000.png").read_bytes()[:300])
    elif how == "text":
        path.write_text("not an image")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(path)


@pytest.mark.parametrize("how", ["cut", "text", "empty", "16-bit"])
@pytest.mark.parametrize("path", ["train/cat/0000.png", "test/dog/0001.png"])
def test_an_unreadable_image_is_named(folder, how, path):
    damaged_in(how, folder / path)
    with pytest.raises(DataError, match=f"cannot read image .*{path}: .+; replace the file or remove it"):
        open_folder(folder, image_size=8)


def test_an_unreadable_image_is_named_at_start_also_when_images_are_decoded_on_demand(folder, monkeypatch):
    use_little_memory(monkeypatch)
    (folder / "test/dog/0001.png").write_text("not an image")
    with pytest.raises(DataError, match=r"test/dog/0001\.png: it is neither JPEG nor PNG"):
        open_folder(folder)


def test_other_files_are_ignored_and_counted(folder, caplog):
    (folder / "train/cat/notes.txt").write_text("")
    (folder / "train/cat/.hidden.png").write_text("")
    (folder / "train/.git").mkdir()
    (folder / "README").write_text("")
    with caplog.at_level("INFO"):
        assert len(open_folder(folder).train) == 12
    assert "ignored 1 files" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "there is no such folder"),
        (lambda root: shutil.rmtree(root / "train"), "has test/ but no train/"),
        (lambda root: shutil.rmtree(root / "train/dog"), "train needs two or more folders, one a class; it has 1"),
        (lambda root: (root / "train/emu").mkdir(), "class folder .*train/emu has no JPEG or PNG image"),
        (lambda root: write_images(root / "test/emu", 1), "test/emu is a class that .*train does not have"),
    ],
)
def test_what_is_missing_in_the_folder_is_named(folder, change, message):
    change(folder)
    with pytest.raises(DataError, match=message):
        open_folder(folder)


def test_imagefolder_without_a_folder_names_the_option():
    with pytest.raises(ConfigError, match="--data imagefolder needs --data-root DIR"):
        open_source(DataOptions(data="imagefolder"))


def test_ids_out_of_range_are_refused(folder):
    source = open_folder(folder)
    for bad in (-1, 12):
        with pytest.raises(IndexError):
            source.train.fetch(torch.tensor([bad]))


def test_a_cached_array_is_mapped_without_a_warning(cache_home):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = cache.cached_array("x", "1", (2, 3), lambda: np.ones((2, 3), dtype=np.uint8))
        again = cache.cached_array("x", "1", (2, 3), lambda: pytest.fail("built twice"))
    np.testing.assert_array_equal(built, again)
    assert not again.flags.writeable
