"""Which endpoints are taken, refused, freed and found."""

import contextlib
import os
from pathlib import Path

import pytest

from common.endpoints import bound_endpoint, claim_ipc_path, port_of, rank_endpoint, weights_endpoint
from common.errors import EndpointError
from common.security.credentials import Credentials
from common.security.gate import Gate
from common.security.keygen import make_folder
from common.transport import CONTROL
from tests.common.transport.sides import Side, scorer, trainer, until


@pytest.mark.parametrize("port", ["0", "*"])
def test_the_system_chooses_a_free_tcp_port(port: str, opened: contextlib.ExitStack) -> None:
    _, first = trainer(opened, f"tcp://127.0.0.1:{port}")
    _, second = trainer(opened, f"tcp://127.0.0.1:{port}")
    assert first.startswith("tcp://127.0.0.1:")
    assert port_of(first) != port_of(second)
    assert port_of(first) > 0


def test_an_endpoint_in_use_is_refused_and_its_owner_keeps_it(endpoint: str, opened: contextlib.ExitStack) -> None:
    server, bound = trainer(opened, endpoint)
    with pytest.raises(EndpointError, match=rf"{bound}.*choose another --listen"):
        trainer(opened, bound)
    client = scorer(opened, bound)
    until(lambda: client.send(CONTROL, [b"hello"]) is not False)
    assert server.recorder.next()[2] == [b"hello"]


def test_an_endpoint_is_free_again_when_its_owner_has_stopped(endpoint: str, opened: contextlib.ExitStack) -> None:
    first, bound = trainer(opened, endpoint)
    first.io.stop()
    trainer(opened, bound)


def test_an_interface_that_is_named_is_listened_to_at_its_ipv4_address(
    opened: contextlib.ExitStack, tmp_path: Path
) -> None:
    """Also where it has IPv6 ones, as loopback does on most machines. An interface by name wants keys."""
    make_folder(tmp_path / "keys")
    server, bound = trainer(opened, "tcp://lo:*", security=Gate(tmp_path / "keys"))
    assert bound.startswith("tcp://127.0.0.1:")
    client = scorer(opened, bound, security=Credentials(tmp_path / "keys"))
    until(lambda: client.send(CONTROL, [b"hello"]) is not False)
    assert server.recorder.next()[2] == [b"hello"]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_an_ipc_folder_that_others_may_enter_is_refused(mode: int, folder: Path) -> None:
    lax = folder / "lax"
    lax.mkdir()
    lax.chmod(mode)
    side = Side()
    with pytest.raises(EndpointError, match=r"must be yours alone, mode 0700 .*lax/marginstream/t"):
        side.io.bind(CONTROL, f"ipc://{lax}/t")
    side.io.stop()
    assert list(lax.iterdir()) == []


def test_a_missing_ipc_folder_is_made_private(folder: Path, opened: contextlib.ExitStack) -> None:
    trainer(opened, f"ipc://{folder}/new/t")
    assert (folder / "new").stat().st_mode & 0o777 == 0o700


def test_an_ipc_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(EndpointError, match=f"cannot make folder {folder}/file/deeper"):
        claim_ipc_path(folder / "file" / "deeper" / "t")


def test_an_ipc_path_past_the_systems_limit_is_refused_before_it_is_cut(folder: Path) -> None:
    with pytest.raises(EndpointError, match="longer than 100 bytes"):
        claim_ipc_path(folder / ("x" * 100))


def test_a_claim_is_released_with_its_descriptor(folder: Path) -> None:
    claim = claim_ipc_path(folder / "t")
    with pytest.raises(EndpointError, match="in use by another trainer"):
        claim_ipc_path(folder / "t")
    os.close(claim)
    os.close(claim_ipc_path(folder / "t"))


@pytest.mark.parametrize(
    ("asked", "reported", "bound"),
    [
        ("tcp://127.0.0.1:*", "tcp://[::ffff:127.0.0.1]:7", "tcp://127.0.0.1:7"),
        ("tcp://localhost:0", "tcp://[::ffff:127.0.0.1]:7", "tcp://localhost:7"),
        ("tcp://[::1]:0", "tcp://[::1]:7", "tcp://[::1]:7"),
        ("tcp://eth0:5", "tcp://[::ffff:192.0.2.1]:5", "tcp://192.0.2.1:5"),
        ("tcp://eth0:5", "tcp://[2001:db8::1]:5", "tcp://[2001:db8::1]:5"),
        ("ipc:///run/m/t", "ipc:///run/m/t", "ipc:///run/m/t"),
    ],
)
def test_scorers_are_told_an_address_that_they_can_connect_to(asked: str, reported: str, bound: str) -> None:
    assert bound_endpoint(asked, reported) == bound


@pytest.mark.parametrize(
    ("control", "port", "weights"),
    [
        ("ipc:///run/m/t", 0, "ipc:///run/m/t.w"),
        ("tcp://127.0.0.1:5000", 6000, "tcp://127.0.0.1:6000"),
        ("tcp://[::1]:5000", 6000, "tcp://[::1]:6000"),
        ("tcp://localhost:5000", 6000, "tcp://localhost:6000"),
    ],
)
def test_the_weights_channel_is_beside_the_control_channel(control: str, port: int, weights: str) -> None:
    assert weights_endpoint(control, port) == weights
    assert port_of(weights) == port


def test_other_ranks_lie_beside_the_first_on_ipc_and_where_they_are_named_on_tcp() -> None:
    assert rank_endpoint("ipc:///run/m/t", 12) == "ipc:///run/m/t-12"
    assert rank_endpoint("tcp://node-0:5555", 12, "[fe80::2]:6666") == "tcp://[fe80::2]:6666"
