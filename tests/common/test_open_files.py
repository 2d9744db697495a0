"""The soft limit on open files is raised as far as the system lets anybody raise it; handles of our own on sockets."""

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.open_files import MOST, allow_many_open_files, socket_of


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_low_soft_limit_is_raised_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    allow_many_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(MOST, hard), hard)


def test_a_high_soft_limit_stays() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= MOST:
        pytest.skip(f"this system allows no more than {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    allow_many_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_handle_on_a_socket_is_its_own_and_none_is_left_of_what_is_no_socket() -> None:
    one, other = socket.socketpair()
    with one, other:
        with socket_of(one.fileno()) as handle:
            assert handle.fileno() != one.fileno()
            handle.send(b"x")
        assert other.recv(1) == b"x"
        one.send(b"y")  # still open
    before = len(os.listdir("/dev/fd"))
    with Path(__file__).open() as file, pytest.raises(OSError, match="socket"):
        socket_of(file.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        socket_of(one.fileno())
    assert len(os.listdir("/dev/fd")) == before
