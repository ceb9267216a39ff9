"""The key of this installation, with which results are signed. Only the signing program opens it."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.credentials import CHAIN, KEY
from agent.fs import atomic_write_bytes
from gpu_pool.failpoints import failpoint

_YEARS = 10
_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its certificates in PEM, and the name of the algorithm as C2PA has it."""

    key: bytes
    chain: bytes
    algorithm: str
    certificate_sha256: str


def load_or_make(folder: Path) -> SigningKey:
    """Return the key in the folder; the first time, make one.

    Raises OSError, ValueError, TypeError or UnsupportedAlgorithm where it can't be used.
    """
    if not os.path.lexists(folder / KEY):
        make_key(folder)
    key, chain = (folder / KEY).read_bytes(), (folder / CHAIN).read_bytes()
    private = serialization.load_pem_private_key(key, None)
    own = x509.load_pem_x509_certificates(chain)[0]
    algorithm = _ALGORITHMS.get(private.curve.name, "") if isinstance(private, ec.EllipticCurvePrivateKey) else ""
    if not algorithm:
        raise ValueError(f"{folder / KEY} is no key on the curves {', '.join(_ALGORITHMS)}")
    if own.public_key() != private.public_key():
        raise ValueError(f"the first certificate of {folder / CHAIN} is not that of the key")
    return SigningKey(key, chain, algorithm, own.fingerprint(hashes.SHA256()).hex())


def make_key(folder: Path) -> None:
    """Write a new key that an authority of its own vouches for, whose key is forgotten. The key comes last."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _certify(root, root, None)
    certificates = (_certify(own, root, issuer), issuer)
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
    atomic_write_bytes(folder / CHAIN, pem)
    failpoint("certificate")
    plain = serialization.NoEncryption()
    private = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    before = os.umask(0o077)
    try:
        atomic_write_bytes(folder / KEY, private)
    finally:
        os.umask(before)


def _certify(
    key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None
) -> x509.Certificate:
    """Return the certificate of a key that signs files; that of an authority where there is no issuer."""
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    name = _make_name("musedrop" if issuer else "musedrop installation")
    usage = x509.KeyUsage(issuer is not None, False, False, False, False, issuer is None, issuer is None, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(issuer is None, None if issuer else 0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
        )
    return builder.sign(by, hashes.SHA256())


def _make_name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "musedrop"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )
