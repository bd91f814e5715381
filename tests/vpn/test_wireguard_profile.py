# SPDX-License-Identifier: GPL-2.0-or-later
"""A provider's file is a tunnel and nothing else, or it is refused by line."""

import traceback
from base64 import b64encode
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.endpoints import Endpoint
from vpn.wireguard_file import MOST_BYTES, MOST_LINES, REFUSED, ProfileError
from vpn.wireguard_profile import Key, Peer, Profile, parse

EVIL = sorted((Path(__file__).parent / "evil_wireguard").glob("*.conf"))

PRIVATE, PUBLIC, SHARED = (b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
USUAL = f"""\
# From the provider's page
[Interface]
# Device: Happy Horse
PrivateKey = {PRIVATE}
Address = 10.64.0.2/32,fc00:bbbb:bbbb:bb01::1:2/128
DNS = 10.64.0.1

[Peer]
PublicKey = {PUBLIC}
AllowedIPs = 0.0.0.0/0,::0/0
Endpoint = 203.0.113.1:51820
"""
OF_USUAL = Profile(
    private=Key(b"\1" * 32),
    addresses=(
        ip_interface("10.64.0.2/32"),
        ip_interface("fc00:bbbb:bbbb:bb01::1:2/128"),
    ),
    peers=(
        Peer(
            public=Key(b"\2" * 32),
            endpoint=Endpoint(ip_address("203.0.113.1"), 51820),
            allowed=(ip_network("0.0.0.0/0"), ip_network("::/0")),
        ),
    ),
    dns=(ip_address("10.64.0.1"),),
)


def read(text: str) -> Profile:
    return parse(text.encode(), "provider.conf")


def test_the_file_of_a_provider_is_read() -> None:
    assert read(USUAL) == OF_USUAL


def test_all_that_a_file_can_say_is_read() -> None:
    text = f"""\
[interface]
privatekey={PRIVATE}
ADDRESS = 10.64.0.2 # no prefix: one host
Address = fd01::2
DNS = 10.64.0.1, provider.example , fd01::1
MTU = 1380
ListenPort = 51000
[PEER]
PublicKey = {PUBLIC}
PresharedKey = {SHARED}
AllowedIPs =
Endpoint = VPN.example:51820
PersistentKeepalive = 25
[Peer]
PublicKey = {SHARED}
AllowedIPs = 10.1.2.3/8
AllowedIPs = ::/1, 8000::/1
Endpoint = [2001:db8::1]:443
PersistentKeepalive = off
"""

    assert read(text) == Profile(
        private=Key(b"\1" * 32),
        addresses=(ip_interface("10.64.0.2/32"), ip_interface("fd01::2/128")),
        peers=(
            Peer(
                public=Key(b"\2" * 32),
                endpoint=Endpoint("vpn.example", 51820),
                allowed=(),
                preshared=Key(b"\3" * 32),
                keepalive=25,
            ),
            Peer(
                public=Key(b"\3" * 32),
                endpoint=Endpoint(ip_address("2001:db8::1"), 443),
                allowed=tuple(map(ip_network, ("10.0.0.0/8", "::/1", "8000::/1"))),
            ),
        ),
        dns=(ip_address("10.64.0.1"), ip_address("fd01::1")),
        mtu=1380,
        port=51000,
    )


@pytest.mark.parametrize("ending", ["\r\n", "\n\n", "\t\n"])
def test_the_editor_it_was_saved_with_does_not_matter(ending: str) -> None:
    text = USUAL.replace("\n", ending)

    assert parse(b"\xef\xbb\xbf" + text.encode(), "provider.conf") == OF_USUAL


@pytest.mark.parametrize("path", EVIL, ids=lambda path: path.stem)
def test_an_evil_file_is_refused_with_its_line(path: Path) -> None:
    named = path.read_text().splitlines()[0].removeprefix("# ")

    with pytest.raises(ProfileError) as caught:
        parse(path.read_bytes(), path.name)

    assert str(caught.value) == named


def test_the_corpus_has_every_key_that_is_refused() -> None:
    assert {key.lower() for key in REFUSED} <= {path.stem for path in EVIL}


@pytest.mark.parametrize(
    ("untrusted", "said"),
    [
        (b"\n\n# \xff\n", "p:3: expected text in UTF-8"),
        (b"#" * (MOST_BYTES + 1), f"p:1: expected at most {MOST_BYTES} bytes"),
        (b"\n" * MOST_LINES, f"p:{MOST_LINES}: expected no more lines"),
        (b"[Interface]\0\n", "p:1: expected printable text"),
    ],
)
def test_what_is_no_text_file_is_refused(untrusted: bytes, said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        parse(untrusted, "p")


LINES = USUAL.splitlines()


@given(
    st.lists(st.sampled_from(LINES) | st.text(max_size=60), max_size=30).map("\n".join)
    | st.text(max_size=400)
    | st.binary(max_size=200).map(lambda b: b.decode("latin-1"))
)
def test_any_text_is_read_or_refused_with_a_line(untrusted_text: str) -> None:
    """Nothing else comes out: no other exception, no message without a place."""
    try:
        profile = read(untrusted_text)
    except ProfileError as error:
        file, line, _ = str(error).split(":", 2)
        assert file == "provider.conf"
        assert 1 <= int(line) <= untrusted_text.count("\n") + 1
    else:
        assert profile.peers


SECRET = b64encode(bytes(range(100, 132))).decode()


@given(st.integers(0, len(LINES) - 1), st.sampled_from(["", "PrivatKey = ", "Key "]))
def test_no_message_holds_a_secret_wherever_it_stands(at: int, before: str) -> None:
    """Not in the text, and not in the causes that a log would show."""
    untrusted = [*LINES[:at], before + SECRET, *LINES[at:]]
    moved = [*LINES[:at], f"{LINES[at].partition('=')[0]}= {SECRET}", *LINES[at + 1 :]]
    for lines in (untrusted, moved):
        try:
            read("\n".join(lines))
        except ProfileError as error:
            said = "".join(traceback.format_exception(error))
            assert SECRET not in said
            assert SECRET[:20].lower() not in said.lower()


def test_no_secret_is_shown_by_what_holds_it() -> None:
    profile = replace(
        OF_USUAL, peers=(replace(OF_USUAL.peers[0], preshared=Key(b"\3" * 32)),)
    )

    for form in (repr(profile), str(profile), f"{profile}"):
        for number in (1, 2, 3):
            raw = bytes([number]) * 32
            for shown in (repr(raw)[2:-1], raw.hex(), b64encode(raw).decode()):
                assert shown not in form


keys = st.binary(min_size=32, max_size=32).filter(any)
networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 128)),
).map(lambda pair: ip_network(f"{pair[0]}/{pair[1]}", strict=False))


@given(
    keys,
    st.lists(st.tuples(keys, st.lists(networks, max_size=5)), min_size=1, max_size=5),
)
def test_what_a_generator_writes_is_read_as_it_was_meant(
    private: bytes, peers: list[tuple[bytes, list[object]]]
) -> None:
    lines = ["[Interface]", f"PrivateKey = {b64encode(private).decode()}"]
    lines.append("Address = 10.64.0.2/32")
    for public, allowed in peers:
        lines += ["[Peer]", f"PublicKey = {b64encode(public).decode()}"]
        lines.append(f"AllowedIPs = {', '.join(map(str, allowed))}")
        lines.append("Endpoint = 203.0.113.1:51820")

    profile = read("\n".join(lines))

    assert profile.private == Key(private)
    assert [(p.public.value, list(p.allowed)) for p in profile.peers] == peers
