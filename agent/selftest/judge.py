"""What the figures of each check mean. Pure: figures from a worker -> a row.

The limits leave room for every card that works: they are ten times what rounding alone makes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.selftest.rows import FORMS, RUN_AGAIN, Row
from gpu_pool.types import Failed

Figures = Mapping[str, Any]
MIB = 1 << 20

ERROR_LIMITS = {"fp32": 3e-4, "fp16": 1e-2, "bf16": 6e-2}
"""The largest mean deviation from the CPU's float32, as a share of the values' own size, by precision."""
PSNR_LIMITS_DB = {"fp32": 45.0, "fp16": 35.0, "bf16": 25.0}
"""The least PSNR of a mouth in a precision against the same one computed otherwise."""
GARBAGE_DB = 20.0
"""Below, a mouth is no picture any more; above, weights that lose much by a precision may be the cause."""
ENCODED_LIMIT_DB, NVENC_LOSS_DB = 35.0, 6.0
"""The least PSNR of encoded pictures, and how much less than x264's NVENC's may be."""
SLOW_COPY_GB_S = 1.0
KEPT_LIMIT_BYTES = 256 * MIB
"""Memory of a card that may stay taken: workspaces of libraries, and what other programs take meanwhile."""

WRONG_NUMBERS = (
    "drain the card (`musedrop drain DEVICE`) and update its driver; if it goes on, its memory or its supply may be"
    " faulty: run `nvidia-smi -q -d ECC` and look for Xid errors in `dmesg`"
)
WRONG_ON_CPU = "update torch and its packages: pip install --upgrade '.[musetalk]'"
NO_MEMORY = "free memory (`nvidia-smi` lists what holds it), or stop the daemon meanwhile; then " + RUN_AGAIN
VERIFY = "run `musedrop models verify`"


def advise_on_numbers(kind: str) -> str:
    """Return what to do about wrong numbers of a device of this kind."""
    return WRONG_NUMBERS if kind == "cuda" else WRONG_ON_CPU


# which device --------------------------------------------------------------------------------------------------------


def judge_device(figures: Figures, card: str) -> Row:
    """Compare the worker's own view of its card with the driver's; `card` is its UUID, "" for a processor."""

    def build(verdict: Any, found: str, advice: str = "") -> Row:
        return Row("device", verdict, found, advice, figures, blames_card=True)

    if not card:
        bf16 = "computes bf16" if figures["bf16"] else "has no bf16, so float32 is used"
        return build("ok", f"{figures['count']} cores, {figures['threads']} threads a worker, {bf16}")
    if not figures["count"]:
        built = f"built for CUDA {figures['cuda']}" if figures["cuda"] else "built without CUDA"
        advice = "install a build of torch for this driver (https://pytorch.org), and " + RUN_AGAIN
        return build("bad", f"torch {figures['torch']} ({built}) finds no card, though the driver lists it", advice)
    is_known = card.startswith("GPU-") and figures["device"]
    if figures["count"] > 1 or (is_known and figures["device"] != card):
        seen = f"{figures['count']} cards, the first of them {figures['device']}"
        advice = "see that nothing sets CUDA_VISIBLE_DEVICES in a wrapper or sitecustomize, and restart the daemon"
        return build("bad", f"the worker for {card} sees {seen}", advice)
    memory = f"{figures['free_bytes'] / 2**30:.1f} of {figures['total_bytes'] / 2**30:.1f} GiB free"
    about = f"compute capability {figures['capability']}, CUDA {figures['cuda']}, {memory}"
    return build("ok", f"{figures['name']}, {figures['device'] or 'UUID unknown to torch'}: {about}")


# numbers -------------------------------------------------------------------------------------------------------------


def judge_networks(name: str, figures: Figures, precision: str, kind: str) -> Row:
    """Judge the errors of narrow networks against the CPU's float32."""
    limit, advice = ERROR_LIMITS[precision], advise_on_numbers(kind)
    endless = [net for net, one in figures.items() if not one["finite"]]
    worst = max(figures, key=lambda net: float(figures[net]["error"]))
    error = float(figures[worst]["error"])
    if endless:
        found = f"{', '.join(endless)} gave numbers that are not finite (NaN or infinity)"
        return Row(name, "bad", found, advice, figures, blames_card=True)
    found = f"largest error {error:.1e} of the CPU's float32 (limit {limit:.0e}), in {worst}"
    if error > limit:
        return Row(name, "bad", f"wrong numbers: {found}", advice, figures, blames_card=True)
    return Row(name, "ok", found, "", figures, blames_card=True)


def judge_precisions(figures: Figures, kind: str) -> Row:
    """Judge a mouth in the usual precision against the same in float32."""
    name, precision, wanted = "weights", figures["precision"], figures["wanted"]
    versus = f"{precision}, as jobs use it, against fp32 as published"
    if not figures["finite"]:
        found = f"the {describe(figures)} gave numbers that are not finite in {precision}"
        return Row(name, "bad", found, advise_on_numbers(kind), figures, blames_card=True)
    row = _judge_faces(name, figures, versus, kind)
    if row.verdict == "ok" and precision != wanted:
        advice = f"{VERIFY}; jobs run in {precision}, which may be slower"
        return Row(name, "note", f"{wanted} overflows with the {describe(figures)}; {row.found}", advice, figures)
    return row


def judge_batches(figures: Figures, kind: str) -> Row:
    """Judge the mouths of single frames against those of full batches."""
    return _judge_faces("batch sizes", figures, f"batch 1 against {figures['batch']}", kind)


def judge_compiled(figures: Figures, kind: str) -> Row:
    """Judge the mouths of compiled code against those of the networks as they are."""
    state = figures["state"]
    if state == "ready":
        return _judge_faces("compiled", figures, "compiled against not", kind, blames_card=False)
    if state == "cards only":
        return Row("compiled", "ok", "left out: code is compiled on cards only", "", figures)
    why = {"differs": "it gives other pictures", "failed": "it can't be compiled", "compiling": "it takes too long"}
    advice = 'leave out the option "compile"; a C compiler and the package triton are needed for it'
    return Row("compiled", "note", f"compiled code isn't used: {why.get(state, state)}", advice, figures)


def judge_forms(figures: Figures, kind: str) -> Row:
    """Show the milliseconds of a frame in each form of the networks, and which of them jobs run."""
    shown = "; ".join(
        f"{name} {one['unet_ms'] + one['decode_ms']:.1f}" + ("" if one["is_same"] else " (other pictures)")
        for name, one in figures["forms"].items()
    )
    is_chosen = kind == "cuda" and figures["networks"] == "installed"
    use = f'jobs on this type of card run "{figures["chosen"]}"' if is_chosen else "jobs run the usual form here"
    return Row(FORMS, "ok", f"milliseconds a frame ({describe(figures)}): {shown}; {use}", "", figures)


def _judge_faces(name: str, figures: Figures, versus: str, kind: str, *, blames_card: bool = True) -> Row:
    limit_db = PSNR_LIMITS_DB[figures["precision"]]
    mouth = f"PSNR of the mouth {figures['psnr_db']:.1f} dB, largest difference {figures['largest']} of 255 levels"
    found = f"{versus}: {mouth} ({describe(figures)}, {figures['frames']} frames)"
    if figures["psnr_db"] < limit_db:
        text = f"{found}; at least {limit_db:g} dB are right"
        is_garbage = blames_card and figures["psnr_db"] < GARBAGE_DB
        return Row(name, "bad", text, advise_on_numbers(kind), figures, blames_card=is_garbage)
    return Row(name, "ok", found, "", figures, blames_card=blames_card)


def describe(figures: Figures) -> str:
    """Return which networks ran."""
    return "installed weights" if figures["networks"] == "installed" else "tiny networks"


# several workers -----------------------------------------------------------------------------------------------------


def judge_workers(alone: Figures, together: list[Figures]) -> Row:
    """Judge two workers that painted the same frames at once, against one that did so before."""
    hashes = {one for figures in (alone, *together) for one in figures["hashes"]}
    figures = {"alone": alone, "together": together}
    times = max(float(one["seconds"]) for one in together) / max(float(alone["seconds"]), 1e-9)
    if len(hashes) > 1:
        found = f"the same frames came out in {len(hashes)} different ways ({describe(alone)})"
        advice = f"results of this card may differ from run to run: {RUN_AGAIN}; update the driver and torch"
        return Row("two workers", "bad", found, advice, figures)
    found = f"two at once take {times:.2f} times as long as one alone, and paint the same ({describe(alone)})"
    return Row("two workers", "ok", found, "", figures)


# memory and speed ----------------------------------------------------------------------------------------------------


def judge_memory(figures: Figures, kind: str) -> Row:
    """Judge what a worker holds before, while and after it has networks."""
    before, peak, after = (int(figures["memory_bytes"][when]) for when in ("before", "peak", "after"))
    found = f"before {before // MIB}, at the peak {peak // MIB}, after {after // MIB} MiB ({describe(figures)})"
    if kind == "cuda" and after > before + KEPT_LIMIT_BYTES:
        advice = "a worker is replaced after `pool.recycle_spans`; lower it, and report this with the table"
        return Row("memory", "note", f"not all is given back: {found}", advice, figures)
    return Row("memory", "ok", found, "", figures)


def judge_freed(held_bytes: int, kept_bytes: int, seconds: float, kind: str) -> Row:
    """Judge how much memory is still taken, `kept_bytes`, so long after a worker that held much was killed."""
    figures = {"held_bytes": held_bytes, "kept_bytes": kept_bytes, "seconds": round(seconds, 3)}
    where = "of the card" if kind == "cuda" else "of this machine"
    if kept_bytes > KEPT_LIMIT_BYTES:
        found = f"{kept_bytes // MIB} of {held_bytes // MIB} MiB {where} are not free {seconds:.0f} s after kill -9"
        advice = "end what `fuser -v /dev/nvidia*` lists, or reboot: the driver has not cleaned up"
        return Row("kill -9", "bad", found, advice, figures, blames_card=True)
    return Row("kill -9", "ok", f"{held_bytes // MIB} MiB {where} are free after {seconds:.1f} s", "", figures)


def judge_copies(figures: Figures, kind: str) -> Row:
    """Judge the speed of copies, GB/s by their way."""
    found = ", ".join(f"{way} {rate:.1f} GB/s" for way, rate in figures.items())
    if kind == "cuda" and min(figures.values()) < SLOW_COPY_GB_S:
        advice = "see that the card is in a full slot: `nvidia-smi -q | grep -A 8 'GPU Link Info'`"
        return Row("copies", "note", f"slow: {found}", advice, figures)
    return Row("copies", "ok", found, "", figures)


def judge_speed(figures: Figures) -> Row:
    """Show the frames a second of each stage."""
    found = ", ".join(f"{stage} {rate:.1f}" for stage, rate in figures["fps"].items())
    return Row("speed", "ok", f"frames a second ({describe(figures)}): {found}", "", figures)


def judge_encoders(figures: Figures, kind: str) -> list[Row]:
    """Judge each encoder by the pictures that come back."""
    return [row for name in figures if (row := _judge_encoder(name, figures, kind))]


def _judge_encoder(name: str, figures: Figures, kind: str) -> Row | None:
    one, check, is_x264 = figures[name], f"encoder {name}", name == "libx264"
    if one["state"] != "usable":
        advice = "reinstall the package av" if is_x264 else "libx264 is used instead, on the CPU"
        verdict: Any = "bad" if is_x264 else "note"
        return Row(check, verdict, one["state"], advice, one) if is_x264 or kind == "cuda" else None
    found = f"PSNR of decoded pictures {one['psnr_db']:.1f} dB, {one['fps']:.0f} frames a second"
    if one["psnr_db"] < ENCODED_LIMIT_DB:
        advice = "reinstall the package av" if is_x264 else 'set output.encoder = "libx264", and update the driver'
        return Row(check, "bad", f"damaged pictures: {found}", advice, one)
    x264_db = float(figures["libx264"].get("psnr_db", 0.0))
    if one["psnr_db"] < x264_db - NVENC_LOSS_DB:
        return Row(check, "note", f"{found}; libx264 has {x264_db:.1f} dB", 'set output.encoder = "libx264"', one)
    return Row(check, "ok", found, "", one)


# checks that failed --------------------------------------------------------------------------------------------------

TIME_UP = "timeout"
MINOR = ("compiled", "copies", "encoders", FORMS, "two workers")
"""Checks whose failure does not keep a card from working."""
OF_CARD = re.compile("CUDA|cuDNN|cuBLAS|NVRTC|HIP", re.IGNORECASE)
"""Words in an error of a card's libraries; any other error is a defect of this program, and no card's fault."""


def judge_failure(check: str, failed: Failed) -> Row:
    """Return the row of a check that ended without figures."""
    figures, hint = {"code": failed.code, "detail": failed.detail}, failed.hint
    if failed.code == TIME_UP:
        return Row(check, "note", f"left out: {failed.message}", RUN_AGAIN, figures)
    if failed.code == "out_of_memory":
        return Row(check, "note", f"left out, memory ran out: {failed.message}", hint or NO_MEMORY, figures)
    if failed.code == "engine_unavailable" or failed.code.startswith("weights_"):
        return Row(check, "bad", failed.message, hint or VERIFY, figures)
    if check in MINOR and failed.fault == "job":
        return Row(check, "note", f"it could not be checked: {failed.message}", "", figures)
    advice = "the worker's log in logs/selftest says more; look for Xid errors in `dmesg`, and " + RUN_AGAIN
    blames_card = check not in MINOR and (failed.fault == "worker" or bool(OF_CARD.search(failed.message)))
    return Row(check, "bad", f"it failed: {failed.message}", advice, figures, blames_card=blames_card)
