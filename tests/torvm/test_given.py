# SPDX-License-Identifier: GPL-2.0-or-later
"""What a TorVM is given fits together, or is refused with the reason."""

from pathlib import Path

import pytest

from torvm.bridges import parse
from torvm.given import DIRECTORY, Given, given
from torvm.pluggable import Program
from torvm.proxy import Login
from torvm.said import NO_ENTRY, NO_WAY

OBFS4 = "obfs4 192.0.2.1:443 cert=abc"
MEEK = "meek_lite 192.0.2.20:80 url=https://meek.example.net/ front=front.example.com"
SNOWFLAKE = "snowflake 192.0.2.3:80 url=https://broker.example.net/ ice=stun:s.example"
PLAIN = "192.0.2.7:9001"
LOGIN = Login("me", "SECRET")
SOCKS = "socks5://192.0.2.9:1080"


def of(*lines: str, login: Login | None = None) -> Given:
    return Given(parse("\n".join(lines).encode()) if lines else (), login=login)


def test_each_transport_is_spoken_by_its_program() -> None:
    assert of(OBFS4, MEEK, SNOWFLAKE, PLAIN).transports == {
        Program.OBFS4PROXY: {"obfs4", "meek_lite"},
        Program.SNOWFLAKE: {"snowflake"},
    }


def test_the_names_of_fronts_and_helpers_must_be_asked_for() -> None:
    names = {"front.example.com", "broker.example.net", "s.example"}

    assert of(OBFS4, MEEK, SNOWFLAKE).names == names


def test_a_proxy_asks_for_names_itself() -> None:
    found = of(MEEK).through(SOCKS)

    assert found.refused == ""
    assert found.names == frozenset()


def test_tor_knows_a_proxy_unless_a_program_goes_through_it() -> None:
    """It takes none beside an external program (tor(1), ClientTransportPlugin)."""
    assert of().through(SOCKS).of_tor == of().through(SOCKS).proxy is not None
    assert of(PLAIN).through(SOCKS).of_tor is not None
    assert of(OBFS4).through(SOCKS).of_tor is None
    assert of(OBFS4).through(SOCKS).proxy is not None


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (of(OBFS4, SNOWFLAKE).through(SOCKS), "proxy: snowflake cannot go through"),
        (of(OBFS4, PLAIN).through(SOCKS), "proxy: expected bridges that all have a"),
        (of(login=LOGIN).through(""), "auth: a password for no proxy"),
        (of(login=LOGIN).through("socks4://192.0.2.9:1"), "proxy: SOCKS 4 knows no"),
        (of().through("socks5://me:SECRET@192.0.2.9:1"), "proxy: expected no password"),
        (Given(refused="bridges:1: expected …").through(SOCKS), "bridges:1: expected"),
    ],
)
def test_what_does_not_fit_together_is_refused(found: Given, why: str) -> None:
    assert found.refused.startswith(why)
    assert found.proxy is None
    assert "SECRET" not in repr(found)


def test_who_had_no_password_is_told_that_one_is_wanted() -> None:
    with_login = of(login=LOGIN).through(SOCKS)

    assert of().through(SOCKS).trouble(NO_ENTRY) == "wants a user and a password"
    assert with_login.trouble(NO_ENTRY) == "refuses the user and the password"
    assert with_login.trouble(NO_WAY) == NO_WAY
    assert with_login.trouble("") == of().trouble(NO_WAY) == ""


def test_the_files_are_read_from_where_credentials_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    (tmp_path / "bridges").write_text(PLAIN)
    (tmp_path / "auth").write_text("me\nSECRET\n")

    assert given() == of(PLAIN, login=LOGIN)
    (tmp_path / "auth").write_text("SECRET")
    assert given().refused.startswith("auth: expected two lines")
