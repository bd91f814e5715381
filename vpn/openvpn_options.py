# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of an OpenVPN profile: used, left to us, or refused, and why.

Source: openvpn(8) of OpenVPN 2.6.  What no table here names is refused too.
``docs/reference/openvpn-profile.md`` holds these tables; a test compares them.
Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rules.model import shown

_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_CIPHER = r"(?i:(?:AES|CAMELLIA|ARIA)-(?:128|192|256)-(?:GCM|CBC)|CHACHA20-POLY1305)"
_HASH = r"(?i:(?:RSA-)?SHA(?:1|224|256|384|512)|SHA3-(?:256|384|512)|BLAKE2[bs]\d+)"
_NAMES = r"!?[A-Za-z0-9_+-]+(?::!?[A-Za-z0-9_+-]+)*"
_HEX = r"[0-9A-Fa-f]{1,4}"
_PRINT = r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){19,31}"
_TEXT = r"[^\x00-\x1f\x7f]+"
_ADDRESS = r"[0-9A-Fa-f:.]{2,45}"


@dataclass(frozen=True, slots=True)
class Form:
    """What the arguments of an option look like.

    ``patterns`` are those of each argument in order, of which ``least`` must be
    there; ``words`` say it to people.
    """

    words: str
    patterns: tuple[str, ...] = ()
    least: int = 1

    def problem(self, untrusted_arguments: Sequence[str]) -> str | None:
        """Say what was expected instead, if these arguments are not good."""
        count = len(untrusted_arguments)
        fit = self.least <= count <= len(self.patterns) and all(
            re.fullmatch(pattern, argument)
            for pattern, argument in zip(
                self.patterns, untrusted_arguments, strict=False
            )
        )
        return None if fit else f"expected {self.words}"


_COUNT = Form("a number", (_NUMBER,))
_CIPHERS = Form(
    "ciphers, as in AES-256-GCM:AES-128-CBC", (rf"{_CIPHER}(?::{_CIPHER})*",)
)
_SUITES = Form("names of cipher suites", (_NAMES,))

USED = {
    "auth": Form("a hash of SHA, SHA3 or BLAKE2", (_HASH,)),
    "cipher": Form("a cipher, as in AES-256-GCM", (_CIPHER,)),
    "comp-lzo": Form("no, for compression gives content away", ("no",)),
    "compress": Form(
        "stub or stub-v2, for compression gives content away", ("stub|stub-v2",), 0
    ),
    "data-ciphers": _CIPHERS,
    "data-ciphers-fallback": Form("a cipher, as in AES-256-CBC", (_CIPHER,)),
    "dhcp-option": Form("DNS and an address", ("DNS6?", _ADDRESS), 2),
    "explicit-exit-notify": Form("a number of attempts or nothing", (_NUMBER,), 0),
    "fragment": Form("a number of bytes", (_NUMBER, "mtu")),
    "key-direction": Form("0 or 1", ("[01]",)),
    "mssfix": Form("a number of bytes or nothing", (_NUMBER, "mtu|fixed"), 0),
    "ncp-ciphers": _CIPHERS,
    "peer-fingerprint": Form("a SHA-256 fingerprint in hexadecimal", (_PRINT,)),
    "pull-filter": Form(
        "accept, ignore or reject, and a text", ("accept|ignore|reject", _TEXT), 2
    ),
    "rcvbuf": Form("a number of bytes", (_NUMBER,)),
    "remote-cert-eku": Form("a key usage", (_TEXT,)),
    "remote-cert-ku": Form("key usages in hexadecimal", (_HEX,) * 8, 0),
    "remote-cert-tls": Form("server", ("server",)),
    "reneg-bytes": _COUNT,
    "reneg-pkts": _COUNT,
    "reneg-sec": Form("a number of seconds", (_NUMBER, _NUMBER)),
    "replay-window": Form("a number of packets and of seconds", (_NUMBER, _NUMBER)),
    "sndbuf": Form("a number of bytes", (_NUMBER,)),
    "tls-cert-profile": Form(
        "legacy, preferred or suiteb", ("legacy|preferred|suiteb",)
    ),
    "tls-cipher": _SUITES,
    "tls-ciphersuites": _SUITES,
    "tls-groups": Form("names of groups", (_NAMES,)),
    "tls-timeout": Form("a number of seconds", (_NUMBER,)),
    "tls-version-max": Form("1.2 or 1.3", (r"1\.[23]",)),
    "tls-version-min": Form("1.0 to 1.3", (r"1\.[0-3]", "or-highest")),
    "topology": Form("subnet, net30 or p2p", ("subnet|net30|p2p",)),
    "tran-window": Form("a number of seconds", (_NUMBER,)),
    "tun-mtu": Form("a number of bytes", (r"[1-9][0-9]{2,4}", _NUMBER)),
    "verify-hash": Form("a fingerprint in hexadecimal", (_PRINT, _HASH)),
    "verify-x509-name": Form(
        "a name, and subject, name or name-prefix",
        (_TEXT, "subject|name|name-prefix"),
    ),
}
"""Options that go to the daemon as they are, once their arguments are checked."""

SERVERS = {
    "remote": "a host, a port and a protocol",
    "proto": "udp or tcp",
    "port": "a number within 1-65535",
    "rport": "a number within 1-65535",
    "remote-random": "nothing",
    "connection": "a block with the above",
}
"""Options that name servers; the daemon is told one address at a time."""

BLOCKS = {
    "ca": ("CERTIFICATE",),
    "cert": ("CERTIFICATE",),
    "crl-verify": ("X509 CRL",),
    "extra-certs": ("CERTIFICATE",),
    "key": ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "EC PARAMETERS"),
    "tls-auth": ("OpenVPN Static key V1",),
    "tls-crypt": ("OpenVPN Static key V1",),
    "tls-crypt-v2": ("OpenVPN tls-crypt-v2 client key",),
}
"""Options whose file stands in the profile, and the PEM labels it may have."""

_OURS = """
    allow-compression allow-pull-fqdn allow-recursive-routing auth-nocache
    auth-retry block-ipv6 block-outside-dns client comp-noadapt connect-retry
    connect-retry-max connect-timeout daemon dhcp-release dhcp-renew disable-dco
    disable-occ dns ecdh-curve echo fast-io float group hand-window ifconfig-noexec
    ifconfig-nowarn ignore-unknown-option inactive ip-win32 keepalive link-mtu
    machine-readable-output max-routes mlock mtu-disc mtu-test mute
    mute-replay-warnings nice nobind ns-cert-type parameter passtos persist-key
    persist-local-ip persist-remote-ip persist-tun ping ping-exit ping-restart
    ping-timer-rem pull push-peer-info redirect-gateway redirect-private
    register-dns remap-usr1 resolv-retry route route-delay route-gateway route-ipv6
    route-ipv6-gateway route-method route-metric route-noexec route-nopull
    script-security server-poll-timeout session-timeout setenv-safe socket-flags
    suppress-timestamps syslog tap-sleep tcp-nodelay tls-client tls-exit tun-ipv6
    tun-max-mtu tun-mtu-extra txqueuelen user verb windows-driver
"""
OURS = frozenset(_OURS.split())
"""Options that are read over: what they ask for is decided here."""

_RUNS = "runs a program; delete it, DNS and routes are set without scripts"
_FILE = "reads or writes a file; expected a profile that holds all it needs"
_DAEMON = "controls the daemon, which is done here"
_WAY = "asks for another way out than the uplink"
_SERVER = "is an option of a server"
_WEAK = "makes the tunnel weak"
_ASKS = "needs a person or a card at hand"

_REASONS = {
    _RUNS: """
    auth-user-pass-verify client-connect client-crresponse client-disconnect
    dns-updown down down-pre engine ipchange iproute learn-address plugin providers
    route-pre-down route-up tls-crypt-v2-verify tls-verify up up-delay up-restart
    """,
    _FILE: """
    askpass auth-gen-token-secret capath cd chroot client-config-dir config dev-node
    dh http-proxy-user-pass ifconfig-pool-persist keying-material-exporter log
    log-append pkcs12 replay-persist rmtun mktun setcon status status-version
    tls-export-cert tmp-dir writepid
    """,
    _DAEMON: """
    errors-to-stderr management management-client management-client-auth
    management-client-group management-client-pf management-client-user
    management-external-cert management-external-key management-forget-disconnect
    management-hold management-log-cache management-query-passwords
    management-query-proxy management-query-remote management-signal
    management-up-down service
    """,
    _WAY: """
    bind bind-dev client-nat http-proxy http-proxy-option http-proxy-override
    http-proxy-retry http-proxy-timeout ifconfig ifconfig-ipv6 lladdr local lport
    mark multihome proto-force remote-random-hostname show-proxy-settings socks-proxy
    socks-proxy-retry
    """,
    _SERVER: """
    auth-gen-token auth-user-pass-optional ccd-exclusive client-cert-not-required
    client-to-client connect-freq duplicate-cn ifconfig-pool ifconfig-push iroute
    max-clients mode opt-verify port-share push server server-bridge server-ipv6
    tls-server username-as-common-name verify-client-cert x509-username-field
    """,
    _WEAK: """
    auth-token auth-token-user compat-mode key-method ncp-disable no-iv no-replay
    prng secret single-session test-crypto
    """,
    _ASKS: """
    cryptoapicert pkcs11-cert-private pkcs11-id pkcs11-id-management
    pkcs11-pin-cache pkcs11-private-mode pkcs11-protected-authentication
    pkcs11-providers static-challenge
    """,
}
REFUSED = {name: why for why, names in _REASONS.items() for name in names.split()}
"""Options that no profile may have, and the reason."""


def unknown(untrusted_name: str) -> str:
    """Say why an option is refused."""
    why = REFUSED.get(untrusted_name)
    if why is not None:
        return f"{untrusted_name} {why}"
    return f"{shown(untrusted_name)}: expected an option of a client's profile"
