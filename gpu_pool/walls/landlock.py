"""Landlock: which files this process may open, by folders. Three system calls and four structures.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on all machines that Python runs on but Alpha."""
_VERSION, _PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SINCE = {_REFER: 2, _TRUNCATE: 3, _IOCTL_DEV: 5}
_ALL = (1 << 16) - 1
_READS = _READ_FILE | _READ_DIR | _EXECUTE | _IOCTL_DEV
_FILE_READ, _FILE_WRITE = _READ_FILE, _READ_FILE | _WRITE_FILE | _TRUNCATE
_FILE_ANY = _FILE_WRITE | _EXECUTE | _IOCTL_DEV
_TREE_READ = _READ_FILE | _READ_DIR
_TREE_WRITE = _TREE_READ | _WRITE_FILE | _TRUNCATE | _REFER | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
"""No links, pipes, sockets and devices: whatever else looks into the folder would follow or open them."""
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2
_NETWORK_SINCE, _SCOPE_SINCE = 4, 6
NOTHING = "the kernel has no Landlock (Linux 5.13): workers can open every file that the daemon can"
_LATER = {3: "truncating files of the daemon's user (Linux 6.2 does)"}
"""What later versions add that the filter of system calls does not do anyway."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def read_version() -> int:
    """Return the version of Landlock that this kernel has, 0 for none."""
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION))


def explain_version(version: int) -> list[str]:
    """Return what this version of Landlock leaves open."""
    if not version:
        return [NOTHING]
    return [f"this kernel does not keep workers from {what}" for since, what in _LATER.items() if version < since]


def restrict_files(read: Iterable[str], write: Iterable[str], driver: Iterable[str] = (), *, hides_files: bool) -> str:
    """Let this thread, and those it starts, open only these paths and what is below them.

    Below `driver` anything may be made. Without `hides_files` reading stays free, and starting
    programs. Return "" or why it can't be done here. Paths that don't exist are left out.
    """
    version = read_version()
    if not version:
        return NOTHING
    handled = sum(bit for bit in (1 << n for n in range(16)) if _SINCE.get(bit, 1) <= version)
    handled &= _ALL if hides_files else ~_READS
    network = _BIND_TCP | _CONNECT_TCP if hides_files and version >= _NETWORK_SINCE else 0
    scopes = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if hides_files and version >= _SCOPE_SINCE else 0
    ruleset = _Ruleset(handled, network, scopes)
    rules = _call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    if rules < 0:
        return f"Landlock refused a rule set: {os.strerror(ctypes.get_errno())}"
    try:
        kinds = ((read, _FILE_READ, _TREE_READ), (write, _FILE_WRITE, _TREE_WRITE), (driver, _FILE_ANY, _ALL))
        for paths, of_file, of_tree in kinds:
            for path in paths:
                with contextlib.suppress(OSError):
                    _allow(rules, path, of_file & handled, of_tree & handled)
        if _call(_RESTRICT_SELF, rules, 0) < 0:
            return f"Landlock refused to restrict the worker: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(rules)
    return ""


def _allow(rules: int, path: str, of_file: int, of_tree: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    keep = path.startswith("/proc/")  # the kernel forgets what is not open there, and the rule with it
    try:
        allowed = of_tree if stat.S_ISDIR(os.fstat(folder).st_mode) else of_file
        if allowed and _call(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(_PathBeneath(allowed, folder)), 0) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        if not keep:
            os.close(folder)


def _call(number: int, *args: object) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in args]
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *values))
