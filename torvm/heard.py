# SPDX-License-Identifier: GPL-2.0-or-later
"""From the words of tor's control protocol to values; never raises.

What cannot be read is left out.  Host names and addresses that tor puts into
its events are not passed on, so that nobody can log them.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address

from rules.model import Address
from torvm import said
from torvm.listeners import Kind, Listener
from torvm.said import (
    Bootstrap,
    ByProxy,
    Circuit,
    Clock,
    Consensus,
    Established,
    Hop,
    Ready,
    Said,
    Stream,
)

SHOWN = 100  # characters of a text of tor's
DONE = 100  # percent
OF_STATUS = 3  # IP ORPort DirPort end the first line of a router status

ASKED = {
    Kind.TRANS: "net/listeners/trans",
    Kind.DNS: "net/listeners/dns",
    Kind.SOCKS: "net/listeners/socks",
}

NAMED: Mapping[str, Said] = {
    "CIRCUIT_ESTABLISHED": Established(circuits=True),
    "CIRCUIT_NOT_ESTABLISHED": Established(circuits=False),
    "CLOCK_JUMPED": Clock(None),
    "CONSENSUS_ARRIVED": Consensus(),
}

# What tor only says in its log, with addresses that are not passed on.
WARNED: Mapping[str, str] = {
    r'\("authentication failed"\)': said.NO_ENTRY,
    r"support any of our available authentication methods": said.NO_ENTRY,
    r"https proxy sent back an unexpected status code 40[17]": said.NO_ENTRY,
    r"https proxy sent back an unexpected status code": said.NO_WAY,
    r"connection to the \w+ proxy server at .* just failed": "does not answer",
    r'Proxy Client: .* \("': said.NO_WAY,
}


def ready(untrusted_entries: Mapping[str, str]) -> Ready:
    """Read what tor says of itself after the greeting (GETINFO)."""
    phase = untrusted_entries.get("status/bootstrap-phase", "")
    words = dict(word.partition("=")[::2] for word in phase.split())
    return Ready(
        version=plain(untrusted_entries.get("version", "")),
        progress=_number(words.get("PROGRESS", "")) or 0,
        circuits=untrusted_entries.get("status/circuit-established") == "1",
        listening=places(untrusted_entries),
    )


def places(untrusted_entries: Mapping[str, str]) -> frozenset[Listener]:
    """Read ``net/listeners/…``: quoted places with spaces between."""
    found = (
        _listener(kind, untrusted_word)
        for kind in Kind
        for untrusted_word in untrusted_entries.get(ASKED[kind], "").split()
    )
    return frozenset(place for place in found if place is not None)


def status(
    level: str, action: str, untrusted_arguments: Mapping[str, str]
) -> Said | None:
    """Read STATUS_CLIENT and STATUS_GENERAL (control-spec, 4.1.10)."""
    if action == "BOOTSTRAP":
        warned = untrusted_arguments.get("RECOMMENDATION") == "warn"
        return Bootstrap(
            progress=_number(untrusted_arguments.get("PROGRESS", "")) or 0,
            summary=plain(untrusted_arguments.get("SUMMARY", "")),
            reason=plain(untrusted_arguments.get("REASON", "")),
            stuck=level == "WARN" and warned,
        )
    if action == "CLOCK_SKEW":
        # Positive if the clock here is ahead.
        return Clock(_number(untrusted_arguments.get("SKEW", "")))
    return NAMED.get(action)


def warning(untrusted_text: str) -> ByProxy | None:
    """Read what tor warns of: only what stands before it is told by no event."""
    found = (why for each, why in WARNED.items() if re.search(each, untrusted_text))
    why = next(found, None)
    return None if why is None else ByProxy(why)


def stream(
    number: str, word: str, circuit: str, untrusted_source: str | None
) -> Stream:
    """Read STREAM; circuit 0 is none (control-spec, 4.1.2)."""
    source = _address(untrusted_source or "")
    return Stream(number, word, "" if circuit == "0" else circuit, source)


def circuit(
    number: str,
    word: str,
    untrusted_path: Iterable[tuple[str, str | None]],
    untrusted_words: Mapping[str, str],
) -> Circuit:
    """Read CIRC (control-spec, 4.1.1)."""
    conflux = untrusted_words.get("CONFLUX_ID", "")
    path = tuple(Hop(each, plain(name or "")) for each, name in untrusted_path)
    purpose = plain(untrusted_words.get("purpose", ""))
    return Circuit(number, word, conflux or number, purpose, path)


def address_of_status(untrusted_status: str) -> Address | None:
    """Return the IPv4 address of a router status (dir-spec, 3.4.1, ``r``)."""
    for line in untrusted_status.splitlines():
        words = line.split()
        if words[:1] == ["r"] and len(words) > OF_STATUS:
            return _address(words[-OF_STATUS])
    return None


def reason(untrusted_reply: str) -> str:
    """Return why tor refuses, for people, without what was asked."""
    return plain(untrusted_reply.partition("\n")[0])


def plain(untrusted_text: str) -> str:
    """Return printable ASCII, and not much of it."""
    text = "".join(letter for letter in untrusted_text if " " <= letter <= "~")
    return text[:SHOWN]


def _listener(kind: Kind, untrusted_word: str) -> Listener | None:
    host, _, text = untrusted_word.strip('"').rpartition(":")
    address, port = _address(host), _number(text)
    if address is None or port is None:
        return None
    return Listener(kind, address, port)


def _number(untrusted_text: str) -> int | None:
    with suppress(ValueError):
        return int(untrusted_text)
    return None


def _address(untrusted_text: str) -> Address | None:
    with suppress(ValueError):
        return ip_address(untrusted_text.strip("[]"))
    return None
