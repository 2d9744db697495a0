"""The trainer processes that train one model together, as one of them sees it."""

import inspect
import io
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import ConfigError, MarginstreamError, RankLost
from common.shard import Shard

log = logging.getLogger(__name__)

T = TypeVar("T")

# In every forward pass, that is; by the name that this version of torch has for it.
_SYNCS_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)
SILENCE_S = 1800.0  # also the longest evaluation, during which the other ranks wait for rank 0


class EndedElsewhere(MarginstreamError):
    """Another rank found a reason to end and says it; this one ends with it, by the same exit code."""

    def __init__(self, rank: int, exit_code: int) -> None:
        super().__init__(f"rank {rank} could not go on; it says why")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Group:
    """Rank `rank` of `size`. Its collectives are for the start, the end and checkpoints: none belongs in a step.

    Every rank calls each of them in the same order, or all of them wait, for `SILENCE_S` at most. Values are tensors on
    the CPU, numbers, text, bool and None in nested dicts, lists and tuples; what arrives is data and never acts.

    All raise:
        RankLost: another rank has ended or is silent.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank evaluates, records, keeps the run folder and serves weights."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """The samples that this rank selects from."""
        return Shard(self.rank, self.size)

    @classmethod
    def current(cls) -> "Group":
        """Of this process: `ALONE` unless torch.distributed was initialised."""
        if not (dist.is_available() and dist.is_initialized()):
            return ALONE
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        own = _packed(value) if self.is_first else torch.empty(0, dtype=torch.uint8)
        with _lost_ranks_named(self):
            length = torch.tensor([len(own)], device=_device())
            dist.broadcast(length, src=0)
            packed = own if self.is_first else torch.empty(int(length), dtype=torch.uint8)
            moved = packed.to(_device())
            dist.broadcast(moved, src=0)
        return value if self.is_first else cast(T, _unpacked(moved))

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on every rank."""
        if self.size == 1:
            return [value]
        packed = _packed(value)
        with _lost_ranks_named(self):
            lengths = [torch.zeros(1, dtype=torch.int64, device=_device()) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(packed)], device=_device()))
            longest = max(int(length) for length in lengths)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(packed)] = packed
            gathered = [torch.empty(longest, dtype=torch.uint8, device=_device()) for _ in range(self.size)]
            dist.all_gather(gathered, padded.to(_device()))
        return [cast(T, _unpacked(each[: int(length)])) for each, length in zip(gathered, lengths, strict=True)]

    def collect(self, value: T) -> list[T]:
        """Every rank's value, by rank, at rank 0; [] elsewhere."""
        if self.size == 1:
            return [value]
        packed = _packed(value).to(_device())
        lengths = self.gather(len(packed))
        with _lost_ranks_named(self):
            if not self.is_first:
                dist.send(packed, 0)
                return []
            parts = [torch.empty(length, dtype=torch.uint8, device=_device()) for length in lengths[1:]]
            for rank, part in enumerate(parts, start=1):
                dist.recv(part, rank)
        return [value, *map(_unpacked, parts)]

    def await_all(self) -> None:
        """Wait until every rank has come here."""
        self.gather(None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Every rank comes through this block, or none does: an error of one, said by that one, ends all of them.

        Raises:
            EndedElsewhere: another rank raised a MarginstreamError inside. Where several did, the first rank's counts.
        """
        error: MarginstreamError | None = None
        try:
            yield
        except MarginstreamError as raised:
            if self.size == 1 or isinstance(raised, RankLost):
                raise
            error = raised
        is_own = error is not None and not isinstance(error, EndedElsewhere)
        found = self.gather((0 if error is None else error.exit_code, is_own))
        first = next((rank for rank, (_, is_its_own) in enumerate(found) if is_its_own), None)
        if first is None or first == self.rank:
            if error is not None:
                raise error
            return
        raise EndedElsewhere(first, found[first][0])

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, with gradients that are averaged over the ranks; rank 0's buffers count, so they stay apart."""
        if self.size == 1:
            return model
        own: dict[str, Any] = {_SYNCS_BUFFERS: False, "process_group": self._for_gradients(model)}
        try:
            return DistributedDataParallel(model, gradient_as_bucket_view=True, **own)
        except RuntimeError as error:
            raise_if_lost(self, error)
            raise

    def _for_gradients(self, model: nn.Module) -> dist.ProcessGroup | None:
        """NCCL where every rank has a GPU of its own.

        Raises:
            ConfigError: some ranks are on the CPU and others are not; by all ranks.
        """
        device = next(model.parameters()).device
        on = (device.type, socket.gethostname(), str(device))
        if device.type == "cuda":
            on = (*on[:2], str(torch.cuda.get_device_properties(device).uuid))
        all_on = self.gather(on)
        first = {kind: f"rank {rank} on {host} {kind}" for rank, (kind, host, _) in reversed([*enumerate(all_on)])}
        if len(first) > 1:
            raise ConfigError(
                f"--device: {', '.join(first.values())}; ranks train on one kind of device, so name it for all of them"
            )
        if device.type != "cuda" or dist.get_backend() != "gloo":
            return None
        if len(set(all_on)) == self.size:
            nccl = dist.new_group(backend="nccl", timeout=timedelta(seconds=SILENCE_S))
            assert isinstance(nccl, dist.ProcessGroup), "every rank is a member"
            return nccl
        log.warning("ranks share a GPU, so gradients go through main memory; a GPU for each is faster")
        return None


ALONE = Group()


@contextmanager
def _lost_ranks_named(group: Group) -> Iterator[None]:
    """A collective: what torch.distributed says of a rank that is gone, as an error for people."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(group, error) from error


def raise_if_lost(group: Group, error: RuntimeError) -> None:
    """Raise RankLost if this error is what torch.distributed says of a rank that is gone; others say more."""
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        raise _lost(group, error) from error


def _lost(group: Group, error: BaseException) -> RankLost:
    whose = f"rank {group.rank} of {group.size}"
    return RankLost(f"{whose}: another rank has ended or is silent, see its log ({in_a_line(error)})")


def in_a_line(error: BaseException) -> str:
    """The first sentence, without the place in torch's own source before it."""
    said = " ".join(str(error).split())
    return re.sub(r"\[\S+\.cc:\d+\] ", "", said).partition(". ")[0].rstrip(" .")


def _device() -> torch.device:
    """Where the default backend wants its tensors: a loop of people's own may have begun with NCCL alone."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _packed(value: object) -> Tensor:
    """(n,) uint8."""
    file = io.BytesIO()
    torch.save(value, file)
    return torch.frombuffer(bytearray(file.getbuffer()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    return torch.load(io.BytesIO(packed.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
