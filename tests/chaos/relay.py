"""A relay between a trainer and its scorers that a test slows, stalls, cuts and heals: a network without one.

Scorers connect to `endpoint`; each channel of theirs has a socket of its own there, and what they say goes on to the
trainer's socket of that channel. One thread moves all bytes.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from common.endpoints import weights_endpoint

CONTROL, WEIGHTS = "control", "weights"
PIECE_BYTES = 1 << 14
WITHIN_S = 10.0


class Relay:
    """Between `ipc://PATH` of a trainer and `ipc://PATH.relay`.

    Attributes:
        endpoint: where scorers connect.
        to_scorers: bytes that have gone on to scorers, by channel.
        delay_s: how much later each piece goes on, in both directions.
        stall_after: by channel, the number of bytes to scorers after which nothing goes on any more.
        is_stalled: something was kept from them since.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = f"{endpoint}.relay"
        self._paths = {
            CONTROL: (self.endpoint, endpoint),
            WEIGHTS: (weights_endpoint(self.endpoint, 0), weights_endpoint(endpoint, 0)),
        }
        self.to_scorers = {CONTROL: 0, WEIGHTS: 0}
        self.delay_s = 0.0
        self.stall_after: dict[str, int] = {}
        self.is_stalled = False
        self._is_open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cut()
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WITHIN_S)
        self._loop.close()

    def cut(self) -> None:
        """Every connection breaks, and no new one leads anywhere."""
        self._is_open = False
        self._call(self._break)

    def heal(self) -> None:
        """All as at the beginning."""
        self.stall_after.clear()
        self.delay_s, self._is_open, self.is_stalled = 0.0, True, False

    # -- on its own thread --------------------------------------------------------------------------------------------

    def _call(self, make: Callable[[], "asyncio.Future[None] | object"]) -> None:
        asyncio.run_coroutine_threadsafe(make(), self._loop).result(WITHIN_S)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._servers = [
            await asyncio.start_unix_server(self._accept(channel, _path(far)), _path(near))
            for channel, (near, far) in self._paths.items()
        ]

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _break(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _accept(self, channel: str, far: Path) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            with contextlib.suppress(OSError):
                if self._is_open:
                    far_reader, far_writer = await asyncio.open_unix_connection(far)
                    self._writers.add(far_writer)
                    await asyncio.gather(self._move(reader, far_writer, None), self._move(far_reader, writer, channel))
                    self._writers.discard(far_writer)
            writer.transport.abort()
            self._writers.discard(writer)

        return accepted

    async def _move(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: str | None) -> None:
        """Until one side ends; then the other one does."""
        try:
            while piece := await reader.read(PIECE_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while counted is not None and self.to_scorers[counted] >= self.stall_after.get(counted, 1 << 60):
                    self.is_stalled = True
                    await asyncio.sleep(0.01)
                if counted is not None:
                    self.to_scorers[counted] += len(piece)
                writer.write(piece)
                await writer.drain()
        finally:
            writer.transport.abort()


def _path(endpoint: str) -> Path:
    return Path(endpoint.removeprefix("ipc://"))
