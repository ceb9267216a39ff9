"""Limits of a process, and the privileges that it gives up."""

from __future__ import annotations

import ctypes
import os
import resource
import struct

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 4, 24, 38, 47, 4
_CAPABILITIES, _CAPABILITY_VERSION = 64, 0x20080522
_CAPABILITY_SETS = struct.Struct("6I")
"""Effective, permitted and inheritable, of the first 32 capabilities and of the others."""
_READ_ALL = 1 << 2
"""CAP_DAC_READ_SEARCH."""
MOST_THREADS = 16_384
"""Of all processes of the user: a machine with many cores and cards has some thousand."""


def forbid_tracing() -> None:
    """Have the kernel refuse other processes of this user to trace this one, and to read its memory."""
    call_prctl(_PR_SET_DUMPABLE, 0)


def keep_privileges_here() -> None:
    """Let programs that this process starts from now on have none of its capabilities."""
    call_prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)


def limit_resources(memory_bytes: int, file_bytes: int) -> None:
    """Write no core dump; limit threads, the size of a file, and memory beyond the machine's own."""
    installed = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NPROC, MOST_THREADS)
    if file_bytes:
        _lower(resource.RLIMIT_FSIZE, file_bytes)
    if memory_bytes:
        _lower(resource.RLIMIT_AS, installed + memory_bytes)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (least, least))


def drop_privileges() -> None:
    """Give up all capabilities for ever, and those that a program could bring.

    Only where the daemon runs as root the worker may still read files of others, as media may be.
    """
    call_prctl(_PR_SET_NO_NEW_PRIVS, 1)
    keep_privileges_here()
    for capability in range(_CAPABILITIES):
        call_prctl(_PR_CAPBSET_DROP, capability)  # refused to those who have none anyway
    libc, head = ctypes.CDLL(None), struct.pack("Ii", _CAPABILITY_VERSION, 0)
    had = ctypes.create_string_buffer(_CAPABILITY_SETS.size)
    libc.capget(head, had)
    _, permitted, *_ = _CAPABILITY_SETS.unpack(had.raw)
    kept = permitted & _READ_ALL if os.geteuid() == 0 else 0
    libc.capset(head, _CAPABILITY_SETS.pack(kept, kept, 0, 0, 0, 0))


def call_prctl(*args: int) -> int:
    """Return what the kernel answers, -1 for an error, which is in `ctypes.get_errno`."""
    values = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)[:5]]
    return int(ctypes.CDLL(None, use_errno=True).prctl(*values))
