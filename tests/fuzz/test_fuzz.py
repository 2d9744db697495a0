"""Generated and mutated messages against both ends: no crash, no hang, memory flat, correct peers unaffected.

`python -m pytest tests/fuzz -m slow` says more than 200,000 of them.
"""

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.fuzz.scorer_end import ScorerEnd
from tests.fuzz.trainer_end import TrainerEnd
from tests.fuzz.wires import resident_bytes

MIB = 1 << 20
ENDS: dict[str, Callable[[int], TrainerEnd | ScorerEnd]] = {
    "a trainer that gets scores": TrainerEnd,
    "a trainer that gets samples": lambda seed: TrainerEnd(seed, "payload"),
    "a scorer": ScorerEnd,
}
ends = pytest.mark.parametrize("make", ENDS.values(), ids=ENDS)


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """What is written to the log is not what is tested; keeping it would look like a leak."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@ends
@pytest.mark.parametrize("seed", [1], ids="seed {}".format)
def test_nonsense_ends_neither_side_and_correct_peers_go_on(
    seed: int, make: Callable[[int], TrainerEnd | ScorerEnd]
) -> None:
    end = make(seed)
    end.run(700)
    end.check()


@pytest.mark.slow
@pytest.mark.timeout(900)
@ends
@pytest.mark.parametrize("seed", [11, 12], ids="seed {}".format)
def test_forty_thousand_messages_leave_memory_flat(seed: int, make: Callable[[int], TrainerEnd | ScorerEnd]) -> None:
    end = make(seed)
    end.run(8_000)
    before = resident_bytes()
    end.run(40_000)
    end.check()
    assert resident_bytes() - before < 8 * MIB
