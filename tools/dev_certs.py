"""Makes certificates for mutual TLS on a developer's machine: `python -m tools.dev_certs FOLDER [--days 30]`.

An authority, and for each service a folder with `tls.crt`, `tls.key` and `ca.crt`, named as Kubernetes names them, good
for its name, for localhost and for 127.0.0.1. FOLDER/mtls.env has the settings that turn it all on. Run again, it
renews the services' certificates under the same authority, and what runs takes them: files are replaced whole. Never
for production: the authority's key lies beside what it signs.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVICES = ("edge", "inference", "cache", "safety")
# Whom each service calls.
CALLS = {"edge": ("inference",), "inference": ("cache", "safety")}
AUTHORITY_DAYS = 3650
# Clocks differ a little.
BACKDATED = timedelta(minutes=5)


def main() -> int:
    """Writes the files and says what to do with them."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=30, help="life of the services' certificates")
    args = parser.parse_args()
    make(args.folder, args.days)
    print(f"set -a; source {args.folder}/mtls.env; set +a    # then: make run")
    return 0


def make(folder: Path, days: int = 30) -> None:
    """Makes or renews every certificate in a folder, and the file of settings."""
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = _authority(folder)
    for service in SERVICES:
        _issue(folder / service, service, key, certificate, days)
    _write(folder / "mtls.env", "".join(f"{name}={value}\n" for name, value in settings(folder).items()).encode())


def settings(folder: Path) -> dict[str, str]:
    """The variables that turn mutual TLS on between the services; the edge itself goes on speaking HTTP."""
    found: dict[str, str] = {}
    for service in SERVICES:
        own = folder.resolve() / service
        shown = {"CERT_FILE": own / "tls.crt", "KEY_FILE": own / "tls.key"}
        sides = {f"MILLRACE_{service.upper()}_{callee.upper()}_TLS_": "CA_FILE" for callee in CALLS.get(service, ())}
        if service != "edge":
            sides[f"MILLRACE_{service.upper()}_TLS_"] = "CLIENT_CA_FILE"
        for prefix, authorities in sides.items():
            found |= {prefix + name: str(path) for name, path in {**shown, authorities: own / "ca.crt"}.items()}
    return found


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The authority that is there, or a new one."""
    key_file, cert_file = folder / "authority.key", folder / "authority.crt"
    if key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key, x509.load_pem_x509_certificate(cert_file.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Millrace development {x509.random_serial_number():x}")
    builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    _write(key_file, _pem(key))
    _write(cert_file, certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def _issue(
    folder: Path, service: str, signer: ec.EllipticCurvePrivateKey, authority: x509.Certificate, days: int
) -> None:
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    hosts = [x509.DNSName(service), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _builder(_name(service), authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(issuer, critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write(folder / "tls.key", _pem(key))
    _write(folder / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM))
    _write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, data: bytes) -> None:
    """Replaces a file whole, for its owner alone."""
    draft = path.with_name(path.name + ".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
