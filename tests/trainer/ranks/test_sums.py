"""Nested numbers of several ranks, added up."""

from collections import Counter

import torch

from trainer.ranks.sums import summed, zeroed

STATE = {"steps": 3, "s": 0.5, "bytes": (1, 2), "seen": Counter({"a": 1}), "num": torch.tensor(4)}
OTHER = {"steps": 4, "s": 1.0, "bytes": (10, 20), "seen": Counter({"b": 2, "a": 5}), "num": torch.tensor(5)}


def test_numbers_are_added_wherever_they_are() -> None:
    total = summed([STATE, OTHER])
    assert total["num"].item() == 9
    assert {**total, "num": 9} == {"steps": 7, "s": 1.5, "bytes": (11, 22), "seen": {"a": 6, "b": 2}, "num": 9}
    assert summed([STATE]) == {**STATE, "seen": {"a": 1}}


def test_nothing_is_as_much_of_everything_but_of_what_was_only_seen() -> None:
    nothing = zeroed(STATE)
    assert {**nothing, "num": int(nothing["num"])} == {"steps": 0, "s": 0.0, "bytes": (0, 0), "seen": {}, "num": 0}
    assert summed([STATE, nothing])["bytes"] == (1, 2)
