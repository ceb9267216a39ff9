"""Open one file of an SMB share with libsmbclient and do with it what standard input says, one line at a time.

A program of its own: smbclient can't set the size of a file, nor wait between two writes, and libsmbclient
keeps its state in globals.
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
    """Name and password stay empty."""


def main(url: str) -> None:
    library = ctypes.CDLL("libsmbclient.so.0", use_errno=True)
    library.smbc_ftruncate.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.smbc_write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.smbc_write.restype = ctypes.c_ssize_t
    callback = AUTHENTICATE(guest)
    checked(library.smbc_init(callback, 0))
    file = checked(library.smbc_open(url.encode(), os.O_WRONLY | os.O_CREAT, 0o644))
    done()
    for line in sys.stdin:
        verb, _, words = line.strip().partition(" ")
        if verb == "size":
            checked(library.smbc_ftruncate(file, int(words)))
        elif verb == "data":
            data = bytes.fromhex(words)
            assert library.smbc_write(file, data, len(data)) == len(data)
        elif verb == "close":
            checked(library.smbc_close(file))
        done()


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def done() -> None:
    print("ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
