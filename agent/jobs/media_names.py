"""Which file names are media, and which names are those of avatars."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_IMAGES = """.jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .tif .tiff .gif .avif .heic .heif .jp2 .j2k
    .ppm .pgm .pbm .pnm .pam"""
_VIDEOS = """.mp4 .mov .qt .mkv .webm .avi .m4v .ts .mts .m2ts .m2t .mpg .mpeg .vob .3gp .3g2 .wmv .asf .flv
    .ogv .mxf"""
_SOUNDS = """.wav .mp3 .m4a .aac .flac .ogg .opus .wma .aif .aiff .aifc .amr .caf .ac3 .eac3 .au .snd .w64 .wv
    .oga .mka .weba .m4b .m4r .bwf"""
IMAGE_SUFFIXES, VIDEO_SUFFIXES = frozenset(_IMAGES.split()), frozenset(_VIDEOS.split())
AVATAR_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES
AUDIO_SUFFIXES = frozenset(_SOUNDS.split())

LIBRARY_NAME = r"^[^./\\][^/\\]{0,127}$"


def media_suffix(name: str) -> str:
    """Return the lower-case suffix of a path with slashes or backslashes; "" without one."""
    return PurePosixPath(name.replace("\\", "/")).suffix.lower()


def is_library_name(avatar: str) -> bool:
    """Whether `avatar` is a name of the library ("anna") and no file ("anna.jpg", "in/anna")."""
    possible = re.fullmatch(LIBRARY_NAME, avatar) is not None and avatar.isprintable()
    return possible and media_suffix(avatar) not in AVATAR_SUFFIXES | AUDIO_SUFFIXES
