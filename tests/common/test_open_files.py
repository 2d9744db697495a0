"""The soft limit on open files is raised as far as the system lets anybody raise it."""

import resource
from collections.abc import Iterator

import pytest

from common.open_files import MOST, allow_many_open_files


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
