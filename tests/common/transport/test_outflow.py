"""The kernel's room for what is sent: wider on the connections over which weights are asked for."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from common.buckets import BUCKET_BYTES
from common.open_files import socket_of
from common.transport import CONTROL, WEIGHTS
from tests.common.transport.sides import Side, introduced, raw_dealer

LIMITS = Path("/proc/sys/net/core")
pytestmark = pytest.mark.skipif(not (LIMITS / "wmem_max").exists(), reason="descriptors and limits as Linux has them")


def room(path: Path) -> list[int]:
    """Bytes that the kernel takes of what this process sends, for each connection that came in at this path."""
    rooms = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket_of(int(name)) as own:
            is_accepted = own.family == socket.AF_UNIX and not own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if is_accepted and own.getsockname() == str(path):
                rooms.append(own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
    return rooms


def test_a_connection_that_asked_for_weights_has_room_for_a_bucket_and_others_what_they_had(
    folder: Path, opened: contextlib.ExitStack
) -> None:
    trainer = Side()
    opened.callback(trainer.io.stop)
    for channel in (CONTROL, WEIGHTS):
        trainer.io.bind(channel, f"ipc://{folder}/{channel}")
    trainer.io.start()
    for channel in (CONTROL, WEIGHTS):
        introduced(trainer, raw_dealer(opened, f"ipc://{folder}/{channel}"))
    default, most = (int((LIMITS / f"wmem_{name}").read_text()) for name in ("default", "max"))
    assert room(folder / CONTROL) == [default]
    assert room(folder / WEIGHTS) == [max(default, 2 * min(most, BUCKET_BYTES))]
