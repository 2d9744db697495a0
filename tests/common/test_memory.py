"""Memory that is freed and allocated again costs no new pages."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import numpy as np
from common.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(20 << 20, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""


def faults(how: str, **environment: str) -> list[str]:
    outcome = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return outcome.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_blocks_of_the_same_size_are_allocated_without_new_pages() -> None:
    default = int(faults("default", MALLOC_TRIM_THRESHOLD_="0")[1])
    kept, num_faults = faults("kept")
    assert kept == "True"
    assert int(num_faults) < 100 < default


def test_thresholds_that_people_chose_stay() -> None:
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
