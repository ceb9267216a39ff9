"""Whisper's encoder, which turns a voice into the features that the UNet hears.

MuseTalk takes the hidden states of all layers of openai/whisper-tiny, not only of the last one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.arrays import F32
from models.musetalk.audio.features import CHUNK_SAMPLES, POSITIONS_PER_S, SAMPLE_RATE
from models.musetalk.inpainting.streams import open_stream
from models.musetalk.nets.whisper import Encoder, MelSpectrogram


class WhisperEncoder:
    """Whisper's encoder on a device."""

    def __init__(self, encoder: Encoder, spectrogram: MelSpectrogram, device: torch.device, dtype: torch.dtype) -> None:
        """Move the encoder to the device."""
        self._encoder, self._spectrogram = encoder.to(device, dtype).eval(), spectrogram
        self._device, self._dtype, self._stream = device, dtype, open_stream(device)

    def encode(self, samples: F32) -> F32:
        """Return the features of a sound (n,) at 16 kHz: (50 a second, layers + 1, d) float32."""
        starts = range(0, max(1, len(samples)), CHUNK_SAMPLES)
        return np.concatenate([self.encode_chunk(samples[start : start + CHUNK_SAMPLES]) for start in starts])

    def encode_chunk(self, chunk: F32) -> F32:
        """Return the features of at most 30 s: (len(chunk) // 320, layers + 1, d) float32.

        There is a position every 20 ms.

        The layers are the output of the convolutions and of each block, the last one after the
        final norm.
        """
        return self._stream.run(partial(self._encode, chunk))()

    @torch.no_grad()
    def _encode(self, chunk: F32) -> F32:
        states = self._encoder(self._spectrogram(chunk).to(self._device, self._dtype))
        positions = len(chunk) * POSITIONS_PER_S // SAMPLE_RATE
        features: F32 = torch.stack(states, 2)[0, :positions].float().cpu().numpy()
        return features

    def encode_to_file(self, path: Path, chunks: Iterable[F32]) -> int:
        """Write the features of a sound to a .npy file; return its number of samples.

        `chunks` are of 30 s at 16 kHz, the last one shorter. Raises OSError where the disk is
        full.
        """
        samples = positions = 0
        with path.open("wb") as file:
            for chunk in chunks:
                features = self.encode_chunk(chunk)
                samples, positions = samples + len(chunk), positions + len(features)
                if file.tell() == 0:
                    _write_header(file, (0, *features.shape[1:]))
                file.write(features.tobytes())
            file.seek(0)
            _write_header(file, (positions, *features.shape[1:]))
        return samples


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """Write a header of numpy's format, which leaves room for its first axis to grow."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
