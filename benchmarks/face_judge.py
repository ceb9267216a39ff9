"""Print the points of a face mesh in each PNG of a folder, as JSON: {file: (faces, 478, 2) pixels}.

benchmarks.faces runs this file by the Python of an environment that has mediapipe, and reads what it prints.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def judge_folder(folder: Path) -> dict[str, Any]:
    face_mesh: Any = importlib.import_module("mediapipe").solutions.face_mesh
    found: dict[str, Any] = {}
    wanted = {"static_image_mode": True, "max_num_faces": 3, "refine_landmarks": True, "min_detection_confidence": 0.4}
    with face_mesh.FaceMesh(**wanted) as mesh:
        for file in sorted(folder.glob("*.png")):
            picture = np.asarray(cv2.imread(str(file)), np.uint8)
            height, width = picture.shape[:2]
            faces = mesh.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).multi_face_landmarks
            found[file.name] = [[(p.x * width, p.y * height) for p in face.landmark] for face in faces or ()]
    return found


if __name__ == "__main__":
    json.dump(judge_folder(Path(sys.argv[1])), sys.stdout)
