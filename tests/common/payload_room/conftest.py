"""Both ends of a room, handed over or not yet."""

from collections.abc import Iterator

import pytest

from common.payload_room.area import IS_AVAILABLE
from tests.common.payload_room.ends import Ends


@pytest.fixture
def apart() -> Iterator[Ends]:
    if not IS_AVAILABLE:
        pytest.skip("no sealed memory on this system")
    with Ends() as ends:
        yield ends


@pytest.fixture
def ends(apart: Ends) -> Ends:
    apart.join()
    return apart
