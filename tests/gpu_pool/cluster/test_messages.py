"""Messages as bytes: lines, and pieces of files among them."""

from __future__ import annotations

import pytest

from gpu_pool.cluster.files import PIECE_BYTES
from gpu_pool.cluster.messages import Beat, Kill, MessageReader, Piece, ToNode, decode_to_node, encode_piece
from gpu_pool.wire import WireError, encode_any

SENT = (Beat(), Piece(b'\n{"kind":"kill","device":"cpu:0"}\n'), Piece(b"x" * PIECE_BYTES), Kill("cpu:0"), Beat())


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_messages_are_the_same_however_they_are_cut(size: int) -> None:
    """Bytes of a file that look like a line are none."""
    data = b"".join(encode_piece(one) if isinstance(one, Piece) else encode_any(one) for one in SENT)
    reader = MessageReader[ToNode](decode_to_node, 100)
    found = [message for at in range(0, len(data), size) for message in reader.feed(data[at : at + size])]
    assert tuple(found) == SENT


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 101,
        b'{"kind":"block","size":0}\n',
        b'{"kind":"block","size":-1}\n',
        b'{"kind":"block","size":%d}\n' % (PIECE_BYTES + 1),
        b'{"kind":"block","size":1.5}\n',
        b'{"kind":"piece","data":"x"}\n',
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Too long a line, a piece of no bytes, or of more than is taken at once."""
    with pytest.raises(WireError):
        list(MessageReader[ToNode](decode_to_node, 100).feed(data))
