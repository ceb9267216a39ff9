"""Print the points of a face mesh in each PNG of a folder, as JSON: {file: (478, 2) pixels, or null}.

benchmarks.faces runs this file by the Python of an environment that has mediapipe, and reads what it prints.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2


def judge_folder(folder: Path) -> dict[str, Any]:
    face_mesh: Any = importlib.import_module("mediapipe").solutions.face_mesh
    found: dict[str, Any] = {}
    with face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.4) as mesh:
        for file in sorted(folder.glob("*.png")):
            picture = cv2.imread(str(file))
            height, width = picture.shape[:2]
            faces = mesh.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).multi_face_landmarks
            points = [(point.x * width, point.y * height) for point in faces[0].landmark] if faces else None
            found[file.name] = points
    return found


if __name__ == "__main__":
    json.dump(judge_folder(Path(sys.argv[1])), sys.stdout)
