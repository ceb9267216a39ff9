"""Probe, read, encode, join and verify media files. The only package that imports PyAV."""

from models.media.audio.layers import write_voice
from models.media.audio.sound import Sound, read_sound, read_soundtrack, read_waveform
from models.media.budget import spend
from models.media.interpolation import write_clip
from models.media.numbered import join_pictures
from models.media.opening import limit_threads
from models.media.output.encode import ALPHA_ENCODER, write_jpeg, write_part
from models.media.output.encoders import (
    choose_encoder,
    describe_worker,
    fall_back,
    plan_encoder,
    read_encoder,
    settle_encoder,
)
from models.media.output.join import assemble_video
from models.media.output.kept import KeptPictures
from models.media.output.verify import verify_video
from models.media.picture import Picture, read_background, read_image, read_picture
from models.media.pictures.background import BLACK, WHITE, Background, keep_opacity, measure_opacity
from models.media.pictures.colour import BT709, bgr_to_yuv_matrix
from models.media.pictures.planar import PatchedPlanes, PlanesEditor, split_planes, yuv_to_bgr
from models.media.video import VideoFrames

__all__ = [
    "ALPHA_ENCODER",
    "BLACK",
    "BT709",
    "WHITE",
    "Background",
    "KeptPictures",
    "PatchedPlanes",
    "Picture",
    "PlanesEditor",
    "Sound",
    "VideoFrames",
    "assemble_video",
    "bgr_to_yuv_matrix",
    "choose_encoder",
    "describe_worker",
    "fall_back",
    "join_pictures",
    "keep_opacity",
    "limit_threads",
    "measure_opacity",
    "plan_encoder",
    "read_background",
    "read_encoder",
    "read_image",
    "read_picture",
    "read_sound",
    "read_soundtrack",
    "read_waveform",
    "settle_encoder",
    "spend",
    "split_planes",
    "verify_video",
    "write_clip",
    "write_jpeg",
    "write_part",
    "write_voice",
    "yuv_to_bgr",
]
