# SPDX-License-Identifier: GPL-2.0-or-later
"""Of PEM only the blocks are kept, and of a certificate its validity is read."""

import subprocess
from base64 import b64decode, b64encode
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.openvpn_pem import Validity, normal, validity

JANUARY, JUNE = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 6, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a certificate that openssl made, for 7 days."""
    place: Path = tmp_path_factory.mktemp("pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    argv = [*command.split(), "-nodes", "-subj", "/CN=x", "-days", "7"]
    argv += ["-keyout", str(place / "key"), "-out", str(place / "crt")]
    subprocess.run(argv, check=True, capture_output=True)
    return (place / "crt").read_text()


def test_the_validity_of_a_certificate_of_openssl_is_read(certificate: str) -> None:
    text = normal(certificate.splitlines(), ("CERTIFICATE",))
    found = validity(text)

    assert text == certificate
    assert found is not None
    assert (found.end - found.start).days == 7
    assert found.problem(found.start) is None
    assert found.problem(datetime.now(UTC)) is None


def test_a_certificate_is_good_between_two_days() -> None:
    held = Validity(JANUARY, JUNE)
    assert held.problem(JUNE.replace(year=2027)) == "expired on 2026-06-07"
    assert held.problem(JANUARY.replace(year=2025)) == (
        "not valid before 2026-01-02, is the clock right?"
    )
    assert held.problem(JANUARY.replace(month=3)) is None


@given(st.data())
def test_a_damaged_certificate_has_a_validity_or_none(
    certificate: str, data: st.DataObject
) -> None:
    """Nothing in it makes the reader fail."""
    der = bytearray(b64decode("".join(certificate.split("\n")[1:-2])))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(der)))
    body = b64encode(bytes(der[:length])).decode()
    validity(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")


@given(st.text())
def test_any_text_is_pem_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        normal(text.split("\n"), ("CERTIFICATE",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a RSA PRIVATE KEY in PEM"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIGH", "expected a RSA PRIVATE KEY in PEM"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED",
            "expected a key without a passphrase",
        ),
        ("-----BEGIN CERTIFICATE-----", "'CERTIFICATE': expected a RSA PRIVATE KEY"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normal(text.split("\n"), ("RSA PRIVATE KEY",))
