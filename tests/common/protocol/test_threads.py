"""Several threads of one process read messages at once, from the very first one on."""

import subprocess
import sys

from common.protocol import Goodbye, Heartbeat, Lease, Spent, Version, VersionHint, encode

ATTEMPTS, THREADS = 25, 16
READING = f"""
import os, sys, threading
from common.protocol import decode

received = [bytes.fromhex(line) for line in sys.stdin.read().split()]

def read():
    begin.wait()
    for head in received:
        decode([head])

for _ in range({ATTEMPTS}):
    if child := os.fork():  # each of them reads its first messages
        _, status = os.waitpid(child, 0)
        assert status == 0, f"a process that only reads ended with {{status}}"
        continue
    sys.setswitchinterval(1e-6)
    begin = threading.Barrier({THREADS})
    threads = [threading.Thread(target=read) for _ in range({THREADS})]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)
"""


def test_threads_that_read_their_first_messages_at_the_same_time_do_not_crash() -> None:
    messages = [
        Heartbeat(1, Version(1, 2), (1, 2), 3, Spent(1.0, 2.0, 3.0, 4.0, 5.0)),
        Lease(1, 1, 0, 64, b"", 0, 60.0),
        VersionHint(Version(1, 2), 100),
        Goodbye("over"),
    ]
    heads = "\n".join(bytes(encode(message)[0]).hex() for message in messages)
    reader = subprocess.run(
        [sys.executable, "-c", READING], input=heads, text=True, capture_output=True, timeout=60, check=False
    )
    assert reader.returncode == 0, reader.stderr
