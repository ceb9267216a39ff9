"""Join parts and sound to one mp4 or mov, by stream copy: no picture is encoded twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from heapq import merge
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer

from models.atomic import atomic_write
from models.media.audio.sound import PLAYED_CODECS, scan_sound
from models.media.audio.soundtrack import Timed, copy_packets, encode_aac, encode_mix
from models.media.opening import check_disk
from models.media.output.checksum import has_valid_checksum
from models.media.output.kept import KeptPictures
from models.media.output.verify import invalid_result, verify_video
from models.types import EngineError, Layer

_MUXER = {"movflags": "+faststart", "movie_timescale": "90000"}
"""Put the index first; give lengths of tracks in a finer unit than the default millisecond."""


def assemble_video(
    parts: Sequence[Path],
    *,
    audio: Path,
    out: Path,
    frames: int,
    fps: Fraction,
    metadata: dict[str, str],
    copies_audio: bool = False,
    layers: Sequence[tuple[Path, Layer]] = (),
    alpha: bool = False,
    kept: KeptPictures | None = None,
) -> dict[str, Any]:
    """Join the parts, add the sound and verify the result, which appears by rename after its
    check. Where there are `layers`, with their files, their mix is the sound.

    The sound keeps its packets where all players play them in an mp4, else it becomes AAC.
    `copies_audio` keeps them wherever mp4 can hold them. `alpha`: the result is a mov whose pictures
    have transparency, and only sound that all players play is copied into it. `kept` is shown each
    picture of the result. Returns figures for result.json. Raises EngineError part_damaged,
    result_invalid, disk_full, and what `read_sound` raises.
    """
    codec, sound = _choose_sound(audio, layers, frames / fps, copies_audio=copies_audio and not alpha)
    for part in parts:
        if not (part.is_file() and has_valid_checksum(part)):
            raise damaged_part(part, "its bytes are not those that were written")
    order = [number for number, _ in _number_packets(parts)]
    if sorted(order) != list(range(frames)):
        raise damaged_part(parts[0], f"the parts hold {len(order)} frames, not {frames}")
    with atomic_write(out) as temp_path:
        _mux(temp_path, parts, order, sound, fps, metadata, "mov" if alpha else "mp4")
        verify_video(temp_path, frames, fps, alpha=alpha, kept=kept)
    return {"audio_codec": codec or "aac", "audio_copied": bool(codec)}


def _choose_sound(
    audio: Path, layers: Sequence[tuple[Path, Layer]], video_s: Fraction, *, copies_audio: bool
) -> tuple[str, Callable[[OutputContainer], Iterator[Timed]]]:
    """Return the codec of packets that are copied, "" where they are encoded, and what yields the packets."""
    if layers:
        return "", partial(encode_mix, layers=layers, length_s=video_s)
    scan = scan_sound(audio, audio.name, float("inf"))
    if scan.sound.copyable and (copies_audio or scan.sound.codec in PLAYED_CODECS):
        return scan.sound.codec, partial(copy_packets, audio=audio, scan=scan)
    return "", partial(encode_aac, audio=audio, scan=scan)


def _mux(
    path: Path,
    parts: Sequence[Path],
    order: list[int],
    sound: Callable[[OutputContainer], Iterator[Timed]],
    fps: Fraction,
    metadata: dict[str, str],
    container: str,
) -> None:
    try:
        with av.open(f"file:{path}", "w", format=container, options=_MUXER) as output:
            output.metadata.update(metadata)
            pictures = _time_pictures(output, parts, order, fps)
            for _, _, packet in merge(pictures, sound(output), key=lambda timed: timed[:2]):
                output.mux(packet)
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # from the disk, not the muxer
            raise
        raise invalid_result(f"it could not be put together ({error.strerror})") from error


def _time_pictures(output: OutputContainer, parts: Sequence[Path], order: list[int], fps: Fraction) -> Iterator[Timed]:
    """Yield all packets in decoding order with exact times: frame n is shown at n / fps."""
    with open_part(parts[0]) as first:
        video = output.add_stream_from_template(first.streams.video[0])
    video.time_base = 1 / fps
    delay = max(at - number for at, number in enumerate(order))
    return _time_packets(parts, video, fps, delay)


def _time_packets(parts: Sequence[Path], video: Any, fps: Fraction, delay: int) -> Iterator[Timed]:
    for at, (number, packet) in enumerate(_number_packets(parts)):
        packet.stream, packet.time_base = video, 1 / fps
        packet.pts, packet.dts, packet.duration = number, at - delay, 1
        yield (at - delay) / fps, 0, packet


def _number_packets(parts: Sequence[Path]) -> Iterator[tuple[int, Any]]:
    """Yield (frame number in the result, packet) in decoding order. Raises part_damaged."""
    start, header = 0, None
    for part in parts:
        with open_part(part) as container:
            stream = container.streams.video[0]
            header = header or stream.codec_context.extradata
            if stream.codec_context.extradata != header:
                raise damaged_part(part, "it was encoded in another way than the parts before it")
            packets = [packet for packet in container.demux(stream) if packet.size]
            place = {pts: start + n for n, pts in enumerate(sorted(packet.pts or 0 for packet in packets))}
            if not packets or len(place) != stream.frames or not packets[0].is_keyframe:
                raise damaged_part(part, f"{len(place)} of its {stream.frames} frames are there")
            yield from ((place[packet.pts or 0], packet) for packet in packets)
            start += len(packets)


def open_part(part: Path) -> InputContainer:
    try:
        container = av.open(f"file:{part}", format="mov")
    except av.FFmpegError as error:
        check_disk(part, error)
        raise damaged_part(part, str(error.strerror)) from error
    if len(container.streams.video) != 1:
        raise damaged_part(part, "it holds no pictures")
    return container


def damaged_part(part: Path, why: str) -> EngineError:
    return EngineError("part_damaged", f"the part {part.stem} is damaged: {why}", "it is rendered again", retry=True)
