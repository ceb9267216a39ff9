"""Every option of the engine at every kind of value, as a user would try them: a still and a video, tiny weights."""

from __future__ import annotations

import io
import shutil
import wave
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.handler import Handler
from models.media import split_planes
from models.media.output.encode import write_part
from models.musetalk.avatar.frames import BgrFrames, open_yuv
from models.musetalk.avatar.store import PreparedAvatar
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.frame_timing import pick_source_frames
from models.musetalk.inpainting.precision import candidate_dtypes, has_cpu_bf16, precision_name
from models.musetalk.nets import bisenet
from models.musetalk.options import Options, read_options
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import make_request, write_image
from tests.share import voice

BATCH = 2
SHOWN = range(2, 2 + BATCH)
"""Frames that are rendered: a batch, in which each cycle of two frames has another order."""
AUTO = precision_name(candidate_dtypes("auto", "cpu", cpu_bf16=has_cpu_bf16())[0])

Pictures = list[np.ndarray]


@dataclass(frozen=True)
class Result:
    """Frames and, of each, the avatar's own picture and the box that was inpainted."""

    frames: Pictures
    own: Pictures
    boxes: list[list[int]]


Claim = Callable[[Result, Result], bool]


def same(one: Result, other: Result) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))


def almost(one: Result, other: Result) -> bool:
    """Sums may be made in another order: no value is more than a level off."""
    return all(int(np.abs(a.astype(int) - b).max()) <= 1 for a, b in zip(one.frames, other.frames, strict=True))


def near(one: Result, other: Result) -> bool:
    """What bf16 instead of fp32 makes of a face."""
    return not same(one, other) and difference(one.frames, other.frames) < 3


def other(one: Result, usual: Result) -> bool:
    """Another picture in each frame, not only a digit somewhere."""
    return all(difference([a], [b]) > 0.02 for a, b in zip(one.frames, usual.frames, strict=True))


def reordered(one: Result, usual: Result) -> bool:
    """Other pictures of the avatar than usual, in some of the frames."""
    return difference(one.own, usual.own) > 0.02 and not same(one, usual)


def other_mouth(one: Result, usual: Result) -> bool:
    """The tiny network hears so little that only some values change."""
    return not same(one, usual)


def labelled(one: Result, usual: Result) -> bool:
    """A label in a corner, which the rest of the claims knows nothing of."""
    changed = [
        (split_planes(a)[0] != split_planes(b)[0])[:10, :20].any()
        for a, b in zip(one.frames, usual.frames, strict=True)
    ]
    return all(changed)


def own(one: Result, _: Result) -> bool:
    return difference(one.frames, one.own) == 0


def difference(some: Pictures, others: Pictures) -> float:
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(some, others, strict=True)]))


SPELT_OUT: dict[str, Any] = {
    "version": "v15",
    "bbox_shift": 0,
    "extra_margin": "auto",
    "parsing_mode": "jaw",
    "cheek_width": 90,
    "precision": "fp32",
    "quality": "full",
    "smooth_box": True,
    "smooth_mask": True,
    "match_colour": True,
    "antialias": True,
    "no_face": "keep",
    "silence": "model",
    "face": "largest",
    "cycle": "pingpong",
    "compile": False,
    "reference": False,
}
ON_BOTH: tuple[tuple[dict[str, Any], Claim], ...] = (
    (SPELT_OUT, same),
    ({"no_face": "fail", "compile": True, "precision": "fp16"}, same),
    ({"bbox_shift": -7}, other),
    ({"bbox_shift": 7}, other),
    ({"extra_margin": 0}, other),
    ({"extra_margin": 10}, other),
    ({"match_colour": False}, other),
    ({"quality": "draft"}, labelled),
    ({"label": "AI"}, labelled),
    ({"antialias": False}, other),
    ({"extra_margin": 40}, other),
    ({"cheek_width": 0}, other),
    ({"cheek_width": [20, 256]}, other),
    ({"parsing_mode": "neck"}, other),
    ({"parsing_mode": "raw"}, other),
    ({"audio_padding_length_left": 0}, other_mouth),
    ({"audio_padding_length_left": 20, "audio_padding_length_right": 20}, other_mouth),
    ({"audio_padding_length_left": 2, "audio_padding_length_right": 2}, same),
    ({"audio_track": 1}, same),
    ({"silence": "close"}, own),
    ({"batch_size": 1}, almost),
    ({"batch_size": 5}, almost),
    ({"batch_size": "auto"}, almost),
    ({"precision": "bf16"}, near),
    ({"version": "v1"}, other),
    ({"version": "v1", "extra_margin": "auto", "parsing_mode": "jaw"}, same),
)
"""fp32 is the usual precision here, also where fp16 is asked of a CPU, and v1 has the weights of v15."""
ON_ONE: dict[str, tuple[tuple[dict[str, Any], Claim], ...]] = {
    "image": (
        ({"smooth_box": False, "smooth_mask": False, "face": 0, "cycle": "loop"}, same),
        ({"cycle": "hold"}, same),
        ({"face_box": [52, 32, 56, 56]}, other),
    ),
    "video": (
        ({"smooth_box": False}, other),
        ({"smooth_mask": False}, other),
        ({"face": 0}, other),
        ({"face": 1}, same),
        ({"cycle": "loop"}, reordered),
        ({"cycle": "hold"}, reordered),
    ),
}
REFERENCES: tuple[dict[str, Any], ...] = (
    {"reference": True},
    {"reference": "realtime"},
    {"version": "v1", "reference": True},
)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both versions; the older one has the same tiny weights under its own names."""
    folder = tiny.lay_out(tmp_path_factory.mktemp("models"))
    torch.save(bright_skin(), folder / "face-parse-bisent" / "79999_iter.pth")
    (folder / "musetalk").mkdir()
    for new, old in (("unet.pth", "pytorch_model.bin"), ("musetalk.json", "musetalk.json")):
        shutil.copyfile(folder / "musetalkV15" / new, folder / "musetalk" / old)
    return folder


def bright_skin() -> dict[str, torch.Tensor]:
    """A parser to which bright pixels are skin and dark ones neck."""
    state = tiny.blank(bisenet.BiSeNet(tiny.NARROW))
    trunk = "cp.resnet."
    state[trunk + "conv1.weight"][0, :, 3, 3] = torch.tensor(bisenet.STD) / 3
    state[trunk + "layer2.0.downsample.0.weight"][0, 0] = 1
    for norm in ("bn1", "layer2.0.downsample.1"):
        state[f"{trunk}{norm}.weight"][0] = 1
    state[trunk + "bn1.bias"][0] = sum(bisenet.MEAN) / 3
    state["ffm.convblk.conv.weight"][0, 0] = 1  # which gives half as much again
    state["conv_out.conv.conv.weight"][0, 0, 1, 1] = 1 / 1.5
    state["conv_out.conv.bn.bias"][1] = 1
    state["conv_out.conv_out.weight"][1, 0] = 1
    state["conv_out.conv_out.weight"][14, 1] = 0.6
    return state


def write_trembling_video(path: Path) -> Path:
    """Two faces of one size, of which the right one trembles: by 13 pixels, which the detector takes for 16."""
    face = tiny.picture()[40:80, 60:100]
    frames = []
    for tremble in (5, 18):
        frame = np.full((128, 320, 3), 20, np.uint8)
        frame[36:76, 101:141] = face
        frame[36:76, 176 + tremble : 216 + tremble] = face
        frames.append(frame)
    size: dict[str, Any] = {"width": frames[0].shape[1], "height": frames[0].shape[0]}
    write_part(path, iter(frames), count=2, fps=Fraction(25), encoder="libx264", crf=4, progress=lambda _: None, **size)
    return path


def silence_and_voice(path: Path) -> None:
    with wave.open(io.BytesIO(voice(0.4))) as speech, wave.open(str(path), "wb") as sound:
        sound.setparams(speech.getparams())
        sound.writeframes(bytes(speech.getframerate() * speech.getsampwidth() * speech.getnchannels()))
        sound.writeframes(speech.readframes(speech.getnframes()))


class Maker:
    """Jobs for one avatar, one after the other in one worker."""

    def __init__(self, folder: Path, models_dir: Path, avatar: Path) -> None:
        self.folder, self.models_dir, self.avatar = folder, models_dir, avatar
        self.handler, self.engine, self.jobs = Handler("cpu:0"), MuseTalkEngine("cpu:0"), 0

    def make(self, **given: Any) -> Result:
        self.jobs += 1
        given = {"batch_size": BATCH, "silence": "model", **given}
        request = make_request(self.folder, self.models_dir, self.avatar, job=f"job{self.jobs}", **given)
        silence_and_voice(self.folder / "voice.wav")
        inspection = self.handler.inspect(request)
        self.engine.prepare(request, inspection, 0, 1, lambda _: None)
        frames = list(self.engine.render(request, inspection, SHOWN.start, SHOWN.stop))
        options, _ = read_options(given)
        with (
            BgrFrames(request, inspection, reference=True)
            if options.is_reference
            else open_yuv(request, inspection) as video
        ):
            sources = pick_source_frames(SHOWN.stop, len(video), options.cycle)[SHOWN.start :].tolist()
            pictures = [video.read(source) for source in sources]
        avatar = PreparedAvatar(request.files.prepared / "avatar")
        return Result(frames, pictures, [list(avatar.box(source)) for source in sources])


def test_no_option_is_forgotten() -> None:
    """The rows here name every option of the engine."""
    rows = [*ON_BOTH, *ON_ONE["image"], *ON_ONE["video"]]
    named = {name for given in [*(given for given, _ in rows), *REFERENCES] for name in given}
    assert named == set(Options.model_fields)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "video"])
def test_each_value_does_what_it_says(tmp_path: Path, models_dir: Path, kind: str) -> None:
    """Each value inpaints the box of the face alone, and changes the mouth where it should."""
    avatar = write_image(tmp_path / "face.png") if kind == "image" else write_trembling_video(tmp_path / "face.mp4")
    maker = Maker(tmp_path, models_dir, avatar)
    usual = maker.make()
    for given, holds in ON_ONE[kind] + ON_BOTH:
        made = maker.make(**given)
        assert holds(made, usual), given
        if holds not in (own, labelled):
            assert is_changed_inside_boxes(made), given
    assert same(maker.make(precision="auto"), usual if AUTO == "fp32" else maker.make(precision=AUTO))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "video"])
def test_the_references_ways_differ(tmp_path: Path, models_dir: Path, kind: str) -> None:
    """Its two programs blur differently, its two versions mask differently; all inpaint the box of the face alone."""
    avatar = write_image(tmp_path / "face.png") if kind == "image" else write_trembling_video(tmp_path / "face.mp4")
    maker = Maker(tmp_path, models_dir, avatar)
    made = [maker.make(**given) for given in REFERENCES]
    assert all(is_changed_inside_boxes(one) for one in made)
    assert other(made[1], made[0])
    assert other(made[2], made[0])


def is_changed_inside_boxes(made: Result) -> bool:
    """Every frame differs from the avatar's own there, and nowhere else."""
    for frame, picture, (x1, y1, x2, y2) in zip(made.frames, made.own, made.boxes, strict=True):
        changed = frame != picture
        luma = changed.any(2) if changed.ndim == 3 else split_planes(changed)[0]
        inside = np.zeros_like(luma)
        inside[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
        if luma[inside].mean() < 0.02 or luma[~inside].any():
            return False
    return True
