"""The regions that the pose net sees."""

from __future__ import annotations

import numpy as np

from models.musetalk.tracking.detection import FaceNets
from models.musetalk.tracking.regions import face_region
from tests.models.musetalk.toy_nets import disc_frame
from tests.models.musetalk.tracking.discs import square


def test_landmarks_in_a_region(nets: FaceNets) -> None:
    """The pose net looks at the people it is shown: in the whole frame between them, in a region at one."""
    frame = disc_frame(640, 360, (160, 180, 110), (480, 170, 110))
    whole, left, right = (
        nets.find_landmarks([frame], regions)[0]
        for regions in (
            None,
            [face_region(np.array(square(160, 180, 110)))],
            [face_region(np.array(square(480, 170, 110)))],
        )
    )
    assert abs(whole[29, 0] - 320) < 40
    assert np.abs(left[29] - (160, 180)).max() < 25
    assert np.abs(right[29] - (480, 170)).max() < 25
    assert np.ptp(left[:, 0]) < np.ptp(whole[:, 0])
