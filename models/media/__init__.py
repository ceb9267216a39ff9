"""Media files: probing, reading, encoding, joining, verifying. The only rooms that know PyAV."""

from models.media.colour import BT709, Bgr, bgr_to_yuv
from models.media.encode import write_jpeg, write_part
from models.media.encoders import choose_encoder, examine, plan_encoder
from models.media.join import assemble
from models.media.opening import limit_threads
from models.media.picture import Picture, read_image, read_picture
from models.media.planar import Yuv, bgr_of, planes
from models.media.sound import Sound, read_sound, read_waveform
from models.media.verify import verify
from models.media.video import VideoFrames

__all__ = [
    "BT709",
    "Bgr",
    "Picture",
    "Sound",
    "VideoFrames",
    "Yuv",
    "assemble",
    "bgr_of",
    "bgr_to_yuv",
    "choose_encoder",
    "examine",
    "limit_threads",
    "plan_encoder",
    "planes",
    "read_image",
    "read_picture",
    "read_sound",
    "read_waveform",
    "verify",
    "write_jpeg",
    "write_part",
]
