"""The agent's end of the pipe to the daemon."""

from __future__ import annotations

import os
import time

from gpu_pool.cluster.messages import FromNode, MessageReader, Piece, ToNode, decode_to_node, encode_piece
from gpu_pool.wire import WireError, encode_any

READ_BYTES = 1 << 18
MAX_UNSENT_BYTES = 64 << 20
"""A daemon that lets so much lie is not alive."""


class PipeEnded(Exception):
    """The daemon has ended, reads nothing, or says what no daemon says; the message says which."""


class Pipe:
    """Messages in, messages out. Nothing blocks.

    sent_at_s, heard_at_s    when something was last written and read, by the monotonic clock
    """

    def __init__(self, in_fd: int, out_fd: int) -> None:
        self.in_fd, self.out_fd = in_fd, out_fd
        os.set_blocking(in_fd, False)
        os.set_blocking(out_fd, False)
        self._reader = MessageReader[ToNode](decode_to_node, None)
        self._unsent = bytearray()
        self.sent_at_s = self.heard_at_s = time.monotonic()

    @property
    def unsent_bytes(self) -> int:
        return len(self._unsent)

    def send(self, message: FromNode) -> None:
        """Send a message as far as the pipe takes it now; `flush` sends the rest. Raises PipeEnded."""
        self._unsent += encode_piece(message) if isinstance(message, Piece) else encode_any(message, is_report=True)
        self.sent_at_s = time.monotonic()
        self.flush()

    def flush(self) -> None:
        """Send what is left. Raises PipeEnded."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.out_fd, self._unsent)]
        except BlockingIOError:
            if len(self._unsent) > MAX_UNSENT_BYTES:
                raise PipeEnded("the daemon reads nothing") from None
        except OSError as error:
            raise PipeEnded(f"the daemon is gone: {error.strerror}") from error

    def receive(self) -> list[ToNode]:
        """Return the messages that have arrived. Raises PipeEnded."""
        try:
            data = os.read(self.in_fd, READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise PipeEnded(f"the daemon is gone: {error.strerror}") from error
        if not data:
            raise PipeEnded("the daemon has closed the pipe")
        self.heard_at_s = time.monotonic()
        try:
            return list(self._reader.feed(data))
        except WireError as error:
            raise PipeEnded(f"no message of a daemon: {error}") from error
