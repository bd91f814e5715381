# SPDX-License-Identifier: GPL-2.0-or-later
"""A certificate authority of the embedded internet, by openssl(1)."""

from dataclasses import dataclass
from pathlib import Path

from controller.lab.hosts import run

NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority whose files are in a folder; ``net`` is where openssl runs."""

    folder: Path
    net: Path

    @property
    def certificate(self) -> str:
        """Its own certificate, made with its key when first asked for."""
        path = self.folder / "ca.pem"
        if not path.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            subject = ("-subj", "/CN=lab", "-days", 30)
            key = ("-keyout", self.folder / "ca.key")
            self._run("req", "-x509", *NEW, *subject, *key, "-out", path)
        return path.read_text()

    def identity(self, name: str, purpose: str, days: int = 30) -> Identity:
        """Return a certificate for ``serverAuth`` or ``clientAuth``, made once.

        One for 0 days has expired when it is made.
        """
        path, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        if not path.exists():
            request, ca = self.folder / f"{name}.csr", self.folder / "ca"
            usage = [
                *("-addext", "keyUsage=digitalSignature"),
                *("-addext", f"extendedKeyUsage={purpose}"),
            ]
            self._run(
                "req",
                *NEW,
                "-subj",
                f"/CN={name}",
                *usage,
                "-keyout",
                key,
                "-out",
                request,
            )
            signer = ("-CA", ca.with_suffix(".pem"), "-CAkey", ca.with_suffix(".key"))
            kept = ("-copy_extensions", "copy", "-days", days)
            self._run("x509", "-req", "-in", request, *signer, *kept, "-out", path)
        return Identity(path.read_text(), key.read_text())

    def _run(self, *words: object) -> None:
        run(self.net, "openssl", *words)
