"""Open one file of an SMB share with libsmbclient and execute the lines of standard input on it.

smbclient can't set the size of a file or wait between two writes.
libsmbclient keeps its state in globals, so it runs in a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import sys

AUTHENTICATE = ctypes.CFUNCTYPE(
    None,
    *(ctypes.c_char_p, ctypes.c_char_p),
    *(ctypes.c_void_p, ctypes.c_int) * 3,
)


def guest(*_: object) -> None:
    """Leave name and password empty."""


def main(url: str) -> None:
    library = ctypes.CDLL("libsmbclient.so.0", use_errno=True)
    library.smbc_ftruncate.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.smbc_write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.smbc_write.restype = ctypes.c_ssize_t
    callback = AUTHENTICATE(guest)
    check_result(library.smbc_init(callback, 0))
    file = check_result(library.smbc_open(url.encode(), os.O_WRONLY | os.O_CREAT, 0o644))
    acknowledge()
    for line in sys.stdin:
        verb, _, words = line.strip().partition(" ")
        if verb == "size":
            check_result(library.smbc_ftruncate(file, int(words)))
        elif verb == "data":
            data = bytes.fromhex(words)
            assert library.smbc_write(file, data, len(data)) == len(data)
        elif verb == "close":
            check_result(library.smbc_close(file))
        acknowledge()


def check_result(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def acknowledge() -> None:
    print("ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
