"""Which cores the threads that talk use."""

import os
import threading

import pytest

from common.scheduling import TALKING_CORES, Elsewhere, talking_cores

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
needs_two = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores and pinning")


def cores_of_a_new_thread() -> set[int]:
    found: list[set[int]] = []
    thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
    thread.start()
    thread.join()
    return found[0]


@needs_two
@pytest.mark.parametrize(
    ("named", "expected"),
    [(str(CORES[-1]), {CORES[-1]}), ("", {CORES[0]}), ("nonsense", {CORES[0]}), (None, {CORES[0]})],
)
def test_threads_begun_inside_use_the_named_cores_and_the_caller_keeps_to_its_own(
    named: str | None, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TALKING_CORES, raising=False)
    if named is not None:
        monkeypatch.setenv(TALKING_CORES, named)
    os.sched_setaffinity(0, {CORES[0]})
    try:
        with talking_cores():
            assert cores_of_a_new_thread() == expected
        assert os.sched_getaffinity(0) == {CORES[0]}
    finally:
        os.sched_setaffinity(0, CORES)


@needs_two
@pytest.mark.parametrize("named", ["100000", "-1", "99999999999999999999"])
def test_cores_that_do_not_exist_leave_threads_where_they_are(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TALKING_CORES, named)
    with talking_cores():
        assert cores_of_a_new_thread() == set(CORES)


@needs_two
def test_a_thread_goes_elsewhere_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TALKING_CORES, str(CORES[1]))
    os.sched_setaffinity(0, {CORES[0]})
    try:
        elsewhere = Elsewhere()
        for wanted in (False, True, True, False):
            elsewhere.go(wanted)
            assert os.sched_getaffinity(0) == {CORES[1] if wanted else CORES[0]}
    finally:
        os.sched_setaffinity(0, CORES)
