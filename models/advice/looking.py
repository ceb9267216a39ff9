"""Look at the media of a job while it is inspected, and give advice about them."""

from __future__ import annotations

from models import media
from models.advice.picture import Advice, advise_on_faces
from models.advice.sound import advise_on_levels, advise_on_voice
from models.preview.engine import sample_pictures
from models.preview.face import find_faces
from models.preview.speech import RATE
from models.types import EngineError, Inspection, Request

HEARD_S = 120.0
"""As much of a voice as is listened to."""
_FRAMES = 3
"""As many frames of a video are looked at."""


def advise(request: Request, inspection: Inspection) -> Advice:
    """Return what to do about the input of a job; nothing where looking at it again would cost too much."""
    try:
        return look_and_listen(request, inspection)
    except EngineError:
        return {}


def look_and_listen(request: Request, inspection: Inspection) -> Advice:
    """Return what is the matter with the media, by codes. Raises EngineError of the budget of an inspection."""
    advice: Advice = {}
    if request.options.get("face_box") is None:
        pictures = [(picture, find_faces(picture)) for picture in sample_pictures(request, inspection, _FRAMES)]
        given = request.options.get("face")
        faces = [voice.face for voice in inspection.voices if voice.face is not None]
        for chosen in faces or (given if isinstance(given, int) else None,):
            advice |= advise_on_faces(pictures, chosen)
    sounds = [
        media.read_waveform(request.files.voice_path(number), RATE, HEARD_S)
        for number in range(len(inspection.all_voices))
    ]
    for sound in sounds:
        advice |= advise_on_voice(sound)
    return advice | advise_on_levels(sounds)


def refuse_poor_input(advice: Advice) -> EngineError:
    """Return the error of a strict job whose input gives cause for advice."""
    message = f'the job is "strict", and {"; ".join(advice.values())}'
    return EngineError("poor_input", message[:900], 'mend the input, or leave out "strict" to have it made as it is')
