"""Open a video, a still or an animation once and read its pictures in order from any position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition

from models.arrays import U8
from models.media.budget import charge
from models.media.formats import HEIC_BRANDS, check_format, name_format, read_brand
from models.media.opening import configure_decoder, open_media, translate_read_errors, unreadable_file
from models.media.pictures.background import WHITE, Background
from models.media.pictures.colour import BT709, SIDEWAYS, UNSPECIFIED, ToBgr, read_orientation, view_plane
from models.media.pictures.gamut import Conversion, IccConversion, read_conversion, read_still_conversion
from models.media.pictures.interlace import deinterlace, is_interlaced
from models.media.pictures.loading import has_heif, has_one_value, is_transparent, load_still, read_size
from models.media.pictures.planar import ToPlanes
from models.media.pictures.stills import Still, is_cut_off, read_still
from models.media.pictures.webp import read_webp_frames, read_webp_timeline
from models.media.timeline import STILL_FPS, Timeline, read_timeline
from models.types import Colour, EngineError, Limits

MakePicture = Callable[[], U8]
"""Returns the decoded picture, upright, as a new array: BGR, or planes if asked for."""

_SANE_ASPECT = 8
_STRICT: dict[str | None, dict[str, str]] = {"jpeg_pipe": {"err_detect": "explode"}}
"""Without it, a cut-off JPEG decodes with a grey rest; other cut-off stills fail by themselves."""

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class Source(Protocol):
    """An opened avatar. `width`, `height`, `colour` are those of its upright pictures.

    `notes`: sentences on what is not shown as it is stored.
    """

    timeline: Timeline
    width: int
    height: int
    colour: Colour
    notes: tuple[str, ...]

    def read_pictures(self, start: int) -> Iterator[tuple[int, MakePicture]]:
        """Yield positions and pictures from `start` or a little before. One iterator at a time."""
        ...

    def close(self) -> None: ...


def open_source(
    path: Path,
    name: str,
    limits: Limits,
    size: tuple[int, int] | None = None,
    *,
    as_yuv: bool = False,
    untagged: int = UNSPECIFIED,
    background: Background = WHITE,
) -> Source:
    """Open an image or a video; `size` (width, height) scales its pictures. Its size is known
    before any is decoded.

    `as_yuv`: pictures are what `ToPlanes` makes, of even size, instead of BGR.
    `untagged`: the matrix of a video without colour tags, for BGR; usually its size tells.
    `background`: what transparent pixels show.
    Raises EngineError avatar_unreadable, avatar_too_large, video_too_long.
    """
    check_format(path, name, "avatar")
    with translate_read_errors(name, "avatar", path):
        still = read_still(path)
    if still is not None:
        check_pixels(still.width, still.height, name, limits)
        if still.animated_webp:
            return open_webp(path, still, name, limits, size, as_yuv, background)
    if formats := find_formats_to_load(path, still):
        return open_loaded(path, name, limits, formats, size, as_yuv, background)
    movie = Movie(path, still, name, limits, size, as_yuv, untagged, background)
    if still is None or not movie.is_blank() or has_one_value(path):
        return movie
    movie.close()  # a decoder that fails without a word leaves one colour
    return open_loaded(path, name, limits, None, size, as_yuv, background)


def find_formats_to_load(path: Path, still: Still | None) -> list[str]:
    """Return Pillow's names of the formats of a still that FFmpeg can't read, or not rightly; [] for all others.

    FFmpeg leaves out the transparency of AVIF, and takes a tile of a HEIC photo for all of it.
    """
    if still is not None:
        return ["TIFF", "JPEG"] if still.loaded else []
    brand = read_brand(path)
    if brand in HEIC_BRANDS:
        return ["HEIF"] if has_heif() else []
    return ["AVIF"] if brand == b"avif" and is_transparent(path, ["AVIF"]) else []


def check_pixels(width: int, height: int, name: str, limits: Limits) -> None:
    if width * height > limits.pixels:
        message = (
            f"{name} has {width} x {height} pixels, {width * height / 1e6:.0f} million; "
            f"the limit is {limits.pixels / 1e6:.0f} million"
        )
        raise EngineError("avatar_too_large", message, "send it smaller, or raise limits.megapixels")


class Movie:
    """Anything that FFmpeg decodes, a still included."""

    def __init__(
        self,
        path: Path,
        still: Still | None,
        name: str,
        limits: Limits,
        size: tuple[int, int] | None,
        as_yuv: bool,
        untagged: int = UNSPECIFIED,
        background: Background = WHITE,
    ) -> None:
        self._path, self._name, self._limits, self._as_planes = path, name, limits, as_yuv
        self._untagged, self._background = untagged, background
        self._fields = False
        self._demuxer = still.demuxer if still is not None else None
        with translate_read_errors(name, "avatar", path):
            self._open_container()
            try:
                self._read_first(still, size)
            except EngineError:
                self.close()
                raise

    def _read_first(self, still: Still | None, size: tuple[int, int] | None) -> None:
        context = self._stream.codec_context
        check_pixels(context.width, context.height, self._name, self._limits)
        self.timeline = read_timeline(self._container, self._stream, self._name, self._limits)
        walk = self._walk(0)
        position, first = next(walk, (0, None))
        if first is None:
            raise unreadable_file("avatar", f"{self._name} holds pictures that cannot be decoded")
        self._begun: Iterator[tuple[int, av.VideoFrame]] | None = chain([(position, first)], walk)
        turn = still.orientation if still is not None else read_orientation(first)
        aspect = 1 if still is not None else self._stream.sample_aspect_ratio or 1
        width, height = size or _compute_upright_size(first.width, first.height, float(aspect), turn)
        check_pixels(width, height, self._name, self._limits)
        conversion = read_conversion(self._path, first, still=still is not None)
        self.notes = note_conversion(self._name, conversion)
        if self.timeline.restarts:
            self.notes += (f"the clock of {self._name} starts again within it; all its pictures follow each other",)
        if self.timeline.resized:
            self.notes += (f"the size of {self._name} changes within it; all is shown in the first, in its own shape",)
        if self._fields:
            self.notes += (f"{self._name} is interlaced; whole pictures are made of its fields",)
        self._size, self._turn, self._conversion = (first.width, first.height), turn, conversion
        self._show = self._make_converter(width, height, turn, first, conversion)
        self.width, self.height = self._show.width, self._show.height

    def _make_converter(
        self, width: int, height: int, turn: int, first: av.VideoFrame, conversion: Conversion | None
    ) -> ToBgr | ToPlanes:
        if not self._as_planes:
            self.colour = BT709
            return ToBgr(width, height, turn, conversion, self._untagged, self._background)
        to_planes = ToPlanes(
            width, height, turn, still=self._is_still, conversion=conversion, background=self._background
        )
        self.colour = to_planes.read_colour(first)
        return to_planes

    def read_pictures(self, start: int) -> Iterator[tuple[int, MakePicture]]:
        begun, self._begun = self._begun, None
        for position, frame in begun if begun and start == 0 else self._walk(start):
            same = (frame.width, frame.height) == self._size
            yield position, partial(self._show if same else self._show_changed, frame)

    def _show_changed(self, frame: av.VideoFrame) -> U8:
        """Return a picture of another size than the first one in the size of that, padded with black."""
        width, height = _compute_upright_size(frame.width, frame.height, 1, self._turn)
        scale = min(self.width / width, self.height / height)
        width, height = max(2, round(width * scale)), max(2, round(height * scale))
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        shown = ToBgr(width, height, self._turn, self._conversion, self._untagged, self._background)(frame)
        canvas[top : top + height, left : left + width] = shown
        if isinstance(self._show, ToBgr):
            return canvas
        return self._show.convert_bgr(canvas)

    def is_blank(self) -> bool:
        """Whether the first picture has one single colour."""
        begun, self._begun = self._begun, None
        position, first = next(begun or self._walk(0))
        self._begun = chain([(position, first)], begun or ())
        rows = view_plane(first, 0)
        if any(not np.array_equal(rows[0], rows[len(rows) * part // 4]) for part in (1, 2, 3)):
            return False
        return not np.ptp(first.to_ndarray(format="rgba"), axis=(0, 1)).any()

    def close(self) -> None:
        self._container.close()

    def _open_container(self) -> None:
        self._container = open_media(self._path, "avatar", pixels=self._limits.pixels, demuxer=self._demuxer)
        self._stream = _choose_stream(self._container, self._name)
        options = {"max_pixels": str(self._limits.pixels), **_STRICT.get(self._demuxer, {})}
        configure_decoder(self._stream, **options)
        self._alpha_decoder = open_alpha_decoder(self._stream, options)

    @property
    def _is_still(self) -> bool:
        return self._container.format.name.endswith("_pipe")

    def _walk(self, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
        with translate_read_errors(self._name, "avatar", self._path):
            for key in self._list_keys_before(start):
                decoded = deinterlace(self._decode_from(key))
                first = next(decoded, None)
                if first is not None and first[0] <= start:
                    yield from chain([first], decoded)
                    return
            self._container.close()  # reopening reaches the beginning of formats that cannot seek
            self._open_container()
            yield from deinterlace(self._decode())

    def _list_keys_before(self, start: int) -> Iterator[int]:
        """Yield stamps to seek to: the nearest key, one before in case of a wrong index, the first."""
        if self.timeline.seekable:
            nearest = self.timeline.find_key(start)
            yield from (self.timeline.keys[key] for key in sorted({nearest, max(0, nearest - 1), 0}, reverse=True))

    def _decode_from(self, key: int) -> Iterator[tuple[int, av.VideoFrame]]:
        try:
            self._container.seek(self.timeline.stamps[key], stream=self._stream)
            if self._alpha_decoder is not None:
                self._alpha_decoder.flush_buffers()
        except av.FFmpegError:
            return
        yield from self._decode()

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        count = 0
        for packet in self._container.demux(self._stream):
            charge()
            for frame in self._decode_packets(packet):
                charge(pixels=frame.width * frame.height)
                self._fields = self._fields or is_interlaced(frame)
                trusted = self.timeline.seekable and frame.pts is not None
                yield self.timeline.find_position(frame.pts) if trusted else count, frame  # type: ignore[arg-type]
                count += 1

    def _decode_packets(self, packet: av.Packet[av.VideoStream]) -> list[av.VideoFrame]:
        try:
            return packet.decode() if self._alpha_decoder is None else self._alpha_decoder.decode(packet)
        except av.FFmpegError:
            if self._is_still:
                if is_cut_off(self._path):
                    raise unreadable_file("avatar", f"{self._name} is cut off: its end is missing") from None
                raise
            return []  # one damaged picture: the one before it is shown instead


class ArrayPictures:
    """Pictures that another library decodes, to arrays."""

    colour = BT709

    def __init__(
        self,
        timeline: Timeline,
        stored: tuple[int, int],
        conversion: Conversion | None,
        size: tuple[int, int] | None,
        as_yuv: bool,
        background: Background,
    ) -> None:
        """`stored` is width and height of the pictures, which `read` yields from a position on, upright."""
        self.timeline, self._conversion, self._background = timeline, conversion, background
        self.width, self.height = size or stored
        self.notes: tuple[str, ...] = ()
        self.read: Callable[[int], Iterator[tuple[int, U8]]] = lambda _: iter(())
        self._to_planes = ToPlanes(self.width, self.height) if as_yuv else None
        if self._to_planes is not None:
            self.width, self.height = self._to_planes.width, self._to_planes.height

    def read_pictures(self, start: int) -> Iterator[tuple[int, MakePicture]]:
        for position, picture in self.read(start):
            yield position, partial(self._convert, picture)

    def close(self) -> None:
        pass

    def _convert(self, picture: U8) -> U8:
        bgr: U8 = picture[..., :3]
        if isinstance(self._conversion, IccConversion):
            bgr = self._conversion.convert(bgr)
        picture = self._background.blend(bgr, picture[..., 3]) if picture.shape[2] == 4 else bgr
        return self._resize(picture) if self._to_planes is None else self._to_planes.convert_bgr(self._resize(picture))

    def _resize(self, picture: U8) -> U8:
        spare = 1 if self._to_planes is not None else 0  # ToPlanes cuts an odd row or column off
        if all(0 <= have - want <= spare for have, want in zip(picture.shape, (self.height, self.width), strict=False)):
            return picture.copy()
        return np.asarray(cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8)


def open_webp(
    path: Path,
    still: Still,
    name: str,
    limits: Limits,
    size: tuple[int, int] | None,
    as_yuv: bool,
    background: Background,
) -> ArrayPictures:
    """Open an animated WebP."""
    conversion, timeline = read_still_conversion(path), read_webp_timeline(path, still, name, limits)
    source = ArrayPictures(timeline, (still.width, still.height), conversion, size, as_yuv, background)
    source.notes = note_conversion(name, conversion)
    source.read = partial(read_webp_frames, path, still, name)
    return source


def open_loaded(
    path: Path,
    name: str,
    limits: Limits,
    formats: list[str] | None,
    size: tuple[int, int] | None,
    as_yuv: bool,
    background: Background,
) -> ArrayPictures:
    """Open a still by Pillow."""
    check_pixels(*(read_size(path, formats) or (0, 0)), name, limits)
    found = name_format(path)
    loaded = load_still(path, name, found.name if found else "picture", formats)
    height, width = loaded.picture.shape[:2]
    one = Timeline((0,), (0,), 1, 1 / STILL_FPS)
    source = ArrayPictures(one, (width, height), loaded.conversion, size, as_yuv, background)
    source.notes = (*note_conversion(name, loaded.conversion), *loaded.notes)
    source.read = lambda _: iter([(0, loaded.picture)])
    return source


def open_alpha_decoder(stream: av.VideoStream, options: dict[str, str]) -> av.VideoCodecContext | None:
    """Return a decoder for a stream with transparency that FFmpeg's own decoder would drop, or None."""
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    told = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or told.get("alpha_mode") != "1":
        return None
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)  # noqa: S101 - both decode video
    decoder.options = options
    return decoder


def note_conversion(name: str, conversion: Conversion | None) -> tuple[str, ...]:
    if conversion is None:
        return ()
    return (f"{name} has colours of {conversion.name}; they are converted to BT.709, as players show them",)


def _choose_stream(container: InputContainer, name: str) -> av.VideoStream:
    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    default = [stream for stream in pictures if stream.disposition & Disposition.default]
    stream = next(iter(default or pictures), None) or container.streams.best("video")
    if stream is None and container.streams.audio:
        raise unreadable_file("avatar", f"{name} holds sound and no pictures; are face and voice swapped?")
    if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
        raise unreadable_file("avatar", f"{name} holds no picture that can be decoded")
    brand = container.metadata.get("major_brand", "").encode()
    if brand in HEIC_BRANDS and len(container.streams.video) > 1:
        message = f"{name} is a HEIC photo, stored as tiles that cannot be put together without the package pillow-heif"
        hint = (
            "save it as jpg (iPhones take jpg with Settings > Camera > Formats > Most Compatible),"
            " or install musedrop with its extra: pip install '.[heic]'"
        )
        raise EngineError("avatar_unreadable", message, hint)
    return stream


def _compute_upright_size(width: int, height: int, aspect: float, turn: int) -> tuple[int, int]:
    """Return the displayed width and height: pixels are made square by enlarging one side, then
    turned.

    >>> _compute_upright_size(720, 576, 16 / 15, 1)
    (768, 576)
    """
    if 1 < aspect < _SANE_ASPECT:
        width = round(width * aspect)
    elif 1 / _SANE_ASPECT < aspect < 1:
        height = round(height / aspect)
    return (height, width) if turn in SIDEWAYS else (width, height)
