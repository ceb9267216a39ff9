"""Count what the preview engine makes of a folder of pictures and videos, and draw what it looks like.

Run from the root as `python -m benchmarks.faces FOLDER [--judge PYTHON] [--sheets FOLDER]`.
PYTHON is the interpreter of an environment with mediapipe; its face mesh judges pictures and frames, and a table
of the verdicts is printed. An environment `.judge` in the root is used by itself:

    python -m venv .judge && .judge/bin/pip install mediapipe==0.10.14

Without a judge, sheets alone are drawn: the picture, mouth closed, half, wide, "oo", and a blink.

What counts as good, in hundredths of the eye distance:
a mouth within 10 of the judge's, which the judge sees open by 8 at full opening and by less than 5 when it is closed,
with eyes and nose within 6 of where they were.
A mouth that stands open so wide that the engine leaves it open is counted by itself.
A blink is clean if the judge sees less than 0.14 of an eye's width between the lids.
A video is good if the painted mouth is within 10 of the person's in 95 % of the frames.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.arrays import F64, U8
from models.preview.engine import Reference
from models.preview.face import Face, choose_largest, find_faces, make_face, move_face
from models.preview.geometry import invert_affine, transform_points
from models.preview.interior import measure_tone
from models.preview.landmarks import fit_landmarks
from models.preview.lips import compute_resting_gap
from models.preview.lower_face import LowerFace
from models.preview.mouth import Mouth, find_mouth
from models.preview.renderer import MouthPainter, Portrait, draw_mouth
from models.preview.track import follow_face

PICTURES, VIDEOS = (".jpg", ".jpeg", ".png", ".webp"), (".mp4", ".mov", ".webm", ".gif")
SHAPES = {
    "closed": ((0.0, 0.0), 0.0),
    "half": ((0.45, 0.0), 0.0),
    "wide": ((1.0, 0.0), 0.0),
    "oo": ((0.4, -1.0), 0.0),
    "half blink": ((0.0, 0.0), 0.5),
    "blink": ((0.0, 0.0), 1.0),
}
JUDGE = Path(__file__).parents[1] / ".judge" / "bin" / "python"
COLUMNS = ("good", "refused", "mouth in the wrong place", "artefact", "stays open")
UNCOUNTED = ("not judged", "no face")
LARGEST_SIDE, CELL, ROWS = 1280, 220, 8
MOST_FRAMES, DRAWN_FRAMES, SHOWN_FRAMES = 240, 24, 6
LEFT_EYE, RIGHT_EYE, NOSE = (33, 133), (362, 263), 1
LIDS = ((159, 145, 33, 133), (386, 374, 362, 263))
Points = dict[str, F64 | None]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture or video as the engine shows it.

    rows       the cells of a sheet
    judged     pictures for the judge by their names
    placed     the painted mouth in the judged pictures that show the person's own, x and y in pixels
    resting    the distance that the lips keep in silence, in hundredths of the eye distance
    """

    name: str
    rows: list[U8]
    judged: dict[str, U8]
    placed: dict[str, F64]
    resting: float = 0.0


def shrink(image: U8, side: int) -> U8:
    scale = min(1.0, side / max(image.shape[:2]))
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def find_one(image: U8) -> Face | None:
    return choose_largest(faces) if (faces := find_faces(image)) else None


def cut_around(image: U8, face: Face, share: float) -> tuple[U8, F64]:
    """Return the square around a face, `share` times its box, and its corner in the picture."""
    x, y, w, h = face.box
    middle, half = np.array([x + w / 2, y + 0.58 * h]), share * max(w, h) / 2
    (x0, y0), (x1, y1) = np.maximum(0, middle - half).astype(int), (middle + half).astype(int)
    return image[y0:y1, x0:x1], np.array([x0, y0], np.float64)


def place_mouth(face: Face, mouth: Mouth) -> F64:
    """Return the middle between the corners of the mouth, in pixels."""
    return np.asarray(transform_points([(mouth.x, mouth.y)], invert_affine(face.to_upright))[0])


def make_row(name: str, pictures: list[U8]) -> U8:
    cells = [cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_AREA) for picture in pictures]
    row = np.ascontiguousarray(np.hstack(cells), np.uint8)
    cv2.putText(row, name, (3, CELL - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return row


def draw_picture(file: Path) -> Drawing:
    image = shrink(np.asarray(cv2.imread(str(file)), np.uint8), LARGEST_SIDE)
    face = find_one(image)
    if face is None:
        whole = np.zeros((CELL, CELL, 3), np.uint8)
        small = shrink(image, CELL)
        whole[: small.shape[0], : small.shape[1]] = small
        return Drawing(file.name, [make_row(file.name, [whole] + [whole * 0] * len(SHAPES))], {"source": image}, {})
    mouth = find_mouth(image, face)
    portrait = Portrait(image, face, mouth, measure_tone(image, face))
    drawn = {name: portrait.render(shape, shut, None) for name, (shape, shut) in SHAPES.items()}
    row = make_row(file.name, [cut_around(frame, face, 1.15)[0] for frame in [image, *drawn.values()]])
    judged = {name: cut_around(frame, face, 1.9)[0] for name, frame in {"source": image, **drawn}.items()}
    placed = place_mouth(face, mouth) - cut_around(image, face, 1.9)[1]
    return Drawing(file.name, [row], judged, {"source": placed}, compute_resting_gap(mouth))


def read_frames(file: Path) -> list[U8]:
    video, frames = cv2.VideoCapture(str(file)), list[U8]()
    while len(frames) < MOST_FRAMES and (read := video.read())[0]:
        frames.append(shrink(np.asarray(read[1], np.uint8), 720))
    return frames


def measure_reference(picture: U8, eyes: F64) -> Reference:
    face = make_face(eyes, fit_landmarks(picture, eyes))
    return Reference.measure(picture, face, find_mouth(picture, face))


def draw_video(file: Path) -> Drawing:
    frames = read_frames(file)
    track = follow_face(iter(frames), find_one, lambda _: None)
    seen = np.flatnonzero(track.weight > 0)
    if not len(seen):
        return Drawing(file.name, [], {"source": frames[0]}, {})
    references = [measure_reference(frames[n], track.eyes[n]) for n in track.choose_references()]
    tools = [(LowerFace(of.resting, of.face, of.mouth), MouthPainter(of.face, of.mouth, of.tone)) for of in references]
    eyes = track.place_at_mouth(*(of.face for of in references))
    shown = {int(n): references[track.shots[n]] for n in seen}
    faces = {n: move_face(of.face, eyes[n]) for n, of in shown.items()}
    judged = {f"frame {n}": frames[n] for n in faces}
    placed = {f"frame {n}": place_mouth(faces[n], of.mouth) for n, of in shown.items()}
    cells: list[list[U8]] = [[], [], []]
    for n in seen[np.linspace(0, len(seen) - 1, DRAWN_FRAMES).astype(int)]:
        drawn = [frames[n].copy(), frames[n].copy()]
        resting, painter = tools[track.shots[n]]
        for frame, opening in zip(drawn, (0.0, 0.8), strict=True):
            resting.lay(frame, faces[n], float(track.weight[n]))
            draw_mouth(frame, faces[n], painter, (opening, 0.0), float(track.weight[n]))
        judged[f"closed {n}"] = drawn[0]
        for cell, frame in zip(cells, (frames[n], *drawn), strict=True):
            cell.append(cut_around(frame, faces[n], 1.15)[0])
    chosen = slice(0, None, DRAWN_FRAMES // SHOWN_FRAMES)
    rows = [
        make_row(f"{file.name} {what}", cell[chosen]) for what, cell in zip(("", "closed", "open"), cells, strict=True)
    ]
    return Drawing(file.name, rows, judged, placed)


# judging -------------------------------------------------------------------------------------------------------------


def ask_judge(python: str, drawing: Drawing) -> Points:
    """Return the (478, 2) points of the mesh in each picture, None where it sees no face.

    Of several faces that counts which is nearest to the painted mouth, or the largest.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(drawing.judged.values()):
            cv2.imwrite(f"{folder}/{number:04}.png", picture)
        command = [python, str(Path(__file__).with_name("face_judge.py")), folder]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    found = dict[str, F64 | None]()
    for number, name in enumerate(drawing.judged):
        placed = drawing.placed.get(name)
        faces = [np.array(face) for face in told[f"{number:04}.png"]]
        found[name] = min(faces, key=lambda face: rank_face(face, placed), default=None)
    return found


def rank_face(points: F64, placed: F64 | None) -> float:
    return -measure_distance(points) if placed is None else measure_miss(points, placed) * measure_distance(points)


def average_eyes(points: F64) -> F64:
    return np.array([points[list(LEFT_EYE)].mean(0), points[list(RIGHT_EYE)].mean(0)])


def measure_distance(points: F64) -> float:
    return float(np.hypot(*np.diff(average_eyes(points), axis=0)[0])) / 100


def measure_gap(points: F64) -> float:
    """Return the distance of the lips in hundredths of the eye distance."""
    return float(np.hypot(*(points[13] - points[14]))) / measure_distance(points)


def measure_miss(points: F64, placed: F64) -> float:
    """Return how far a mouth is from that of the mesh, in hundredths of the eye distance."""
    return float(np.hypot(*((points[61] + points[291]) / 2 - placed))) / measure_distance(points)


def measure_lids(points: F64) -> float:
    """Return the distance of the lids of the more open eye, as a share of its width."""
    return max(float(np.hypot(*(points[a] - points[b])) / np.hypot(*(points[c] - points[d]))) for a, b, c, d in LIDS)


def judge_picture(drawing: Drawing, points: Points) -> tuple[str, str]:
    """Return a verdict and what led to it."""
    source = points["source"]
    if not drawing.placed:
        return ("refused", "the judge sees a face") if source is not None else ("no face", "the judge sees none either")
    if source is None:
        return "not judged", "the judge sees no face"
    miss = measure_miss(source, drawing.placed["source"])
    if miss > 10:
        return "mouth in the wrong place", f"off by {miss:.0f}"
    closed, wide = points["closed"], points["wide"]
    if closed is None or wide is None:
        return "artefact", "the judge loses the face"
    moved = max(
        float(np.abs(np.vstack([average_eyes(drawn) - average_eyes(source), drawn[NOSE] - source[NOSE]])).max())
        for drawn in (closed, wide)
    ) / measure_distance(source)
    said = f"off by {miss:.0f}, closed {measure_gap(closed):.0f}, wide {measure_gap(wide):.0f}, others {moved:.0f}"
    if drawing.resting and moved < 6:
        return "stays open", said
    is_good = measure_gap(closed) < 5 and measure_gap(wide) > 8 and moved < 6
    return ("good" if is_good else "artefact"), said


def judge_blink(points: Points) -> str | None:
    """Return whether a blink is clean, None where the eyes are shut anyway or the judge sees nothing."""
    shut, source = points.get("blink"), points["source"]
    if shut is None or source is None or measure_lids(source) < 0.14:
        return None
    return "clean" if measure_lids(shut) < 0.14 else f"open by {measure_lids(shut):.2f}"


def judge_video(drawing: Drawing, points: Points) -> tuple[str, str]:
    missed = [
        measure_miss(seen, placed) for name, placed in drawing.placed.items() if (seen := points[name]) is not None
    ]
    if not drawing.placed:
        return "refused", ""
    if not missed:
        return "not judged", "the judge sees no face"
    apart = [measure_gap(seen) for name, seen in points.items() if name.startswith("closed") and seen is not None]
    near = float((np.array(missed) <= 10).mean())
    said = (
        f"{near:.0%} within 10, 95 % within {np.percentile(missed, 95):.0f}; closed lips apart by {np.mean(apart):.1f}"
    )
    return ("good" if near >= 0.95 else "mouth in the wrong place"), said


def write_sheets(folder: Path, kind: str, drawings: list[Drawing]) -> None:
    rows = [row for drawing in drawings for row in drawing.rows]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(rows), ROWS):
        cv2.imwrite(str(folder / f"{kind.split()[0]}-{start // ROWS:02}.png"), np.vstack(rows[start : start + ROWS]))


def list_files(folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in endings)


def find_judge(asked: str | None, usual: Path = JUDGE) -> str | None:
    """Return the interpreter of the judge: that which is asked for, else that of the usual place if it is there."""
    return asked or (str(usual) if usual.exists() else None)


def format_table(counts: dict[str, Counter[str]], blinks: Counter[str]) -> str:
    """Return a table of the verdicts on each kind of material; what could not be judged is in a column of its own."""
    rows = [["material", "n", *COLUMNS, "not judged"]]
    for kind, counted in counts.items():
        unjudged = sum(counted[verdict] for verdict in UNCOUNTED)
        numbers = [counted.total() - unjudged, *(counted[verdict] for verdict in COLUMNS), unjudged]
        rows.append([kind, *map(str, numbers)])
    rows.append(["blinks that shut cleanly", str(blinks.total()), str(blinks["clean"]), *[""] * len(COLUMNS)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw_folder(folder: Path, judge: str | None, sheets: Path) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Draw all files of a folder into sheets; print and return what a judge, if there is one, makes of them."""
    counts, blinks = dict[str, Counter[str]](), Counter[str]()
    for kind, (endings, draw, decide) in KINDS.items():
        counts[kind], drawings = Counter(), list[Drawing]()
        for file in list_files(folder, endings):
            drawing = draw(file)
            drawings.append(Drawing(drawing.name, drawing.rows, {}, {}))
            if judge is None:
                continue
            points = ask_judge(judge, drawing)
            verdict, said = decide(drawing, points)
            blink = judge_blink(points) if kind == "portraits" else None
            counts[kind][verdict] += 1
            blinks["clean" if blink == "clean" else "open"] += blink is not None
            print(f"{file.name:40} {verdict:26} {said}{f'; blink {blink}' if blink else ''}", flush=True)
        write_sheets(sheets, kind, drawings)
    return counts, blinks


KINDS: dict[str, tuple[tuple[str, ...], Any, Any]] = {
    "portraits": (PICTURES, draw_picture, judge_picture),
    "videos of people": (VIDEOS, draw_video, judge_video),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", help="Python of an environment that has mediapipe")
    parser.add_argument("--sheets", type=Path, default=Path("sheets"), help="write contact sheets here")
    wanted = parser.parse_args()
    judge = find_judge(wanted.judge)
    counts, blinks = draw_folder(wanted.folder, judge, wanted.sheets)
    if judge is None:
        print(f"no judge: the sheets in {wanted.sheets} are for your own eyes")
        return
    print(format_table(counts, blinks))


if __name__ == "__main__":
    main()
