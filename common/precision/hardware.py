"""What this machine's processor computes in by instructions of its own."""

from functools import cache

import torch

BF16 = ("amx_bf16", "amx_tile", "avx512_bf16", "arm_bf16", "bf16")
INT8 = ("amx_int8", "amx_tile", "avx512_vnni", "avx_vnni", "arm_i8mm", "i8mm")


def cpu_has_bf16() -> bool:
    """Whether bfloat16 products have instructions. Without them torch emulates them, slower than float32."""
    return any(_capabilities().get(name, False) for name in BF16)


def cpu_has_int8() -> bool:
    """Whether 8-bit products have instructions (VNNI, AMX and the like); without them int8 gains far less."""
    return any(_capabilities().get(name, False) for name in INT8)


@cache
def _capabilities() -> dict[str, bool]:
    told = getattr(torch.cpu, "get_capabilities", None)
    if told is not None:
        return {name: value is True for name, value in told().items()}
    asked = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_tile": "_is_amx_tile_supported"}
    asked["avx512_vnni"] = "_is_vnni_supported"
    return {name: bool(getattr(torch.cpu, function, bool)()) for name, function in asked.items()}
