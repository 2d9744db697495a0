"""How long a GPU stands still while training steps run, by the times of its kernels."""

from collections.abc import Callable, Iterable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def idle_fraction(work: Callable[[], object]) -> float:
    """Share of the time, from the first kernel of `work` to the last, in which no kernel or copy runs. CUDA.

    Kernels and copies of this process on any stream, as CUPTI saw them; those of other processes on the same GPU do not
    count. So this is time in which the GPU waits for a batch, for Python, for the GIL or for a launch, between steps
    and within them. Tracing costs the host a little at each launch: compare with the same of other work.

    Args:
        work: tens of steps, on the current device, which has run some before.

    Raises:
        ValueError: no kernel was seen.
    """
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return idle_share(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )


def idle_share(spans: Iterable[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that is in none of the spans; they may overlap."""
    ordered = sorted(spans)
    if not ordered:
        raise ValueError("no kernel was seen; may this process use CUPTI (NVreg_RestrictProfilingToAdminUsers=0)?")
    began = busy_until = ordered[0][0]
    idle = 0.0
    for start, end in ordered:
        idle += max(0.0, start - busy_until)
        busy_until = max(busy_until, end)
    return idle / max(busy_until - began, 1e-9)
