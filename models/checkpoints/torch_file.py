"""What a file of torch.save holds, and where in it the numbers are: three formats, of which none is executed.

zip      since torch 1.6: `NAME/data.pkl`, and each storage in `NAME/data/KEY`, stored and not compressed
legacy   torch 0.2 to 1.5: five pickles, then each storage with its length before it
tar      before that: members `storages`, `tensors` and `pickle`

Only descriptions are read; the numbers stay in the file. Standard library only.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from models.checkpoints.unpickler import INERT, Global, PickleError, StorageRecord, TensorRecord, read_pickle

LONGEST_PICKLE_BYTES = 64 << 20
LONGEST_DIRECTORY_BYTES = 8 << 20  # of 100,000 names
ZIP = b"PK\x03\x04"
LEGACY = re.compile(
    rb"(?:\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a\x6c\xfc\x9cF\xf9 j\xa8P\x19|L119547037146038801333356L\n)\.", re.DOTALL
)
"""A number that torch.save wrote first, by any protocol of pickle."""
TAR = b"ustar"
TAR_AT = 257
MOST_MEMBERS = 16
MOST_RECORDS = 100_000
SMALL_PICKLE_BYTES = 64 << 10  # of one storage or tensor in a tar
MOST_DIMENSIONS = 64
ITEM_BYTES = {
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage", "QInt64Storage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("CharStorage", "ByteStorage", "BoolStorage", "UntypedStorage"), 1),
    "ComplexDoubleStorage": 16,
}
READ_ERRORS = (
    PickleError,
    ValueError,
    TypeError,
    LookupError,
    OSError,
    EOFError,
    RuntimeError,  # and NotImplementedError, of zipfile
    struct.error,
    zipfile.BadZipFile,
)


class TorchFileError(Exception):
    """Says what is wrong with a file, as the end of a sentence that begins with its name."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The object in a file, with records for its tensors.

    regions   key of a storage -> its bytes in the file
    refused   what the file would have called besides tensors and plain containers
    """

    value: Any
    regions: dict[str, range]
    refused: list[str]


def read_torch_file(path: Path) -> Contents:
    """Read the description in a file of torch.save. Raises TorchFileError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
        try:
            if head.startswith(ZIP):
                return _read_zip(file, size)
            if LEGACY.match(head):
                return _read_legacy(file, size)
            if head[TAR_AT:].startswith(TAR):
                return _read_tar(file, size)
            return _read_bare(file)
        except READ_ERRORS as error:
            raise TorchFileError("is no torch checkpoint, or is damaged") from error


def truncation_text(size: int, expected: int | None = None) -> str:
    return f"is cut off: {size:,} bytes" + (f" of {expected:,}" if expected else ", its end is missing")


def _read_bare(file: IO[bytes]) -> Contents:
    """Read a pickle by itself. It holds no tensors that could be taken from it, but may name code."""
    file.seek(0)
    value, refused = read_pickle(BytesIO(file.read(LONGEST_PICKLE_BYTES)))
    return Contents(value, {}, refused)


class _Storages:
    """Makes records of the persistent ids of a pickle: `("storage", type, key, location, count[, view])`."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def load(self, identity: Any) -> Any:
        if not isinstance(identity, tuple) or len(identity) < 5 or not isinstance(identity[1], Global):
            return INERT
        key, kind, view = identity[2], identity[1].name, identity[5] if len(identity) > 5 else None
        if not isinstance(key, str) or kind not in ITEM_BYTES:
            return INERT
        known = self.kinds.setdefault(key, kind)
        start = view[1] if isinstance(view, tuple) and len(view) == 3 and isinstance(view[1], int) else 0
        return StorageRecord(key, known, start)


# zip -----------------------------------------------------------------------------------------------------------------


def _read_zip(file: IO[bytes], size: int) -> Contents:
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    prefix = pickles[0].removesuffix("data.pkl")
    places = {name: _find_bytes(file, info, size) for name, info in entries.items() if name.startswith(prefix)}
    if _read_range(file, places.get(f"{prefix}byteorder", range(0))) == b"big":
        raise TorchFileError("was saved on a big-endian machine, which is not supported")
    storages = _Storages()
    value, refused = read_pickle(BytesIO(_read_range(file, places[pickles[0]])), storages.load)
    folder = f"{prefix}data/"
    regions = {name.removeprefix(folder): place for name, place in places.items() if name.startswith(folder)}
    return Contents(value, regions, refused)


def _check_directory(file: IO[bytes], size: int) -> None:
    """Raise TorchFileError for a zip without its directory, which is at its end, or with one of too many names."""
    file.seek(max(0, size - 65_600))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise TorchFileError(truncation_text(size))
    (length,) = struct.unpack_from("<I", tail, at + 12)
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if wide >= 0:
        (length,) = struct.unpack_from("<Q", tail, wide + 40)
    if length > LONGEST_DIRECTORY_BYTES:
        raise TorchFileError("is a zip with too many names in it")


def _find_bytes(file: IO[bytes], info: zipfile.ZipInfo, size: int) -> range:
    """Return where the bytes of an entry are. Raises TorchFileError unless they are there as they are."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
        raise TorchFileError("is a compressed or encrypted zip, as torch never writes one")
    file.seek(info.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    start = info.header_offset + 30 + name_length + extra_length
    if start + info.file_size > size:
        raise TorchFileError(truncation_text(size))
    return range(start, start + info.file_size)


def _read_range(file: IO[bytes], place: range) -> bytes:
    if len(place) > LONGEST_PICKLE_BYTES:
        raise TorchFileError("has a description that is too long")
    file.seek(place.start)
    return file.read(len(place))


# legacy --------------------------------------------------------------------------------------------------------------


def _read_legacy(file: IO[bytes], size: int) -> Contents:
    file.seek(0)
    stream, storages = BytesIO(file.read(LONGEST_PICKLE_BYTES)), _Storages()
    try:
        _, _, (system, _) = (read_pickle(stream) for _ in range(3))
        value, refused = read_pickle(stream, storages.load)
        keys, _ = read_pickle(stream)
    except PickleError as error:
        if stream.tell() == size:
            raise TorchFileError(truncation_text(size)) from error
        raise
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise TorchFileError("was saved on a big-endian machine, which is not supported")
    at, regions = stream.tell(), {}
    for key in keys if isinstance(keys, list) else []:
        item_bytes = ITEM_BYTES[storages.kinds[key]]
        regions[key] = _find_storage(file, at, item_bytes, size)
        at = regions[key].stop
    return Contents(value, regions, refused)


def _find_storage(file: IO[bytes], at: int, item_bytes: int, size: int) -> range:
    """Return where the bytes of a storage are, whose length stands at `at`."""
    file.seek(at)
    head = file.read(8)
    count = struct.unpack("<q", head)[0] if len(head) == 8 else 0
    start, stop = at + 8, at + 8 + count * item_bytes
    if count < 0:
        raise TorchFileError("has a storage of negative length")
    if len(head) < 8 or stop > size:
        raise TorchFileError(truncation_text(size, None if len(head) < 8 else stop))
    return range(start, stop)


# tar -----------------------------------------------------------------------------------------------------------------


def _read_tar(file: IO[bytes], size: int) -> Contents:
    members = dict(_list_members(file, size))
    records, regions = _read_storages(file, members["storages"], size)
    records |= _read_tensors(file, members["tensors"], records)

    def load(identity: Any) -> Any:
        wanted = identity[0] if isinstance(identity, tuple) and identity else identity
        return records.get(_name_key(wanted), INERT)

    value, refused = read_pickle(BytesIO(_read_range(file, members["pickle"])), load)
    return Contents(value, regions, refused)


def _list_members(file: IO[bytes], size: int) -> Iterator[tuple[str, range]]:
    """Yield the names of the members of a tar, and where their bytes are."""
    at = 0
    for _ in range(MOST_MEMBERS):
        file.seek(at)
        header = file.read(512)
        if len(header) < 512 or not header.strip(b"\0"):
            return
        length = int(header[124:136].strip(b" \0") or b"0", 8)
        place = range(at + 512, at + 512 + length)
        if place.stop > size:
            raise TorchFileError(truncation_text(size))
        yield header[:100].rstrip(b"\0").decode("ascii").removeprefix("./"), place
        at = place.stop + -length % 512


def _read_storages(file: IO[bytes], place: range, size: int) -> tuple[dict[str, Any], dict[str, range]]:
    """Return the storages of a tar and their views, by key, and where their bytes are."""
    records: dict[str, Any] = {}
    regions: dict[str, range] = {}
    count, at = _read_small(file, place.start)
    for _ in range(min(count, MOST_RECORDS)):
        (key, _, kind), at = _read_small(file, at)
        name, kind_name = _name_key(key), kind.name if isinstance(kind, Global) else ""
        regions[name] = _find_storage(file, at, ITEM_BYTES[kind_name], size)
        records[name] = StorageRecord(name, kind_name)
        at = regions[name].stop
    views, _ = _read_small(file, at, LONGEST_PICKLE_BYTES)
    for target, root, offset, _ in views if isinstance(views, list) else []:
        whole = records[_name_key(root)]
        records[_name_key(target)] = StorageRecord(whole.key, whole.kind, offset if isinstance(offset, int) else 0)
    return records, regions


def _read_tensors(file: IO[bytes], place: range, storages: dict[str, Any]) -> dict[str, Any]:
    records = {}
    count, at = _read_small(file, place.start)
    for _ in range(min(count, MOST_RECORDS)):
        (key, storage, _), at = _read_small(file, at)
        file.seek(at)
        (dimensions,) = struct.unpack("<i4x", file.read(8))
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise TorchFileError("has a tensor of too many dimensions")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", file.read(16 * dimensions + 8))
        size, stride = numbers[:dimensions], numbers[dimensions:-1]
        records[_name_key(key)] = TensorRecord(storages[_name_key(storage)], numbers[-1], size, stride)
        at = file.tell()
    return records


def _read_small(file: IO[bytes], at: int, most_bytes: int = SMALL_PICKLE_BYTES) -> tuple[Any, int]:
    """Read one small pickle at `at`; returns its value and where it ends."""
    file.seek(at)
    stream = BytesIO(file.read(most_bytes))
    value, _ = read_pickle(stream)
    return value, at + stream.tell()


def _name_key(key: Any) -> str:
    """Storages and tensors in a tar have numbers or texts for keys."""
    return str(key) if isinstance(key, int | str) else ""
