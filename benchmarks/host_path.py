"""What a frame costs the CPU beside the networks: the published program's way, and ours, on the same frames and faces.

    nice -n 10 python -m benchmarks.host_path [--height 720] [--frames 75] [--rounds 3] [--crf 18]

The published way, in short: each source frame is read from a PNG, copied, turned into a Pillow picture, pasted over as
a whole and turned back; written as PNG; the PNGs are read again and encoded (CRF 18); and the video is encoded again as
the sound is added (CRF 23). Masks are prepared, and so are the PNGs of the source: that is its cheaper program. Ours
reads the source from its video. CPU time is all threads' in the best round. PSNR is against what was pasted.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image

from models import media
from models.arrays import U8
from models.musetalk.compositing.composite import BgrBlend, YuvBlend, fit_face
from models.musetalk.compositing.masks import make_blend_mask, make_parsing_mask, square_around
from models.musetalk.compositing.pipeline import compose_frames, read_frames
from models.musetalk.geometry import Box
from models.types import Colour
from tests import media_samples as samples

FPS = Fraction(25)
EXAMPLE = Path(__file__).parents[1] / "inbox_example" / "collins.mp4"
FACE_IN_EXAMPLE = (165, 95, 320, 275)
BATCH = 8


@dataclass
class Scene:
    """What both ways are given: a video avatar, the painted faces, box and mask of each frame, a voice."""

    folder: Path
    width: int
    height: int
    colour: Colour = media.BT709
    frames: list[U8] = field(default_factory=list)
    faces: list[U8] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    masks: list[U8] = field(default_factory=list)

    @property
    def video(self) -> Path:
        return self.folder / "avatar.mp4"

    @property
    def voice(self) -> Path:
        return self.folder / "voice.wav"

    def truth(self) -> Iterator[U8]:
        for frame, face, box, mask in zip(self.frames, self.faces, self.boxes, self.masks, strict=True):
            pasted = frame.copy()
            BgrBlend(mask, box, square_around(box), (self.width, self.height)).apply(pasted, face)
            yield pasted


def scene(folder: Path, height: int, count: int) -> Scene:
    """The example's portrait before its own blurred self, 16:9; a face whose mouth opens and closes."""
    made = Scene(folder, height * 16 // 9 // 2 * 2, height)
    with media.VideoFrames(EXAMPLE, FPS) as video:
        frames = [staged(video.read(n % len(video)), made.width, height) for n in range(count)]
    samples.video(made.video, count, made.width, height, frames=iter(frames), options={"crf": "14"})
    samples.speech_wav(made.voice, count / 25)
    parsed = make_parsing_mask(face_classes(), "jaw")
    left = (made.width - height) // 2
    with media.VideoFrames(made.video, FPS) as video:
        for n in range(count):
            x1, y1, x2, y2 = (edge * height // 480 for edge in FACE_IN_EXAMPLE)
            box = (left + x1 + n % 3, y1 - n % 2, left + x2 + n % 3, y2)
            made.frames.append(video.read(n))
            cv2.imwrite(str(folder / f"source{n:08d}.png"), made.frames[-1])
            made.boxes.append(box)
            made.faces.append(painted(made.frames[-1], box, n))
            made.masks.append(make_blend_mask(parsed, box, square_around(box), prepared=True))
    return made


def staged(picture: U8, width: int, height: int) -> U8:
    wide = cv2.GaussianBlur(cv2.resize(picture, (width, height)), (0, 0), height / 40)
    left = (width - height) // 2
    wide[:, left : left + height] = cv2.resize(picture, (height, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(wide, np.uint8)


def face_classes() -> U8:
    """An oval of skin with a mouth, as a parser would see the square about a face."""
    classes = np.zeros((512, 512), np.uint8)
    cv2.ellipse(classes, (256, 250), (105, 165), 0, 0, 360, 1, -1)
    cv2.ellipse(classes, (256, 350), (40, 18), 0, 0, 360, 12, -1)
    return classes


def painted(frame: U8, box: Box, number: int) -> U8:
    """The face of the box at the networks' size, with another mouth: what a decoder would hand over."""
    x1, y1, x2, y2 = box
    face = cv2.resize(frame[y1:y2, x1:x2], (256, 256), interpolation=cv2.INTER_LANCZOS4)
    opening = 3 + int(9 * (1 + np.sin(number * 0.9)))
    cv2.ellipse(face, (128, 182), (34, opening), 0, 0, 360, (50, 40, 110), -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(face, (3, 3), 0), np.uint8)


# the published way ---------------------------------------------------------------------------------------------------


def published(given: Scene, clock: Clock) -> Path:
    temporary, result = given.folder / "temp.mp4", given.folder / "published.mp4"
    for n in range(len(given.frames)):
        with clock("read PNG of the source"):
            frame = np.asarray(cv2.imread(str(given.folder / f"source{n:08d}.png")), np.uint8)
        with clock("paste over the whole picture"):
            combined = over_the_whole(frame, given.faces[n], given.boxes[n], given.masks[n])
        with clock("write PNG"):
            cv2.imwrite(str(given.folder / f"{n:08d}.png"), combined)
    with clock("read PNG, encode (CRF 18)"), av.open(str(given.folder / "%08d.png"), format="image2") as pictures:
        encode_once(pictures, temporary, "18", None)
    with clock("encode again (CRF 23), add sound"), av.open(str(temporary)) as pictures:
        encode_once(pictures, result, "23", given.voice)
    return result


def over_the_whole(frame: U8, face: U8, box: Box, mask: U8) -> U8:
    background, crop = copy.deepcopy(frame), square_around(box)
    picture = Image.fromarray(background[:, :, ::-1])
    square = picture.crop(crop)
    square.paste(Image.fromarray(fit_face(face, box)[:, :, ::-1]), (box[0] - crop[0], box[1] - crop[1]))
    picture.paste(square, crop[:2], Image.fromarray(mask))
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def encode_once(pictures: av.container.InputContainer, path: Path, crf: str, voice: Path | None) -> None:
    """x264's default preset and threads, no colour said: what the ffmpeg command does."""
    reformatter = VideoReformatter()
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"crf": crf})
        source = pictures.streams.video[0]
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, "yuv420p"
        stream.codec_context.thread_type = "FRAME"
        sound = output.add_stream("aac", rate=16_000, layout="mono") if voice else None
        for n, frame in enumerate(pictures.decode(source)):
            stored = reformatter.reformat(
                frame, format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG, threads=1
            )
            stored.pts, stored.time_base, stored.pict_type = n, 1 / FPS, PictureType.NONE
            output.mux(stream.encode(stored))
        output.mux(stream.encode(None))
        if voice and sound:
            with av.open(str(voice)) as spoken:
                for heard in spoken.decode(audio=0):
                    output.mux(sound.encode(heard))
            output.mux(sound.encode(None))


# ours ----------------------------------------------------------------------------------------------------------------


def ours(given: Scene, clock: Clock, crf: int) -> Path:
    part, result, count = given.folder / "part.mp4", given.folder / "ours.mp4", len(given.frames)
    with clock("read, paste, encode: all at once"):
        size, colour = (given.width, given.height), given.colour
        pastes = (
            (YuvBlend(mask, box, square_around(box), size, colour),)
            for mask, box in zip(given.masks, given.boxes, strict=True)
        )
        batches = (np.stack(given.faces[start : start + BATCH]) for start in range(0, count, BATCH))
        backgrounds = read_frames(lambda: media.VideoFrames(given.video, FPS, as_yuv=True), range(count))
        media.write_part(
            part,
            compose_frames(backgrounds, batches, pastes),
            count=count,
            fps=FPS,
            width=given.width,
            height=given.height,
            encoder="libx264",
            crf=crf,
            progress=lambda _: None,
            colour=colour,
        )
    with clock("join, add sound, read it all to verify"):
        media.assemble_video([part], audio=given.voice, out=result, frames=count, fps=FPS, metadata={})
    return result


def pieces_of_ours(given: Scene) -> dict[str, float]:
    """CPU seconds a frame of reading and pasting alone: what is left of `ours` is encoding."""
    count, size, colour = len(given.frames), (given.width, given.height), given.colour
    began = time.process_time()
    with media.VideoFrames(given.video, FPS, as_yuv=True) as video:
        frames = [video.read(n) for n in range(min(count, 50))]
    read = (time.process_time() - began) / len(frames)
    began = time.process_time()
    for frame, face, box, mask in zip(frames, given.faces, given.boxes, given.masks, strict=False):
        YuvBlend(mask, box, square_around(box), size, colour).apply(frame, face)
    return {"read": read, "paste": (time.process_time() - began) / len(frames)}


# figures -------------------------------------------------------------------------------------------------------------


class Clock:
    """CPU seconds by name, summed over a round; the best round of each way is kept."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}

    def round(self, work: Callable[[Scene, Clock], Path], given: Scene) -> Path:
        self._now: dict[str, float] = {}
        result = work(given, self)
        if not self.best or self.total(self._now) < self.total(self.best):
            self.best = self._now
        return result

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self._now[name] = self._now.get(name, 0) + time.process_time() - began

    @staticmethod
    def total(seconds: dict[str, float]) -> float:
        return sum(seconds.values())


def psnr(path: Path, truth: Iterator[U8], matrix: Colorspace) -> float:
    """In dB, over B, G and R of all frames, decoded with the matrix that the file was made with."""
    squares, count, reformatter = 0.0, 0, VideoReformatter()
    with av.open(str(path)) as container:
        for frame, true in zip(container.decode(video=0), truth, strict=True):
            shown = reformatter.reformat(frame, format="bgr24", src_colorspace=matrix, threads=1).to_ndarray()
            squares += float(((shown.astype(np.float32) - true) ** 2).mean())
            count += 1
    return float(10 * np.log10(255**2 * count / squares))


def table(name: str, clock: Clock, frames: int, quality: float, path: Path) -> float:
    total = 1000 * Clock.total(clock.best) / frames
    print(f"\n{name}")
    for part, seconds in clock.best.items():
        print(f"  {part:<42}{1000 * seconds / frames:8.2f} ms CPU a frame")
    kb = path.stat().st_size * 25 / frames / 1000
    print(f"  {'together':<42}{total:8.2f} ms CPU a frame   {quality:.2f} dB   {kb:.0f} kB/s")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for option, usual in (("--height", 720), ("--frames", 75), ("--rounds", 3), ("--crf", 18)):
        parser.add_argument(option, type=int, default=usual)
    asked = parser.parse_args()
    media.limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        given = scene(Path(folder), asked.height, asked.frames)
        theirs, mine = Clock(), Clock()
        for _ in range(asked.rounds):
            old = theirs.round(published, given)
            new = mine.round(lambda given, clock: ours(given, clock, asked.crf), given)
        print(f"{given.width} x {given.height}, {asked.frames} frames, best of {asked.rounds} rounds")
        before = table("published", theirs, asked.frames, psnr(old, given.truth(), Colorspace.ITU601), old)
        after = table("ours", mine, asked.frames, psnr(new, given.truth(), Colorspace.ITU709), new)
        pieces = "   ".join(f"{name} {1000 * s:.2f} ms" for name, s in pieces_of_ours(given).items())
        print(f"  of which {pieces}   the rest encodes")
        rendering = 1000 * next(iter(mine.best.values())) / asked.frames
        print(f"\n{before / after:.1f} times less CPU; {before / rendering:.1f} times without joining and verifying")


if __name__ == "__main__":
    main()
