"""A seccomp filter: the system calls that a worker never needs fail with EPERM. Written by hand: it has no loops.

https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

from gpu_pool.walls.privileges import call_prctl

_PR_SET_SECCOMP, _PR_GET_SECCOMP, _FILTER = 22, 21, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x10000
_X32 = 0x40000000
_EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "pidfd_send_signal": 424,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
}
_NAMES = (
    *("execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "socket", "socketpair", "connect"),
    *("bind", "listen", "accept", "accept4", "bpf", "mount", "umount2", "pivot_root", "chroot", "swapon", "swapoff"),
    *("reboot", "sethostname", "setdomainname", "init_module", "delete_module", "finit_module", "kexec_load"),
    *("unshare", "setns", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "kcmp"),
    *("personality", "open_by_handle_at", "name_to_handle_at", "quotactl", "acct", "settimeofday", "clock_settime"),
    *("adjtimex", "clock_adjtime", "syslog", "vhangup", "move_pages", "migrate_pages", "fanotify_init", "mknodat"),
    *("setsid", "setpgid", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "clone", "kill", "tgkill", "prlimit64"),
)
_X86_64 = (
    *(59, 322, 101, 310, 311, 41, 53, 42),
    *(49, 50, 43, 288, 321, 165, 166, 155, 161, 167, 168),
    *(169, 170, 171, 175, 176, 313, 246),
    *(272, 308, 298, 323, 250, 248, 249, 312),
    *(135, 304, 303, 179, 163, 164, 227),
    *(159, 305, 103, 153, 279, 256, 300, 259),
    *(112, 109, 200, 129, 297, 56, 62, 234, 302),
)
_AARCH64 = (
    *(221, 281, 117, 270, 271, 198, 199, 203),
    *(200, 201, 202, 242, 280, 40, 39, 41, 51, 224, 225),
    *(142, 161, 162, 105, 106, 273, 104),
    *(97, 268, 241, 282, 219, 217, 218, 272),
    *(92, 265, 264, 60, 89, 170, 112),
    *(171, 266, 116, 58, 239, 238, 262, 33),
    *(157, 154, 130, 138, 240, 220, 129, 131, 261),
)
_ONLY_X86_64 = {"fork": 57, "vfork": 58, "mknod": 133, "iopl": 172, "ioperm": 173, "modify_ldt": 154}
_NEEDED_BY_CUDA = {
    *("execve", "execveat", "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "setsid"),
    *("setpgid", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "clone", "clone3", "kill", "tgkill", "prlimit64"),
    *("fork", "vfork", "personality", "mknod", "mknodat", "move_pages", "migrate_pages", "kcmp", "pidfd_getfd"),
    *("userfaultfd", "pidfd_send_signal"),
}
"""A driver starts helpers and talks to its daemons; compilers of kernels are programs."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How the kernel names the machine, and the numbers of its system calls by name."""

    audit: int
    calls: dict[str, int]


MACHINES = {
    "x86_64": Machine(0xC000003E, {**dict(zip(_NAMES, _X86_64, strict=True)), **_EVERYWHERE, **_ONLY_X86_64}),
    "aarch64": Machine(0xC00000B7, {**dict(zip(_NAMES, _AARCH64, strict=True)), **_EVERYWHERE}),
}


def restrict_calls(*, is_alone: bool) -> str:
    """Forbid this thread, and those it starts, what a worker never needs.

    With `is_alone` also programs, processes, sockets and signals to others; threads stay. Requires
    that it can gain no privileges any more. Return "" or why it can't be done here.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        return f"there is no list of system calls for {platform.machine()}: workers may use all of them"
    calls = {name: number for name, number in machine.calls.items() if is_alone or name not in _NEEDED_BY_CUDA}
    program = _build_program(machine.audit, calls, os.getpid())
    code = ctypes.create_string_buffer(b"".join(program), 8 * len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    if call_prctl(_PR_SET_SECCOMP, _FILTER, ctypes.addressof(head)) != 0:
        return f"the kernel refused a filter of system calls: {os.strerror(ctypes.get_errno())}"
    return ""


def has_seccomp() -> bool:
    """Whether this kernel filters system calls, and they are known for this machine."""
    return platform.machine() in MACHINES and call_prctl(_PR_GET_SECCOMP) >= 0


def _build_program(audit: int, calls: dict[str, int], pid: int) -> list[bytes]:
    """Return the filter. What it forbids fails with EPERM; another kind of machine kills."""
    refuse, missing = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    program = [
        _step(_LOAD, _MACHINE_AT),
        _step(_EQUAL, audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, refuse),
    ]
    special = {
        "clone": _allow_threads(refuse),
        "clone3": [_step(_RETURN, missing)],
    }  # clone3: the C library tries clone
    special |= {name: _allow_arguments((pid, 0), refuse) for name in ("kill", "prlimit64")}
    special["tgkill"] = _allow_arguments((pid,), refuse)
    for name, number in calls.items():
        body = special.get(name, [_step(_RETURN, refuse)])
        program += [_step(_EQUAL, number, 0, len(body)), *body]
    return [*program, _step(_RETURN, _ALLOW)]


def _allow_threads(refuse: int) -> list[bytes]:
    load = _step(_LOAD, _FIRST_ARGUMENT_AT)
    return [load, _step(_ANY_BIT, _CLONE_THREAD, 0, 1), _step(_RETURN, _ALLOW), _step(_RETURN, refuse)]


def _allow_arguments(values: tuple[int, ...], refuse: int) -> list[bytes]:
    """Allow a call whose first argument, of 32 bits, is one of these."""
    body = [_step(_LOAD, _FIRST_ARGUMENT_AT)]
    for value in values:
        body += [_step(_EQUAL, value, 0, 1), _step(_RETURN, _ALLOW)]
    return [*body, _step(_RETURN, refuse)]


def _step(code: int, value: int, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, on_true, on_false, value)
