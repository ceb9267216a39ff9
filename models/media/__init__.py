"""Media files: probing, reading, encoding, joining, verifying. The only rooms that know PyAV."""

from models.media.encode import choose_encoder, examine, write_jpeg, write_part
from models.media.join import assemble
from models.media.opening import limit_threads
from models.media.picture import Picture, read_image, read_picture
from models.media.sound import Sound, read_sound, read_waveform
from models.media.verify import verify
from models.media.video import VideoFrames

__all__ = [
    "Picture",
    "Sound",
    "VideoFrames",
    "assemble",
    "choose_encoder",
    "examine",
    "limit_threads",
    "read_image",
    "read_picture",
    "read_sound",
    "read_waveform",
    "verify",
    "write_jpeg",
    "write_part",
]
