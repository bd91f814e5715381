# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration that the OpenVPN daemon gets, written from a profile.

It runs nothing, reads nothing else and changes nothing of the machine: no
scripts, no routes, no addresses (openvpn(8)).  It does nothing before it is
told so by the socket it connects to, asks there for each address it connects
to, and ends when that connection does.  Pure.
"""

from collections.abc import Iterator

from vpn.endpoints import UDP
from vpn.openvpn_profile import Profile
from vpn.openvpn_words import quoted
from vpn.openvpn_words import written as line_of

# What OpenVPN takes for a server's identity besides the authority's signature.
_IDENTITY = {
    "peer-fingerprint",
    "remote-cert-eku",
    "remote-cert-ku",
    "remote-cert-tls",
    "verify-x509-name",
}
_MODERN = "1.3"


def written(profile: Profile, device: str, socket: str) -> bytes:
    """Return the configuration the daemon gets.

    ``device`` is the tun device made for it, ``socket`` the path of the unix
    socket it connects to: it does nothing before it is told so there, and ends
    when that connection does.
    """
    protocols = dict.fromkeys(each.proto for each in profile.endpoints)
    words = [
        *map(line_of, profile.options),
        *(
            # The address is put in its place when it asks (>REMOTE).
            f"remote 127.0.0.1 1 {'udp' if each == UDP else 'tcp-client'}"
            for each in protocols
        ),
        # Last, for what is said last counts.
        *_forced(profile, device, socket),
    ]
    blocks = (f"<{name}>\n{pem}</{name}>\n" for name, pem in profile.blocks.items())
    return ("\n".join(words) + "\n" + "".join(blocks)).encode()


def _forced(profile: Profile, device: str, socket: str) -> Iterator[str]:
    yield from ("client", "nobind", f"dev {device}", "dev-type tun", "disable-dco")
    yield f"management {quoted(socket)} unix"
    for what in ("client", "hold", "query-remote", "query-passwords", "up-down"):
        yield f"management-{what}"
    yield from ("script-security 0", "route-noexec", "ifconfig-noexec")
    yield from ("persist-tun", "auth-nocache", "auth-retry nointeract")
    yield from ("resolv-retry 0", "connect-retry 1 1", "connect-timeout 60")
    yield from ("hand-window 60", "ping 10", "ping-restart 60", "allow-compression no")
    # To be managed costs some system calls for each packet, which this saves again.
    yield from ("fast-io", "suppress-timestamps", "verb 2")
    if profile.asks_login:
        yield "auth-user-pass"
    if not _IDENTITY & {words[0] for words in profile.options}:
        yield "remote-cert-tls server"
    if profile.value("tls-version-min") != _MODERN:
        yield "tls-version-min 1.2"
