"""Small synthetic media: a voice-like sound, numbered pictures, videos with oddities of phones.

No network, font or speech synthesiser is needed. Functions that write return the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler

from models.arrays import F32, U8
from models.media import VideoFrames

SOUND_CODECS = {
    ".wav": "pcm_s16le",
    ".mp3": "libmp3lame",
    ".m4a": "aac",
    ".aac": "aac",
    ".flac": "flac",
    ".ogg": "vorbis",
    ".opus": "libopus",
    ".webm": "libopus",
    ".ac3": "ac3",
    ".aiff": "pcm_s16be",
}
_BITS = 12


def speech(seconds: float, rate: int = 16_000) -> F32:
    """Return a voice-like sound (n,): gliding pitch, three formants, four syllables per second."""
    t = np.arange(round(seconds * rate)) / rate
    pitch = np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / rate
    harmonics = np.arange(1, 24)[:, None]
    formants = np.array([[650.0], [1150.0], [2500.0]])[:, :, None]
    gains = np.exp(-(((harmonics * 120 - formants) / 180) ** 2)).sum(axis=0) + 0.02
    voice = (gains * np.sin(2 * np.pi * harmonics * pitch)).sum(axis=0)
    syllables = np.clip(np.sin(2 * np.pi * 2 * t) ** 2 - 0.1, 0, None)
    words = (t % 1.5) < 1.2
    sound = voice * syllables * words
    scaled: F32 = (0.5 * sound / max(1e-9, float(np.abs(sound).max(initial=0)))).astype(np.float32)
    return scaled


def tone(seconds: float, rate: int = 16_000, hz: float = 440.0) -> F32:
    """Return a sine (n,) at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def click(seconds: float, rate: int, at: float) -> F32:
    """Return faint hiss (n,) with one loud 5 ms burst at `at` seconds, to measure sync."""
    wave = np.random.default_rng(7).normal(0, 1e-3, round(seconds * rate)).astype(np.float32)
    start = round(at * rate)
    length = round(0.005 * rate)
    wave[start : start + length] += tone(0.005, rate, 2000)[:length]
    return wave


def sound(
    path: Path,
    wave: F32,
    rate: int = 16_000,
    *,
    codec: str | None = None,
    channels: int = 1,
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write `wave` (n,) in the codec of the suffix, or `codec`. Vorbis is stereo, Opus 48 kHz."""
    codec = codec or SOUND_CODECS[path.suffix]
    with av.open(str(path), "w", format=container) as output:
        _write_sound(output, _sound_stream(output, rate, codec, channels, options or {}), wave, rate)
    return path


def speech_wav(path: Path, seconds: float, rate: int = 16_000) -> Path:
    return sound(path, speech(seconds, rate), rate)


def _sound_stream(
    output: av.container.OutputContainer, rate: int, codec: str, channels: int, options: dict[str, str]
) -> av.AudioStream:
    stream = output.add_stream(codec, rate=48_000 if codec == "libopus" else rate)
    assert isinstance(stream, av.AudioStream)
    layout = "stereo" if channels == 2 or codec == "vorbis" else "mono"
    context = stream.codec_context
    context.layout = layout
    context.options = {"strict": "experimental", **options} if codec == "vorbis" else options
    return stream


def _write_sound(output: av.container.OutputContainer, stream: av.AudioStream, wave: F32, rate: int) -> None:
    context = stream.codec_context
    frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    resampler = AudioResampler(format=context.format, layout=context.layout, rate=context.sample_rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def numbered(number: int, width: int = 96, height: int = 64) -> U8:
    """Return a picture that slides with its number, with the number as twelve blocks on top."""
    y, x = np.mgrid[0:height, 0:width]
    shift = 2 * np.pi * number / 40
    waves = [np.sin(6 * x / width + shift), np.sin(5 * y / height - shift), np.sin(4 * (x + y) / (width + height))]
    frame = np.stack([128 + 70 * wave for wave in waves], axis=-1).astype(np.uint8)
    top = _block_rows(height)
    for bit in range(_BITS):
        left, right = width * bit // _BITS, width * (bit + 1) // _BITS
        frame[:top, left:right] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: U8) -> int:
    """Return the number that `numbered` wrote, after any lossy coding or scaling."""
    height, width = frame.shape[:2]
    centre = frame[_block_rows(height) // 2].mean(axis=-1)
    bits = [centre[(width * bit // _BITS + width * (bit + 1) // _BITS) // 2] > 128 for bit in range(_BITS)]
    return sum(1 << bit for bit, lit in enumerate(bits) if lit)


def _block_rows(height: int) -> int:
    return max(4, height // 4)


def number_in(frame: av.VideoFrame) -> int:
    """Return the number that `numbered` wrote into a decoded frame."""
    return number_of(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))


def time_of(frame: av.VideoFrame) -> Fraction:
    """Return when a decoded frame is shown, in seconds."""
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


def numbers_shown(frames: VideoFrames, indices: Iterable[int]) -> list[int]:
    """Return the numbers that `numbered` wrote into these frames of a video."""
    return [number_of(frames.read(index)) for index in indices]


def numbered_frames(count: int, width: int = 96, height: int = 64) -> Iterator[U8]:
    return (numbered(number, width, height) for number in range(count))


def quarters(width: int = 90, height: int = 60) -> U8:
    """Return four flat colours, red, blue over green, sand, which show any turn or mirroring."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = (0, 0, 230)
    frame[: height // 2, width // 2 :] = (230, 0, 0)
    frame[height // 2 :, : width // 2] = (0, 200, 0)
    frame[height // 2 :, width // 2 :] = (120, 190, 220)
    return frame


def picture(path: Path, width: int = 90, height: int = 60, *, exif_orientation: int | None = None) -> Path:
    """`quarters` as a still in the format of the suffix; a JPEG may carry an EXIF orientation."""
    import cv2  # only the writers of stills need it

    done, data = cv2.imencode(path.suffix, quarters(width, height))
    assert done
    path.write_bytes(data.tobytes() if exif_orientation is None else _with_exif(data.tobytes(), exif_orientation))
    return path


def _with_exif(jpeg: bytes, orientation: int) -> bytes:
    entry = (
        (0x0112).to_bytes(2, "big") + (3).to_bytes(2, "big") + (1).to_bytes(4, "big") + bytes([0, orientation, 0, 0])
    )
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def video(
    path: Path,
    count: int = 50,
    width: int = 96,
    height: int = 64,
    *,
    fps: Fraction | int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str | None = None,
    times: Sequence[Fraction] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    matrix: int = 1,
    full_range: bool = False,
    container: str | None = None,
    faststart: bool = False,
    sound_wave: F32 | None = None,
    sound_rate: int = 16_000,
    frames: Iterator[U8] | None = None,
) -> Path:
    """Numbered frames as a video.

    times     when each frame is shown, in seconds; without it frame n is shown at n / fps
    rotation  degrees clockwise that a player turns the picture by (mp4 and mov): 0, 90, 180, 270
    aspect    sample aspect ratio of the stream
    matrix    1 = BT.709, 5 = BT.601; `full_range` instead of limited
    """
    base = Fraction(1, 90_000) if times else 1 / Fraction(fps)
    flags = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", format=container, options=flags) as output:
        stream = output.add_stream(codec, rate=Fraction(fps))
        assert isinstance(stream, av.VideoStream)
        _describe(stream.codec_context, width, height, pix_fmt, aspect, matrix, full_range)
        stream.codec_context.time_base = base
        stream.codec_context.options = options or {}
        voice = _sound_stream(output, sound_rate, "aac", 1, {}) if sound_wave is not None else None
        for number, bgr in enumerate(frames or numbered_frames(count, width, height)):
            frame = _convert(bgr, stream.codec_context.pix_fmt or "yuv420p", matrix, full_range)
            frame.pts = round(times[number] / base) if times else number
            frame.time_base = base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if voice is not None and sound_wave is not None:
            _write_sound(output, voice, sound_wave, sound_rate)
    if rotation:
        _turn(path, rotation)
    return path


def _describe(
    context: av.VideoCodecContext,
    width: int,
    height: int,
    pix_fmt: str | None,
    aspect: Fraction | None,
    matrix: int,
    full_range: bool,
) -> None:
    formats = context.codec.video_formats
    context.width, context.height = width, height
    odd = width % 2 or height % 2
    context.pix_fmt = pix_fmt or ("yuv444p" if odd else "yuv420p" if not formats else formats[0].name)
    if aspect:
        context.sample_aspect_ratio = aspect
    if not context.pix_fmt.startswith(("rgb", "bgr", "pal")):
        context.colorspace, context.color_range = matrix, 2 if full_range else 1


def _convert(bgr: U8, pix_fmt: str, matrix: int, full_range: bool) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(bgr), "bgr24")
    if pix_fmt.startswith(("rgb", "bgr", "pal")):
        return frame.reformat(format=pix_fmt)
    exact = av.video.reformatter.Interpolation.AREA | av.video.reformatter.Interpolation.ACCURATE_RND
    return frame.reformat(
        format=pix_fmt, dst_colorspace=matrix, dst_color_range=2 if full_range else 1, interpolation=exact
    )


def _turn(path: Path, degrees: int) -> None:
    """Write the display matrix into the track header, which the encoder cannot set."""
    turns = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    a, b, c, d = (value << 16 for value in turns[degrees])
    matrix = b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = matrix
    path.write_bytes(data)


def cut(source: Path, path: Path, fraction: float) -> Path:
    """Copy the first part of a file, as an interrupted upload does."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path
