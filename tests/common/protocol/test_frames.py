"""The frames of a message: sizes, tags, and a source that runs nothing received."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec import msgpack

import common.protocol
from common.errors import ProtocolError
from common.protocol import MAGIC, Array, Candidates, Goodbye, Lease, Limits, Version, decode, encode, pack_mask
from tests.common.protocol.examples import with_payload


@pytest.mark.parametrize("mask", [b"", pack_mask(np.ones(128, dtype=bool))], ids=["all wanted", "masked"])
def test_640_candidates_by_reference_cost_at_most_16_bytes_each_in_both_directions(mask):
    total = 0
    for chunk in range(5):
        start = 10**12 + 128 * chunk
        lease = Lease(10**9 + chunk, 1000, start, start + 128, mask, 10**7, 60.0)
        scores = (Array.of(np.full(128, 0.1, dtype=np.float32)),)
        answer = Candidates(lease.lease, Version(1000, 10**7), 128, b"", scores, 0.1, 0.2, 0.3, 0.4)
        sizes = [[len(frame) for frame in encode(message)] for message in (lease, answer)]
        assert len(sizes[1]) == 1, "small scores travel within the header"
        assert sizes[0][0] + sizes[1][0] < 140 + len(mask) + 4 * 128
        total += sum(sizes[0] + sizes[1])
    assert total / 640 <= 16


def test_frames_and_messages_past_their_size_are_refused_on_both_sides():
    payload = with_payload()
    for limits in (Limits(max_frame_bytes=6143), Limits(max_total_bytes=6200), Limits(max_frames=1)):
        with pytest.raises(ProtocolError):
            encode(payload, limits)
        with pytest.raises(ProtocolError):
            decode(encode(payload), limits)
    with pytest.raises(ProtocolError, match="header has at most"):
        decode([MAGIC + b"\x0c" + msgpack.encode([""]) + bytes(3 << 15)])


def test_unknown_types_and_other_magic_are_refused():
    for tag in (MAGIC, MAGIC + b"\x00", MAGIC + b"\x11", b"MGT\x01", b""):
        with pytest.raises(ProtocolError, match="first frame"):
            decode([tag + msgpack.encode([""])])


def test_goodbye_works_without_buffers_and_with_memoryviews():
    frames = encode(Goodbye("done"))
    assert decode([memoryview(frame) for frame in frames]) == Goodbye("done")


SOURCES = sorted(Path(common.protocol.__file__).parent.glob("*.py"))

ALLOWED = {"collections", "common", "contextlib", "dataclasses", "functools", "math", "msgspec", "numpy", "re"}
ALLOWED |= {"ipaddress", "reprlib", "typing"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_source_neither_unpickles_nor_evaluates_nor_imports_by_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in ALLOWED
        elif isinstance(node, ast.Name):
            assert node.id not in {"eval", "exec", "compile", "__import__", "open", "globals", "setattr"}
        elif isinstance(node, ast.Attribute):
            assert node.attr not in {"load", "loads", "fromfile", "memmap", "eval", "exec", "import_module"}


def test_importing_the_protocol_brings_neither_torch_nor_sockets():
    code = "import sys, common.protocol; print({'torch', 'zmq', 'socket', 'pydantic'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "set()"
