"""Which number format UNet and VAE run in."""

from __future__ import annotations

from typing import Literal, cast

import torch

Precision = Literal["auto", "fp32", "fp16", "bf16"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def candidate_dtypes(wanted: Precision, kind: str, *, cpu_bf16: bool) -> tuple[torch.dtype, ...]:
    """Return what to try, in this order, until a probe is finite.

    fp16 has no fast path on a CPU, which takes the more exact fp32 where fp16 is asked for.

    kind      "cpu" or "cuda"
    cpu_bf16  whether this CPU multiplies bf16, see `has_cpu_bf16`

    >>> candidate_dtypes("auto", "cuda", cpu_bf16=False)
    (torch.float16, torch.bfloat16, torch.float32)
    >>> candidate_dtypes("fp16", "cpu", cpu_bf16=False)
    (torch.float32,)
    """
    half, brain, full = torch.float16, torch.bfloat16, torch.float32
    if wanted == "fp32":
        return (full,)
    if kind == "cuda":
        return (brain, full) if wanted == "bf16" else (half, brain, full)
    return (brain,) if wanted == "bf16" or (wanted == "auto" and cpu_bf16) else (full,)


def find_wider(dtype: torch.dtype, *, bf16: bool = True) -> torch.dtype | None:
    """Return the next precision with a larger range, for numbers that overflow; None for fp32.

    `bf16` tells whether the device has it, see `has_device_bf16`.
    """
    wider = torch.bfloat16 if bf16 else torch.float32
    return {torch.float16: wider, torch.bfloat16: torch.float32}.get(dtype)


def has_device_bf16(device: torch.device) -> bool:
    """Whether the device runs bf16: cards do from Ampere on, and any CPU does, if slowly."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def has_cpu_bf16() -> bool:
    """Whether this processor has instructions for bf16 (avx512_bf16 or AMX) and this build of torch uses them."""
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.backends.mkldnn.is_available() and bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def choose_precision(device: torch.device) -> Precision:
    """Return what "auto" begins with on a device."""
    return precision_name(candidate_dtypes("auto", device.type, cpu_bf16=has_cpu_bf16())[0])


def best_precision() -> Precision:
    """Return what "auto" begins with on this machine: on a card that torch can use, else on the CPU."""
    return choose_precision(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def precision_name(dtype: torch.dtype) -> Precision:
    """Return the name that the option `precision` has for it: "fp32", "fp16", "bf16"."""
    return cast("Precision", next(name for name, known in DTYPES.items() if known == dtype))
