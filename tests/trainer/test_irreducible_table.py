"""Reading a table of irreducible losses: what fits is returned, and what does not is said with its remedy."""

from pathlib import Path

import pytest
import torch
from torch import nn

from common.errors import ConfigError, NotWritten
from trainer.irreducible_table import load_irreducible, write_table


def refusal(path: Path, num_samples: int = 3, data: str = "abc") -> str:
    with pytest.raises(ConfigError) as caught:
        load_irreducible(path, num_samples=num_samples, data_fingerprint=data)
    return str(caught.value)


def save(path: Path, **changes) -> Path:
    table = {"losses": torch.zeros(3), "data": "abc", "model": "small", "num_samples": 3, "accuracy": 0.5}
    torch.save({key: value for key, value in (table | changes).items() if value is not None}, path)
    return path


def test_a_table_that_fits_is_returned(tmp_path) -> None:
    losses = load_irreducible(save(tmp_path / "x.pt"), num_samples=3, data_fingerprint="abc")
    assert torch.equal(losses, torch.zeros(3))


REMEDY = "make one with marginstream irreducible and this run's --data and data options"


def test_a_missing_file_is_said(tmp_path) -> None:
    assert refusal(tmp_path / "x.pt") == f"--irreducible {tmp_path / 'x.pt'}: no such file; {REMEDY}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"losses": None}, "it has no losses"),
        ({"data": None}, "it has no data"),
        ({"losses": torch.zeros(3, 1)}, "its losses must be 3 float32 numbers"),
        ({"losses": torch.zeros(4)}, "its losses must be 3 float32 numbers"),
        ({"losses": torch.zeros(3).double()}, "its losses must be 3 float32 numbers"),
        ({"losses": [0.0, 0.0, 0.0]}, "its losses must be 3 float32 numbers"),
        ({"data": 7}, "its data fingerprint must be text"),
    ],
)
def test_tensors_that_are_no_table_are_refused(tmp_path, changes, reason) -> None:
    path = save(tmp_path / "x.pt", **changes)
    assert refusal(path) == f"--irreducible {path} is not a table of irreducible losses: {reason}; {REMEDY}"


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("it was executed",))


def test_files_of_another_kind_are_refused_and_never_executed(tmp_path) -> None:
    path = tmp_path / "x.pt"
    for write in (lambda: path.write_bytes(b"\x00 no torch"), lambda: torch.save(Evil(), path), path.mkdir):
        path.unlink(missing_ok=True)
        write()
        message = refusal(path)
        assert message.startswith(
            f"--irreducible {path} is not a table of irreducible losses: it is no file of tensors"
        )
        assert message.endswith(REMEDY)


def test_a_state_dict_or_a_bare_tensor_is_no_table(tmp_path) -> None:
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(3), path)
    assert "it holds a Tensor" in refusal(path)
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert "it has no losses" in refusal(path)


def test_another_number_of_samples_is_said_with_both(tmp_path) -> None:
    path = save(tmp_path / "x.pt")
    assert refusal(path, num_samples=5) == (
        f"--irreducible {path} is of 3 training samples, but this run has 5; {REMEDY}"
    )


def test_other_data_of_equal_number_are_refused(tmp_path) -> None:
    message = refusal(save(tmp_path / "x.pt", data="0123456789abcdef"), data="fedcba9876543210")
    assert "is of other training data (fingerprint 01234567, this run's is fedcba98)" in message
    assert "--label-noise" in message


def test_losses_that_are_not_finite_are_counted(tmp_path) -> None:
    path = save(tmp_path / "x.pt", losses=torch.tensor([0.0, torch.nan, torch.inf]))
    assert refusal(path) == (f"--irreducible {path}: 2 of 3 losses are not finite; make it again with a lower --lr")


def test_a_disk_without_room_for_the_table_is_said_and_no_half_of_it_stays(tmp_path, monkeypatch) -> None:
    def full(table, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NotWritten, match=r"cannot be written to .*x\.pt: No space left on device; free space there"):
        write_table(tmp_path / "x.pt", {})
    assert not list(tmp_path.iterdir())
