# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys and certificates in a profile: PEM (RFC 7468), and how long they hold.

Only what stands between the labels is kept, in lines of our own making.  Of a
certificate (RFC 5280, 4.1) no more is read than its validity, to tell people
why a server may refuse it; OpenVPN checks it.  Pure.
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rules.model import shown

_BEGIN = re.compile(r"-----BEGIN ([A-Za-z0-9 -]{1,60})-----")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_HEX = re.compile(r"[0-9A-Fa-f]*")
_STATIC = "OpenVPN Static key V1"
_ENCRYPTED = ("ENCRYPTED", "Proc-Type:", "DEK-Info:")
_WIDTH = 64  # characters of a line (RFC 7468, 2); 32 of a static key

_SEQUENCE, _VERSION = 0x30, 0xA0  # tags of DER (X.690)
_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime
_LONG = 0x80  # a length in several bytes
_SKIPPED = 3  # serial number, signature and issuer, before the validity


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds, in UTC."""

    start: datetime
    end: datetime

    def problem(self, now: datetime) -> str | None:
        """Say what is wrong with it at a time of UTC, if anything."""
        if now > self.end:
            return f"expired on {self.end:%Y-%m-%d}"
        if now < self.start:
            return f"not valid before {self.start:%Y-%m-%d}, is the clock right?"
        return None


def normal(untrusted_lines: Iterable[str], labels: Sequence[str]) -> str:
    """Return the PEM blocks in these lines, all of them with one of ``labels``.

    `ValueError` says what is wrong.  What stands outside of blocks is left out.
    """
    blocks: list[str] = []
    label, body = "", ""
    for line in untrusted_lines:
        if not label:
            if begin := _BEGIN.fullmatch(line):
                label, body = begin[1], ""
                _check(label, labels)
        elif line == f"-----END {label}-----":
            blocks.append(_written(label, body))
            label = ""
        elif line.startswith(_ENCRYPTED):
            raise ValueError("expected a key without a passphrase")
        elif not (_HEX if label == _STATIC else _BASE64).fullmatch(line):
            raise ValueError(f"expected a {label} in PEM")
        else:
            body += line
    if label or not blocks:
        raise ValueError(f"expected a {labels[0]} in PEM")
    return "".join(blocks)


def validity(pem: str) -> Validity | None:
    """Return when the first certificate of a normal PEM text holds.

    None if it cannot be read.
    """
    try:
        der = b64decode("".join(pem.split("\n-----END", 1)[0].split("\n")[1:]))
        _, inside, _ = _element(der, 0, _SEQUENCE)
        tag, at, _ = _element(der, inside, _SEQUENCE)
        tag, _, after = _element(der, at)
        at = after if tag == _VERSION else at
        for _ in range(_SKIPPED):
            _, _, at = _element(der, at)
        _, at, _ = _element(der, at, _SEQUENCE)
        start, at = _time(der, at)
        return Validity(start, _time(der, at)[0])
    except (ValueError, IndexError, KeyError):
        return None


def _check(label: str, labels: Sequence[str]) -> None:
    if label.startswith(_ENCRYPTED):
        raise ValueError("expected a key without a passphrase")
    if label not in labels:
        raise ValueError(f"{shown(label)}: expected a {labels[0]}")


def _written(label: str, body: str) -> str:
    width = _WIDTH // 2 if label == _STATIC else _WIDTH
    rows = (body[at : at + width] for at in range(0, len(body), width))
    return "\n".join([f"-----BEGIN {label}-----", *rows, f"-----END {label}-----", ""])


def _element(der: bytes, at: int, expected: int | None = None) -> tuple[int, int, int]:
    """Return the tag of the element at ``at``, where it begins and ends inside."""
    tag, size, inside = der[at], der[at + 1], at + 2
    if size & _LONG:
        more = size & ~_LONG
        size = int.from_bytes(der[inside : inside + more])
        inside += more
    if inside + size > len(der) or expected not in {None, tag}:
        raise ValueError("not DER")
    return tag, inside, inside + size


def _time(der: bytes, at: int) -> tuple[datetime, int]:
    tag, inside, end = _element(der, at)
    text = der[inside:end].decode("ascii")
    return datetime.strptime(text, _TIMES[tag]).replace(tzinfo=UTC), end
