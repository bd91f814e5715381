# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a tunnel of OpenVPN does not come up, in one line for people.

From lines of the daemon's log and the words of its states, as OpenVPN 2.6 has
them.  The most telling line of an attempt counts.  Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from rules.model import shown
from vpn.openvpn_pem import validity


@dataclass(frozen=True, slots=True)
class Trouble:
    """A cause; of two in one attempt the one with more ``weight`` is shown."""

    text: str
    weight: int


NOTHING = Trouble("", 0)
HANGS = Trouble("openvpn runs, but does not do as it is told", 8)
NO_ANSWER = Trouble("the server does not answer", 3)
NO_WORD = Trouble("the server broke the connection at once", 3)
BROKEN_OFF = Trouble("the server broke off the handshake", 4)
NOTHING_BACK = Trouble("connected, but nothing comes back through the tunnel", 6)
WRONG_KEY = Trouble("<tls-crypt> or <tls-auth> is not the server's", 7)
OWN_CERTIFICATE = 7  # the weight of what our own certificate explains

# What a line of the log contains, and what that means.
_CAUSES = (
    (
        r"VERIFY ERROR: .*error=certificate has expired",
        Trouble("the server's certificate has expired", 9),
    ),
    (
        r"VERIFY ERROR: .*error=certificate is not yet valid",
        Trouble("the server's certificate is not yet valid: is the clock right?", 9),
    ),
    (
        r"VERIFY ERROR: .*error=(?:self.signed certificate|unable to get)",
        Trouble("the server's certificate is not of the authority in <ca>", 9),
    ),
    (r"VERIFY ERROR: .*error=([^:]*)", Trouble("the server's certificate: {}", 8)),
    (
        r"VERIFY (?:EKU|KU|X509NAME) ERROR",
        Trouble("the server is not who the profile says", 9),
    ),
    (
        r"alert certificate expired",
        Trouble("the server says that <cert> has expired", 9),
    ),
    (
        r"alert (?:unknown ca|bad certificate|certificate unknown)",
        Trouble("the server does not accept <cert>", 9),
    ),
    (
        # A packet that came twice is an error of tls-crypt too, and says nothing.
        r"tls-crypt unwrap error: packet (?:too short|auth)|HMAC (?:auth|in incoming)",
        WRONG_KEY,
    ),
    (
        r"Failed to negotiate cipher|OPTIONS ERROR: failed to negotiate cipher",
        Trouble("the server has no cipher in common with the profile", 9),
    ),
    (
        r"(?:no shared cipher|unsupported protocol|no protocols available)",
        Trouble("the server has no version or cipher of TLS in common", 9),
    ),
    (
        r"Cannot load (?:inline )?certificate|Cannot load CA certificate",
        Trouble("<ca> or <cert> is no certificate that OpenVPN can read", 9),
    ),
    (
        r"key values mismatch|private key does not match",
        Trouble("<key> does not belong to <cert>", 9),
    ),
    (
        r"Cannot load (?:inline )?private key",
        Trouble("<key> is no key that OpenVPN can read", 8),
    ),
    (r"Connection refused", Trouble("the server refuses the connection", 5)),
    (
        r"No route to host|Network is unreachable|Host is unreachable",
        Trouble("the server cannot be reached", 5),
    ),
    (r"Operation not permitted", Trouble("the rules do not let it out", 4)),
    (r"TLS key negotiation failed to occur", BROKEN_OFF),
)
_PATTERNS = tuple((re.compile(pattern), trouble) for pattern, trouble in _CAUSES)

# What a restart says of the attempt before (detail of RECONNECTING).
_RESTARTS = {
    "auth-failure": Trouble("wrong user name or password", 10),
    "connection-failed": Trouble("the server cannot be reached", 3),
    "connection-reset": Trouble("the server broke the connection", 3),
    "ping-restart": Trouble("the server went silent", 3),
    "server_poll": NO_ANSWER,
    "server-pushed-connection-reset": Trouble("the server asked to connect anew", 3),
    "tls-error": BROKEN_OFF,
}

# What a key of the control channel may be instead.  A server drops what was not made
# with its own and says nothing (openvpn(8)); over TCP it ends the connection.
_DOUBTS = {
    "tls-auth": "<tls-auth> or key-direction is not its own",
    "tls-crypt": "<tls-crypt> is not its own",
    "tls-crypt-v2": "<tls-crypt-v2> is not its own",
}
_NONE = "it expects <tls-crypt> or <tls-auth>"


def of_log(untrusted_text: str) -> Trouble:
    """Return what a line of the log tells, or `NOTHING`."""
    for pattern, trouble in _PATTERNS:
        if found := pattern.search(untrusted_text):
            said = shown(found[1]) if found.groups() else ""
            return Trouble(trouble.text.format(said), trouble.weight)
    return NOTHING


def of_restart(untrusted_detail: str, *, answered: bool) -> Trouble:
    """Return what the reason of a restart tells, or `NOTHING`.

    ``answered``: the server had, in words that the daemon could read.
    """
    if untrusted_detail == "connection-reset" and not answered:
        return NO_WORD
    return _RESTARTS.get(untrusted_detail, NOTHING)


def of_end(untrusted_text: str) -> Trouble:
    """Return what a last word of the daemon tells."""
    known = of_log(untrusted_text)
    return known if known.weight else Trouble(f"openvpn: {shown(untrusted_text)}", 6)


def of_attempt(met: Trouble, blocks: Mapping[str, str], now: datetime) -> Trouble:
    """Return what an attempt met, with what the profile's own blocks explain of it.

    Few servers say what is wrong with a certificate, and none that a key is.
    """
    doubt = next((why for key, why in _DOUBTS.items() if key in blocks), _NONE)
    if met == NO_ANSWER:
        met = replace(met, text=f"{met.text}: not reachable, or {doubt}")
    elif met == NO_WORD:
        met = replace(met, text=f"{met.text}: perhaps {doubt}")
    return worse(met, of_certificate(blocks.get("cert", ""), now))


def of_certificate(pem: str, now: datetime) -> Trouble:
    """Return what is wrong with our own certificate at a time of UTC."""
    held = validity(pem)
    problem = held.problem(now) if held else None
    return Trouble(f"<cert> {problem}", OWN_CERTIFICATE) if problem else NOTHING


def worse(one: Trouble, other: Trouble) -> Trouble:
    """Return the more telling of two; the first one if both are as telling."""
    return other if other.weight > one.weight else one
