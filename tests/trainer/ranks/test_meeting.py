"""Where ranks listen: beside rank 0, told to scorers once all of them do, or not at all with a remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, EndpointError
from tests.trainer.ranks.groups import on_every_rank
from trainer.ranks import meeting
from trainer.ranks.group import ALONE, EndedElsewhere, Group
from trainer.ranks.meeting import Met, bound_together, check_listen


def met(size: int, listen: str | None, bind: Callable[[int, str], str], *, told: bool = True) -> list[Any]:
    def meet(group: Group) -> Met:
        return bound_together(group, listen if told or group.is_first else None, lambda asked: bind(group.rank, asked))

    return on_every_rank(size, meet)


def test_over_ipc_the_others_listen_beside_rank_0_and_nobody_is_named(tmp_path: Path) -> None:
    first = tmp_path / "t"

    def bind(rank: int, asked: str) -> str:
        Path(asked.removeprefix("ipc://")).touch()
        return asked

    assert met(3, f"ipc://{first}", bind, told=False) == [
        Met(f"ipc://{first}", f"ipc://{first}"),
        Met(f"ipc://{first}-1", f"ipc://{first}"),
        Met(f"ipc://{first}-2", f"ipc://{first}"),
    ]


@pytest.mark.parametrize(
    ("listen", "host", "asked"),
    [
        ("tcp://eth0:5555", "10.0.0.{}", "tcp://eth0:*"),
        ("tcp://10.0.0.1:*", "10.0.0.1", "tcp://10.0.0.1:*"),
        ("tcp://[fd00::1]:5555", "[fd00::1]", "tcp://[fd00::1]:*"),
        ("tcp://localhost:5555", "127.0.0.1", "tcp://127.0.0.1:*"),
    ],
)
def test_over_tcp_rank_0_names_the_others_by_number(listen: str, host: str, asked: str) -> None:
    asked_for: dict[int, str] = {}

    def bind(rank: int, endpoint: str) -> str:
        asked_for[rank] = endpoint
        return f"tcp://{host.format(rank)}:{6000 + rank}"

    first, *others = met(3, listen, bind)
    assert asked_for == {0: listen, 1: asked, 2: asked}
    assert first.ranks == (f"{host.format(1)}:6001", f"{host.format(2)}:6002")
    assert [other.ranks for other in others] == [(), ()]
    assert {one.first for one in (first, *others)} == {f"tcp://{host.format(0)}:6000"}
    assert others[1].own == f"tcp://{host.format(2)}:6002"


@pytest.mark.parametrize("broken", [0, 1])
def test_a_rank_that_cannot_listen_ends_all_of_them(broken: int) -> None:
    def bind(rank: int, asked: str) -> str:
        if rank == broken:
            raise EndpointError(f"cannot listen on {asked}")
        return f"tcp://10.0.0.1:{6000 + rank}"

    results = met(3, "tcp://10.0.0.1:5555", bind)
    assert [type(one) for one in results] == [EndpointError if rank == broken else EndedElsewhere for rank in range(3)]
    if broken:
        assert "trainer rank 1 on" in str(results[1])
        assert "several hosts name an interface that each of them has: --listen tcp://eth0:PORT" in str(results[1])


def test_ipc_on_another_host_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").touch()
    places = iter(["here 1 2", "there 1 2"])
    monkeypatch.setattr(meeting, "_place_of", lambda endpoint: endpoint and next(places))
    results = met(2, f"ipc://{tmp_path}/t", lambda rank, asked: asked)
    assert isinstance(results[0], EndedElsewhere)
    assert "is on another host than rank 0" in str(results[1])
    assert "--listen tcp://eth0:PORT" in str(results[1])


def test_a_file_of_the_same_name_elsewhere_is_another_place(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "missing")]
    for path in paths[:2]:
        path.touch()
    places = [meeting._place_of(f"ipc://{path}") for path in paths]
    assert len(set(places)) == 3
    assert meeting._place_of(f"ipc://{paths[0]}") == places[0]


def test_an_address_that_scorers_cannot_be_told_is_an_error_with_the_remedy() -> None:
    results = met(2, "tcp://eth0:*", lambda rank, asked: f"tcp://[fe80::1%eth0]:{6000 + rank}")
    assert isinstance(results[0], EndpointError)
    assert "give --listen the address of an interface" in str(results[0])
    assert isinstance(results[1], EndedElsewhere)


def test_all_interfaces_are_no_address_of_several_ranks() -> None:
    check_listen(ALONE, "tcp://0.0.0.0:5555")
    check_listen(Group(0, 2), "tcp://eth0:5555")
    with pytest.raises(ConfigError, match="all interfaces are no address; name one, as tcp://eth0:PORT"):
        check_listen(Group(1, 2), "tcp://0.0.0.0:5555")


def test_one_rank_alone_binds_and_asks_nobody() -> None:
    assert bound_together(ALONE, "ipc:///x/t", lambda asked: asked) == Met("ipc:///x/t", "ipc:///x/t")
