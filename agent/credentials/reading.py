"""Read the credentials of a video back, with the library's own reader."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import c2pa

from agent.credentials.boxes import UNSIGNED, hash_boxes, is_sealed, list_boxes
from agent.credentials.manifest import LABEL

TRUSTED_OR_NOT = ("Valid", "Trusted")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a video says of itself.

    problem    why that can't be believed, "" if it can
    said       our own assertion
    signer     the name in the certificate
    label      of the manifest
    """

    problem: str
    said: dict[str, Any] = field(default_factory=dict)
    signer: str = ""
    label: str = ""


def read_credentials(file: BinaryIO, mime: str) -> Credentials:
    """Return the credentials of an open video."""
    try:
        boxes = list_boxes(file)
        file.seek(0)
        reader = c2pa.Reader(mime, file)
        state, found = reader.get_validation_state(), json.loads(reader.json())
        manifest: dict[str, Any] = found["manifests"][found["active_manifest"]]
        signer, label = manifest["signature_info"].get("common_name", ""), manifest["label"]
    except (c2pa.C2paError, ValueError, KeyError) as error:
        return Credentials(f"it has no credentials that can be read ({str(error)[:200]})")
    asserted: Any = next((one["data"] for one in manifest["assertions"] if one["label"] == LABEL), {})
    said: dict[str, Any] = asserted if isinstance(asserted, dict) else {}
    if state not in TRUSTED_OR_NOT:
        failed = [one["code"] for one in found.get("validation_status", ()) if "untrusted" not in one["code"]]
        return Credentials(f"its bytes are not those that were signed ({', '.join(failed[:3])})", said, signer, label)
    if said.get("sealed"):
        if not is_sealed(file, boxes):
            return Credentials("its bytes are not those that were sealed when it was signed", said, signer, label)
        boxes = boxes[:-1]
    if said.get("unsigned_boxes_sha256", "") not in ("", hash_boxes(file, boxes, *UNSIGNED)):
        return Credentials("its header is not the one that was signed", said, signer, label)
    return Credentials("", said, signer, label)
