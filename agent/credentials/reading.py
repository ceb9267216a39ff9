"""Read the credentials of a video back, with the library's own reader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import c2pa
from cryptography import x509

from agent.credentials.boxes import UNSIGNED, Box, hash_boxes, is_sealed, list_boxes
from agent.credentials.manifest import LABEL
from agent.credentials.report import Credentials

TRUSTED_OR_NOT = ("Valid", "Trusted")
OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}
"""A video may name an address for its credentials: whoever made it is not told when it is read."""
OUTDATED = {"signingCredential.expired", "claimSignature.outsideValidity"}
_UNREADABLE = (c2pa.C2paError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def read_credentials(file: BinaryIO, mime: str, chain: str = "") -> Credentials:
    """Return the credentials of an open video.

    chain  the certificates of this installation in PEM, the own one first; "" where they are not known
    """
    own = _read_own(chain)
    try:
        boxes = list_boxes(file)
        file.seek(0)
        reader = c2pa.Reader(mime, file, context=make_context({"trust": {"user_anchors": chain}} if own else {}))
        state, found = reader.get_validation_state(), json.loads(reader.json())
        manifest: dict[str, Any] = found["manifests"][found["active_manifest"]]
        signature, label = manifest["signature_info"], manifest["label"]
        signer, number = str(signature.get("common_name", "")), str(signature.get("cert_serial_number"))
    except _UNREADABLE as error:
        return make_unreadable(error)
    asserted: Any = next((one["data"] for one in manifest["assertions"] if one["label"] == LABEL), {})
    said: dict[str, Any] = asserted if isinstance(asserted, dict) else {}
    problem = "" if state in TRUSTED_OR_NOT else explain_failure(one["code"] for one in found["validation_status"])
    is_own = _is_own(own, number, is_trusted=state == "Trusted")
    return Credentials(problem or find_change(file, boxes, said), said, signer, label, is_own)


def make_context(settings: Mapping[str, Any]) -> c2pa.Context:
    """Return how the library works: with these settings, and without network."""
    return c2pa.Context(settings=c2pa.Settings.from_dict({"verify": OFFLINE, **settings}))


def make_unreadable(error: Exception) -> Credentials:
    if isinstance(error, c2pa.C2paError.ManifestNotFound):
        return Credentials("it has no credentials: it was not signed, or they were taken out")
    return Credentials(f"it has no credentials that can be read ({str(error)[:200]})")


def explain_failure(codes: Iterable[str]) -> str:
    """Return in words why a manifest is not valid, by the codes of the C2PA standard."""
    failed = [code for code in codes if "untrusted" not in code]
    if failed and OUTDATED.issuperset(failed):
        return "its certificate is not valid at this time: it has expired, or a clock is wrong"
    return f"its bytes are not those that were signed ({', '.join(failed[:3])})"


def find_change(file: BinaryIO, boxes: list[Box], said: Mapping[str, Any]) -> str:
    """Return what was changed of a video where its manifest can't tell, "" for nothing."""
    if said.get("sealed"):
        if not is_sealed(file, boxes):
            return "its bytes are not those that were sealed when it was signed"
        boxes = boxes[:-1]
    if said.get("unsigned_boxes_sha256", "") not in ("", hash_boxes(file, boxes, *UNSIGNED)):
        return "its header is not the one that was signed"
    return ""


def _read_own(chain: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(chain.encode())[0]
    except ValueError:
        return None


def _is_own(own: x509.Certificate | None, number: str, *, is_trusted: bool) -> bool | None:
    """Return whether a signature is by a certificate; None where that can't be told.

    Anyone can make one with the same names and number, but not one that the same authority vouches for.
    """
    if own is None:
        return None
    return (is_trusted or None) if number == str(own.serial_number) else False
