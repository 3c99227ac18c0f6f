"""Certificates in files that somebody renews: read together, checked, and read again once they have changed.

Kubernetes, cert-manager and certbot replace files under a running process. What is half written or does not fit
together is passed over, and what was good goes on: a renewal can be wrong without cutting anybody off.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Pem:
    """What the files hold, as PEM.

    Attributes:
        chain: Our certificate and those between it and the authority; None where we show none.
        key: Its private key.
        authorities: Who signs the other side; None where it is not asked.
    """

    chain: bytes | None
    key: bytes | None
    authorities: bytes | None


class Certificates:
    """The files of one side: a certificate with its key, or authorities, or all three."""

    def __init__(self, cert_file: Path | None, key_file: Path | None, authorities_file: Path | None) -> None:
        self._cert_file, self._key_file, self._authorities_file = cert_file, key_file, authorities_file
        self._files = [path for path in (cert_file, key_file, authorities_file) if path is not None]
        self._seen: _Stamp = ()

    def read(self) -> Pem:
        """Reads the files as they are.

        Raises:
            OSError: One cannot be read.
            ValueError: They are no certificates, or the key is another's.
        """
        self._seen = self._stamp()
        return self._read()

    def renewed(self) -> Pem | None:
        """Returns what the files hold if that is new and good since it was last asked; costs a `stat` of each."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            pem = self._read()
            if self._stamp() != stamp:
                return None  # they are being written: the next look will tell
        except (OSError, ValueError) as error:
            # Files that are replaced one by one do not fit together for a moment, so this is looked at again.
            _log.warning("renewed certificates are of no use yet", extra={"error": str(error)})
            return None
        self._seen = stamp
        _log.info("certificates renewed", extra={"files": [str(path) for path in self._files]})
        return pem

    def _stamp(self) -> _Stamp:
        """What changes when a file does; through links, as Kubernetes swaps a whole folder by one."""
        stats = [path.stat() for path in self._files]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _read(self) -> Pem:
        # ssl.SSLError is an OSError and a ValueError at once.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._cert_file is not None:
            context.load_cert_chain(self._cert_file, self._key_file)
        if self._authorities_file is not None:
            context.load_verify_locations(self._authorities_file)
        return Pem(_bytes(self._cert_file), _bytes(self._key_file), _bytes(self._authorities_file))


def _bytes(path: Path | None) -> bytes | None:
    return path.read_bytes() if path is not None else None
