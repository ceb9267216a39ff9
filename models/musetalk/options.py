"""The options of the MuseTalk engine, and the defaults of each version of the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.options import AudioTrack, GivenBox, parse_options
from models.types import EngineError, Inspection, Request

PREVIEW = dict.fromkeys(("draft", "mouth", "blink", "sway", "strength", "seed"), "preview")
"""Options that only the preview engine has."""

Version = Literal["v15", "v1"]
ParsingMode = Literal["jaw", "neck", "raw"]
Way = Literal["ours", "reference", "realtime"]
"""How boxes, audio windows and masks are made; "reference" and "realtime" are MuseTalk's own two
programs."""

MARGIN_PX, MARGIN_AT_PX = 10, 256
"""Pixels below the chin in v15, and the side of the square that its network paints."""
OURS_ALONE = {"smooth_box": "smooth", "smooth_mask": "smooth", "match_colour": "match", "antialias": "anti-alias"}
"""Switches without effect in the reference's way, and what it does not do."""

CheekWidth = Annotated[int, Field(ge=0, le=256)]
AudioPadding = Annotated[int, Field(ge=0, le=20)]
CheekWidths = Annotated[list[CheekWidth], Field(min_length=2, max_length=2)]


class Options(BaseModel):
    """The keys that `options` of a job may hold, with their defaults.

    None stands for the default of the version.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: Version = "v15"
    bbox_shift: Annotated[int, Field(ge=-100, le=100)] = 0
    extra_margin: Literal["auto"] | Annotated[int, Field(ge=0, le=200)] | None = None
    parsing_mode: ParsingMode | None = None
    cheek_width: CheekWidth | CheekWidths = 90
    audio_padding_length_left: AudioPadding = 2
    audio_padding_length_right: AudioPadding = 2
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8", "fp8"] = "auto"
    quality: Literal["full", "draft"] = "full"
    label: bool | Literal["AI"] = False
    smooth_box: bool = True
    smooth_mask: bool = True
    match_colour: bool = True
    antialias: bool = True
    no_face: Literal["keep", "fail"] = "keep"
    silence: Literal["model", "close"] | None = None
    face: Literal["largest"] | Annotated[int, Field(ge=0, le=99)] = "largest"
    face_box: GivenBox | None = None
    audio_track: AudioTrack | None = None
    cycle: Literal["pingpong", "loop", "hold"] = "pingpong"
    compile: Literal["auto"] | bool = "auto"
    reference: bool | Literal["realtime"] = False

    @property
    def way(self) -> Way:
        """Which program's rules the job follows; see `Way`."""
        if self.reference == "realtime":
            return "realtime"
        return "reference" if self.reference else "ours"

    @property
    def is_reference(self) -> bool:
        """Whether MuseTalk's own rules apply.

        It rounds times, does not smooth, and detects faces at full size.
        """
        return self.way != "ours"

    @property
    def shift_px(self) -> int:
        """Pixels by which the middle of the box moves down.

        Always 0 for v15 in the reference's way.
        """
        return 0 if self.is_reference and self.version == "v15" else self.bbox_shift

    @property
    def bits(self) -> Literal["int8", "fp8"] | None:
        """In what convolutions run that keep their pictures there; None: all run in one precision."""
        return self.precision if self.precision in ("int8", "fp8") else None

    @property
    def is_draft(self) -> bool:
        """Whether every second face is painted, and the others are averages."""
        return self.quality == "draft"

    def describe_label(self, has_draft_decoder: bool = False) -> str:
        """Return what is written into a corner of each frame, "" for nothing."""
        said = (("AI", self.label), ("DRAFT", self.is_draft), ("TAESD", self.is_draft and has_draft_decoder))
        return " ".join(word for word, is_said in said if is_said)

    @property
    def margin_px(self) -> int:
        """Pixels that are added to the box below the chin; 0 where a share of the box is."""
        if isinstance(self.extra_margin, int):
            return self.extra_margin
        return MARGIN_PX if self.is_reference and self.version == "v15" else 0

    @property
    def margin_share(self) -> float:
        """Which share of its height is added to the box below the chin."""
        is_auto = self.extra_margin == "auto" or (self.extra_margin is None and self.version == "v15")
        return MARGIN_PX / MARGIN_AT_PX if is_auto and not self.is_reference else 0.0

    @property
    def frames_per_batch(self) -> int | None:
        """The batch size that the job asks for; None where memory decides."""
        return None if self.batch_size == "auto" else self.batch_size

    @property
    def parsing(self) -> ParsingMode:
        """Which classes of the parsed face are inpainted."""
        usual: ParsingMode = "jaw" if self.version == "v15" else "raw"
        return usual if self.parsing_mode is None else self.parsing_mode

    @property
    def cheek_widths(self) -> tuple[int, int]:
        """Left and right cheek, in columns of the parsing map, which is 512 wide."""
        left, right = (self.cheek_width,) * 2 if isinstance(self.cheek_width, int) else self.cheek_width
        return left, right

    @property
    def audio_context(self) -> tuple[int, int]:
        """Frames of 40 ms that the UNet hears before and after its own."""
        return self.audio_padding_length_left, self.audio_padding_length_right

    @property
    def has_smooth_boxes(self) -> bool:
        """Whether the boxes are smoothed over time."""
        return self.smooth_box and not self.is_reference

    @property
    def has_smooth_masks(self) -> bool:
        """Whether what shows of the face is smoothed over time."""
        return self.smooth_mask and not self.is_reference

    @property
    def matches_colour(self) -> bool:
        """Whether the inpainted face takes the tone of its frame."""
        return self.match_colour and not self.is_reference

    @property
    def has_antialiasing(self) -> bool:
        """Whether faces are shrunk without aliasing."""
        return self.antialias and not self.is_reference

    @property
    def closes_in_pauses(self) -> bool:
        """Whether the mouth settles to the avatar's own where nobody speaks."""
        return self.silence == "close" or (self.silence is None and not self.is_reference)

    @property
    def preparation_inputs(self) -> dict[str, Any]:
        """The resolved values on which a prepared avatar depends, and no others, as JSON.

        They key the avatar cache.
        """
        return {
            "shift": self.shift_px,
            "margin": "auto" if self.margin_share else self.margin_px,
            "parsing": self.parsing,
            "cheeks": list(self.cheek_widths) if self.parsing == "jaw" else [],
            "smooth": self.has_smooth_boxes,
            "face": self.face,
            "way": self.way,
            **({"smooth_mask": True} if self.has_smooth_masks else {}),
            **({"antialias": True} if self.has_antialiasing else {}),
            **({"face_box": self.face_box} if self.face_box else {}),
            **({"untagged": "BT.601"} if self.is_reference else {}),
        }


def read_inspected_options(request: Request, inspection: Inspection) -> Options:
    """Return the options of a job with the version that its inspection chose.

    The job keeps it, though weights of another version come while it runs. Raises EngineError
    bad_option.
    """
    return read_options(request.options, inspection.details.get("version", "v15"))[0]


def has_draft_decoder(inspection: Inspection) -> bool:
    """Whether a job is a draft whose faces TAESD decodes, as its inspection chose."""
    return bool(inspection.details.get("draft_decoder"))


def read_options(given: dict[str, Any], version: Version = "v15") -> tuple[Options, tuple[str, ...]]:
    """Check the options of a job; return them, and a note for each that is ignored.

    `version` is that of a job which names none. Raises EngineError bad_option.
    """
    options, notes = parse_options(Options, {"version": version, **given}, "musetalk", PREVIEW)
    if options.is_reference and options.version == "v1" and options.parsing != "raw":
        message = (
            'the option "parsing_mode" must be "raw" with "version": "v1" and "reference": the reference has no other'
        )
        raise EngineError("bad_option", message, 'leave out "reference", or "parsing_mode"')
    if options.is_reference and options.is_draft:
        message = 'the option "quality" can\'t be "draft" with "reference": the original program has no drafts'
        raise EngineError("bad_option", message, 'leave out "reference", or "quality"')
    if options.is_reference and options.bits:
        message = f'the option "precision" can\'t be "{options.bits}" with "reference", which is exact'
        raise EngineError("bad_option", message, 'leave out "reference", or "precision"')
    if options.bbox_shift and not options.shift_px:
        notes += ('the option "bbox_shift" is ignored: with "reference" version v15 has no shift',)
    for name, act in OURS_ALONE.items():
        if options.is_reference and given.get(name):
            notes += (f'the option "{name}" is ignored: the reference does not {act}',)
    return options, notes
