"""The ledger in checkpoints and files, and between threads."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from common.order import Order
from tests.trainer.visits import array, visit
from trainer.ledger import FIELDS, NEVER, Ledger, load_ledger

WITHIN_S = 60.0


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns every microsecond, not every five thousand."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_ledger_restored_in_the_middle_plans_as_an_uninterrupted_one(tmp_path: Path) -> None:
    order, half, end = Order(777, 2, "candidates"), 20, 60
    whole, first, resumed = (Ledger(777, FIELDS, seed=3) for _ in range(3))
    expected = visit(whole, order, 0, end, max_age=3)
    plans = [visit(first, order, 0, half, max_age=3)]
    torch.save(first.state_dict(), tmp_path / "ledger.pt")
    visit(first, order, half, end, max_age=2)  # what happens after the checkpoint is not in it
    kept = resumed.age
    resumed.load_state_dict(torch.load(tmp_path / "ledger.pt", weights_only=True))
    assert resumed.age is kept, "whoever holds an array sees what was loaded"
    plans.append(visit(resumed, order, half, end, max_age=3))
    assert (np.concatenate(plans) == expected).all()
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0, equal_nan=True)


def test_a_state_is_a_copy() -> None:
    ledger = Ledger(3, ("seen",))
    state = ledger.state_dict()
    ledger.visited(array(0))
    assert state["seen"].numpy().tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"age": torch.zeros(3, dtype=torch.uint8)}, r"keeps \['loss', 'age'\], the state holds \['age'\]"),
        (Ledger(3, ("loss", "age", "seen")).state_dict(), "the state holds .*'seen'"),
        (Ledger(4, ("loss", "age")).state_dict(), r"loss must be \(3,\) float32, got \(4,\) float32"),
        ({"loss": torch.zeros(3), "age": torch.zeros(3)}, r"age must be \(3,\) uint8, got \(3,\) float32"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(state: dict[str, torch.Tensor], message: str) -> None:
    ledger = Ledger(3, ("loss", "age"))
    with pytest.raises(ValueError, match=message):
        ledger.load_state_dict(state)
    assert np.isnan(ledger.loss).all()
    assert (ledger.age == NEVER).all()


@pytest.mark.parametrize("fields", [FIELDS, ("selected", "loss"), ()])
def test_a_saved_ledger_reads_back_whole(tmp_path: Path, fields: tuple[str, ...]) -> None:
    ledger, path = Ledger(50, fields), tmp_path / "ledger.npz"
    for _ in range(2):  # the second one replaces the first
        ledger.trained(array(3, 4), array(0.5, 2.0))
        ledger.save(path)
    read = load_ledger(path)
    assert tuple(read) == ledger.fields
    for name, kept in read.items():
        np.testing.assert_array_equal(kept, getattr(ledger, name), strict=True)
    with np.load(path) as file:
        assert file["fields"].tolist() == list(ledger.fields)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.npz"], "no temporary file stays"


def test_whoever_reads_a_ledger_while_it_is_replaced_reads_the_old_one_whole(tmp_path: Path) -> None:
    ledger, path = Ledger(50, ("seen",)), tmp_path / "ledger.npz"
    ledger.save(path)
    before = path.read_bytes()
    with path.open("rb") as opened:
        ledger.visited(array(1))
        ledger.save(path)
        assert opened.read() == before != path.read_bytes()


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, path = Ledger(50, ("seen",)), tmp_path / "ledger.npz"
    ledger.save(path)

    def fill_the_disk(file: object, **arrays: np.ndarray) -> None:
        file.write(b"PK")
        raise OSError("no space left on device")

    ledger.visited(array(1))
    monkeypatch.setattr(np, "savez", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        ledger.save(path)
    assert load_ledger(path)["seen"].sum() == 0
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.npz"]


def test_a_file_that_is_no_whole_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.npz"
    with pytest.raises(FileNotFoundError):
        load_ledger(path)
    Ledger(50, FIELDS).save(path)
    whole = path.read_bytes()
    torn = whole.replace(b"\xff" * 50, b"\xfe" * 50)  # the ages
    assert torn != whole
    for content in (b"", b"text", whole[:-30], whole[: len(whole) // 2], torn):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a whole ledger file"):
            load_ledger(path)
    seen = np.zeros(3, dtype=np.uint32)
    for arrays in ({"seen": seen.astype(np.int64)}, {"seen": seen, "selected": seen[:2]}, {"grade": seen}):
        np.savez(path, fields=list(arrays), **arrays)
        with pytest.raises(ValueError, match="is not a ledger file"):
            load_ledger(path)
    with path.open("wb") as file:
        np.save(file, seen)
    with pytest.raises(ValueError, match="is not a whole ledger file"):
        load_ledger(path)


def test_two_threads_lose_no_visit(quick_switches: None) -> None:
    num_rounds, max_age, ids = 600, 50, np.arange(300)
    ledger = Ledger(300, ("age", "seen", "selected"))
    needed = [np.zeros(300, dtype=np.int64), np.zeros(300, dtype=np.int64)]
    start = threading.Barrier(2, timeout=WITHIN_S)

    def hammer(mine: int) -> None:
        start.wait()
        for _ in range(num_rounds):
            needed[mine] += ledger.plan_visit(ids, max_age)
            ledger.visited(ids)
            ledger.trained(ids)

    threads = [threading.Thread(target=hammer, args=(mine,)) for mine in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
        assert not thread.is_alive()
    assert (ledger.seen == 2 * num_rounds).all()
    assert (ledger.selected == 2 * num_rounds).all()
    alone = Ledger(300, ("age",))
    expected = sum(alone.plan_visit(ids, max_age).astype(np.int64) for _ in range(2 * num_rounds))
    assert (sum(needed) == expected).all()
    assert (ledger.age == alone.age).all()
