"""On which device a rank trains."""

import torch

from common.devices import pick_device
from common.errors import ConfigError
from trainer.ranks.environment import local_rank, num_ranks, rank


def rank_device(name: str) -> torch.device:
    """The device of a name; of several ranks on a host, `auto` and `cuda` give each a GPU of its own.

    A host that shows each of its ranks one GPU only is fine.

    Raises:
        ConfigError: the device does not exist on this machine.
    """
    if num_ranks() == 1:
        return pick_device(name)
    num = torch.cuda.device_count()
    if name not in ("auto", "cuda") or num == 0:
        device = pick_device(name)
    elif num > 1 and local_rank() >= num:
        raise ConfigError(
            f"--device {name}: rank {rank()} is number {local_rank()} on its host, which has {num} CUDA devices; start "
            "fewer ranks there, or use --device cpu"
        )
    else:
        device = torch.device("cuda", local_rank() if num > 1 else 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
