"""What ranks say to each other, and how an error of one ends all of them."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import ConfigError, EndpointError, MarginstreamError, RankLost
from tests.trainer.ranks.groups import on_every_rank
from trainer.ranks.group import ALONE, EndedElsewhere, Group, _packed, _unpacked, raise_if_lost


def test_what_travels_between_ranks_arrives_as_it_was() -> None:
    value = {"a": [1, 2.5, None, True, "text"], 3: (torch.arange(3), {"b": float("inf")})}
    arrived = _unpacked(_packed(value))
    assert arrived["a"] == value["a"]
    assert torch.equal(arrived[3][0], torch.arange(3))
    assert arrived[3][1] == {"b": float("inf")}


@pytest.mark.parametrize("value", [np.float64(1), print, object()])
def test_nothing_that_acts_arrives(value: object) -> None:
    with pytest.raises(Exception, match=r"(?i)weights"):
        _unpacked(_packed(value))


def test_one_rank_talks_to_nobody() -> None:
    model = torch.nn.Linear(1, 1)
    assert ALONE.share(3) == 3
    assert ALONE.gather(3) == ALONE.collect(3) == [3]
    assert ALONE.wrap(model) is model
    with pytest.raises(ConfigError), ALONE.together():
        raise ConfigError("as it is")


def together(*errors: MarginstreamError | None) -> list[Any]:
    """How each rank comes out of a block in which some raise."""

    def do(group: Group) -> str:
        with group.together():
            if (error := errors[group.rank]) is not None:
                raise error
        return "through"

    return on_every_rank(len(errors), do)


def test_without_an_error_all_ranks_come_through() -> None:
    assert together(None, None, None) == ["through"] * 3


def test_an_error_of_one_rank_ends_all_by_its_exit_code_and_is_said_by_that_one() -> None:
    error = EndpointError("port 1 is in use")
    first, second, third = together(None, error, None)
    assert second is error
    for other in (first, third):
        assert isinstance(other, EndedElsewhere)
        assert (other.exit_code, str(other)) == (2, "rank 1 could not go on; it says why")


def test_what_all_ranks_find_wrong_is_said_by_the_first() -> None:
    first, second = together(ConfigError("--data: no such folder"), ConfigError("--data: no such folder"))
    assert isinstance(first, ConfigError)
    assert isinstance(second, EndedElsewhere)


def nested(group: Group) -> None:
    with group.together(), group.together():
        if group.rank == 1:
            raise ConfigError("only here")


def test_an_error_within_two_such_blocks_is_still_said_by_the_rank_that_found_it() -> None:
    first, second = on_every_rank(2, nested)
    assert isinstance(first, EndedElsewhere)
    assert isinstance(second, ConfigError)


def test_ranks_on_different_kinds_of_devices_are_refused_by_all_of_them() -> None:
    """Else those on GPUs would wait for the others to open a group for NCCL."""

    def wrap(group: Group) -> None:
        group._for_gradients(torch.nn.Linear(1, 1, device="meta" if group.rank == 2 else "cpu"))

    for error in on_every_rank(3, wrap):
        assert isinstance(error, ConfigError)
        assert re.match(r"--device: rank 2 on \S+ meta, rank 0 on \S+ cpu; ranks train on one kind", str(error))


def test_a_rank_that_is_lost_is_not_asked_about_it() -> None:
    """It would not answer."""
    asked: list[object] = []

    class Deaf(Group):
        def gather(self, value: Any) -> list[Any]:
            asked.append(value)
            return [value]

    with pytest.raises(RankLost), Deaf(0, 2).together():
        raise RankLost("rank 1 has ended")
    assert asked == []


def test_what_torch_says_of_a_rank_that_is_gone_is_said_in_a_line() -> None:
    said = (
        "[/torch/gloo/tcp/pair.cc:545] Connection closed by peer [127.0.0.1]:9097. This is\ntypically caused by a bug."
    )
    with pytest.raises(RankLost) as raised:
        raise_if_lost(Group(0, 2), RuntimeError(said))
    assert str(raised.value) == (
        "rank 0 of 2: another rank has ended or is silent, see its log (Connection closed by peer [127.0.0.1]:9097)"
    )
