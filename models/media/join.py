"""Parts and sound to one mp4, and the proof that it is what was asked for.

Parts are joined by stream copy: no picture is encoded twice. The sound is the original one where mp4 can hold it, cut
to the last sample that is heard; an encoder's priming goes before time 0, where players skip it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer

from models.atomic import whole_file
from models.media.sound import Decoder, Scan, open_sound, resampled, scan
from models.types import EngineError, Limits

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
AAC_BIT_RATE = 192_000

Timed = tuple[Fraction, int, Any]
"""(decoding time in seconds, 0 for pictures and 1 for sound, packet)"""


def assemble(
    parts: Sequence[Path],
    *,
    audio: Path,
    out: Path,
    frames: int,
    fps: Fraction,
    metadata: dict[str, str],
) -> dict[str, Any]:
    """Join the parts, put the sound to them, verify the result; it appears by rename, and only when it is right.

    Returns facts for result.json. Raises EngineError part_damaged, result_invalid, disk_full.
    """
    heard = scan(audio, audio.name, Limits().audio_s * 100)
    with whole_file(out) as beside:
        with ExitStack() as files:
            output = files.enter_context(av.open(str(beside), "w", format="mp4", options={"movflags": "+faststart"}))
            output.metadata.update(metadata)
            pictures = _pictures(files, output, parts, frames, fps)
            sounds = _copied(files, output, audio, heard) if heard.sound.copyable else _encoded(files, output, audio)
            for _, _, packet in merge(pictures, sounds, key=lambda timed: timed[:2]):
                output.mux(packet)
        verify(beside, frames, fps)
    codec = heard.sound.codec if heard.sound.copyable else "aac"
    return {"audio_codec": codec, "audio_copied": heard.sound.copyable}


def _pictures(
    files: ExitStack, output: OutputContainer, parts: Sequence[Path], frames: int, fps: Fraction
) -> Iterator[Timed]:
    """All packets in decoding order with exact times: frame n is shown at n / fps."""
    first = files.enter_context(open_part(parts[0]))
    video = output.add_stream_from_template(first.streams.video[0])
    video.time_base = 1 / fps
    order = [number for number, _ in _numbered(parts)]
    if sorted(order) != list(range(frames)):
        raise damaged(parts[0], f"the parts hold {len(order)} frames, not {frames}")
    delay = max(at - number for at, number in enumerate(order))
    return _timed_pictures(parts, video, fps, delay)


def _timed_pictures(parts: Sequence[Path], video: Any, fps: Fraction, delay: int) -> Iterator[Timed]:
    for at, (number, packet) in enumerate(_numbered(parts)):
        packet.stream, packet.time_base = video, 1 / fps
        packet.pts, packet.dts, packet.duration = number, at - delay, 1
        yield (at - delay) / fps, 0, packet


def _numbered(parts: Sequence[Path]) -> Iterator[tuple[int, Any]]:
    """(frame number in the whole, packet) in decoding order. Raises EngineError part_damaged."""
    start, header = 0, None
    for part in parts:
        with open_part(part) as container:
            stream = container.streams.video[0]
            header = header or stream.codec_context.extradata
            if stream.codec_context.extradata != header:
                raise damaged(part, "it was encoded in another way than the parts before it")
            packets = [packet for packet in container.demux(stream) if packet.size]
            shown = sorted(packet.pts for packet in packets if packet.pts is not None)
            place = {pts: start + n for n, pts in enumerate(shown)}
            if len(place) != len(packets) or not packets[0].is_keyframe:
                raise damaged(part, "its frames are not in order")
            yield from ((place[packet.pts], packet) for packet in packets if packet.pts is not None)
            start += len(packets)


def open_part(part: Path) -> av.container.InputContainer:
    try:
        return av.open(str(part))
    except av.FFmpegError as error:
        raise damaged(part, str(error)) from error


def damaged(part: Path, why: str) -> EngineError:
    return EngineError("part_damaged", f"the part {part.stem} is damaged: {why}", "it is rendered again", retry=True)


def _copied(files: ExitStack, output: OutputContainer, audio: Path, heard: Scan) -> Iterator[Timed]:
    """The original packets. Times are counted in samples, so that what is skipped ends exactly at 0."""
    container, stream = files.enter_context(open_sound(audio, audio.name))
    target = output.add_stream_from_template(stream)
    rate = heard.sound.rate
    target.time_base = Fraction(1, rate)

    def packets() -> Iterator[Timed]:
        at = -heard.skipped
        for packet, samples in zip(filter(_filled, container.demux(stream)), heard.packet_samples, strict=True):
            left = heard.sound.samples - at
            if left <= 0:
                return
            packet.stream, packet.time_base = target, Fraction(1, rate)
            packet.pts = packet.dts = at
            packet.duration = min(samples, left)
            yield Fraction(at, rate), 1, packet
            at += samples

    return packets()


def _filled(packet: Any) -> bool:
    return bool(packet.size)


def _encoded(files: ExitStack, output: OutputContainer, audio: Path) -> Iterator[Timed]:
    """The sound as AAC, at its own rate where AAC has it, in at most two channels."""
    container, stream = files.enter_context(open_sound(audio, audio.name))
    rate = min(AAC_RATES, key=lambda known: abs(known - stream.codec_context.sample_rate))
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    target = output.add_stream("aac", rate=rate, layout=layout)
    assert isinstance(target, av.AudioStream)  # noqa: S101 - AAC is sound
    target.codec_context.bit_rate = AAC_BIT_RATE if layout == "stereo" else AAC_BIT_RATE // 2

    def packets() -> Iterator[Timed]:
        samples = 0
        for frame in resampled(Decoder(container, stream), sample_format="fltp", layout=layout, rate=rate):
            frame.pts, frame.time_base = samples, Fraction(1, rate)
            samples += frame.samples
            yield from timed(target.encode(frame))
        yield from timed(target.encode(None))

    def timed(made: list[Any]) -> Iterator[Timed]:
        yield from ((packet.pts * packet.time_base, 1, packet) for packet in made)

    return packets()


def verify(path: Path, frames: int, fps: Fraction) -> None:
    """Read a finished mp4 to its end. Raises EngineError result_invalid naming the first thing that is not right.

    Right means: the index stands before the data; exactly `frames` pictures, each decodable and exactly 1 / fps after
    the one before, the first at 0; sound that decodes and ends within one frame of the picture.
    """
    try:
        with av.open(str(path)) as container:
            times = [_time(frame) for frame in container.decode(video=0)]
        with av.open(str(path)) as container:
            ends = [_end(packet) for packet in container.demux(audio=0) if packet.size]
        with av.open(str(path)) as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
    except (av.FFmpegError, IndexError) as error:
        raise invalid(f"it can't be read to its end ({error})") from error
    if not index_comes_first(path):
        raise invalid("its index doesn't stand at the front")
    if len(times) != frames:
        raise invalid(f"it has {len(times)} frames instead of {frames}")
    if times != [n / fps for n in range(frames)]:
        wrong = next(n for n, time in enumerate(times) if time != n / fps)
        raise invalid(f"frame {wrong} is shown at {float(times[wrong]):.6f} s instead of {float(wrong / fps):.6f} s")
    if not samples or abs(max(ends) - frames / fps) > 1 / fps:
        heard, seen = float(max(ends, default=Fraction(0))), float(frames / fps)
        raise invalid(f"its sound ends at {heard:.3f} s, its pictures at {seen:.3f} s")


def _time(frame: Any) -> Fraction:
    return Fraction(frame.pts * frame.time_base)


def _end(packet: Any) -> Fraction:
    return Fraction((packet.pts + (packet.duration or 0)) * packet.time_base)


def invalid(why: str) -> EngineError:
    return EngineError("result_invalid", f"the finished video failed its check: {why}", "it is made again", retry=True)


def index_comes_first(path: Path) -> bool:
    """Whether the mp4's `moov` box stands before `mdat`, so that players can start before all is there."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind in (b"moov", b"mdat"):
                return kind == b"moov"
            file.seek(size - 8 if size >= 8 else 0, 1)
    return False
