# SPDX-License-Identifier: GPL-2.0-or-later
"""Which server is tried next, when, and at which address.

A value that only changes by what happened: an attempt failed, the tunnel works,
a name was answered.  How often it failed is carried across reconnects, so that
neither a lost tunnel nor a new uplink starts the hurry anew.

One address is tried at a time; it is the only one that the uplink may carry.
A name is asked once and its answers are kept: again only after `ASK_AFTER`
attempts failed, because each question is seen by the network outside.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from rules.model import Address, AddressRange, Name, Ports, RuleError
from rules.outside import embedded, is_public

UDP, TCP = 17, 6  # IANA protocol numbers

ASK_AFTER = 3  # failed attempts at one set of answers
MOST_ANSWERS = 16  # addresses of one name that are tried
# Seconds.  An attempt gets longer with each that failed: a slow way needs more,
# a dead one must not keep the next server waiting.
FIRST_PATIENCE, MOST_PATIENCE = 5.0, 15.0
# After every server was tried once, a pause that doubles.
FIRST_PAUSE, MOST_PAUSE = 1.0, 30.0

# What no server has at all, even one that the user wrote as an address.
NO_HOST = tuple(
    map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8"))
)


class EndpointError(ValueError):
    """Words that are not an endpoint; says what was expected."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as the profile names it; ``host`` is a lower case name if text."""

    host: Address | str
    port: int
    proto: int = UDP

    def __post_init__(self) -> None:
        """Refuse what cannot be asked for or connected to."""
        if not self.port:
            raise EndpointError("expected a port within 1-65535")
        try:
            Ports(self.port, self.port)
            if isinstance(self.host, str):
                Name(self.host)
        except RuleError as error:
            # Their words speak of rules.
            raise EndpointError(
                "expected an address or host name, and a port within 1-65535"
            ) from error


@dataclass(frozen=True, slots=True)
class Target:
    """The one address that may be reached now."""

    address: Address
    port: int
    proto: int = UDP


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, and how many attempts at them failed."""

    addresses: tuple[Address, ...]
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Rotation:
    """Servers in order of preference, and what became of the attempts.

    ``turn`` counts the changes of server, ``failures`` the failed attempts since
    the tunnel last worked, ``answers`` are those of names.
    """

    endpoints: tuple[Endpoint, ...]
    turn: int = 0
    failures: int = 0
    answers: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def endpoint(self) -> Endpoint:
        """The server whose turn it is."""
        return self.endpoints[self.turn % len(self.endpoints)]

    def target(self) -> Target | None:
        """Return where to connect now; None while the name must be asked first."""
        endpoint = self.endpoint
        if not isinstance(endpoint.host, str):
            return Target(endpoint.host, endpoint.port, endpoint.proto)
        answer = self.answers.get(endpoint.host)
        if answer is None or self.question() is not None:
            return None
        address = answer.addresses[answer.failures % len(answer.addresses)]
        return Target(address, endpoint.port, endpoint.proto)

    def question(self) -> str | None:
        """Return the name that must be asked before the next attempt."""
        host = self.endpoint.host
        if not isinstance(host, str):
            return None
        answer = self.answers.get(host)
        if answer is None or not answer.addresses:
            return host
        spent = answer.failures >= max(ASK_AFTER, len(answer.addresses))
        return host if spent else None

    def patience(self) -> float:
        """Return how many seconds the present attempt has."""
        return min(FIRST_PATIENCE * (1 << min(self.failures, 9)), MOST_PATIENCE)

    def pause(self) -> float:
        """Return how many seconds to wait before the present attempt."""
        rounds = self.failures // len(self.endpoints)
        if not rounds:
            return 0.0
        return min(FIRST_PAUSE * (1 << min(rounds - 1, 9)), MOST_PAUSE)

    def failed(self) -> "Rotation":
        """Return the rotation after an attempt that came to nothing: next server.

        Where the name was to be asked and nobody answered, what was answered
        before counts again: its server may be well, and the resolver ill.
        """
        host = self.endpoint.host
        answers = dict(self.answers)
        if isinstance(host, str) and host in answers:
            known = answers[host]
            failures = 0 if self.question() else known.failures + 1
            answers[host] = replace(known, failures=failures)
        return replace(
            self, turn=self.turn + 1, failures=self.failures + 1, answers=answers
        )

    def worked(self) -> "Rotation":
        """Return the rotation after the tunnel carried data: this server again."""
        return replace(self, failures=0)

    def answered(self, name: str, addresses: Iterable[Address]) -> "Rotation":
        """Return the rotation after an answer, each address of it checked."""
        found = tuple(sorted(set(addresses), key=_order))[:MOST_ANSWERS]
        return replace(self, answers={**self.answers, name: Answer(found)})


def why_refused(
    untrusted_address: Address,
    own: Iterable[Address] = (),
    networks: Iterable[AddressRange] = (),
    *,
    written: bool = False,
) -> str | None:
    """Say why an address cannot be that of a server, if so.

    A false answer would make the way to the "server" a way to a host of the
    local network (TunnelCrack, CVE-2023-36671).  ``own`` are addresses of this
    domain, ``networks`` those of its clients.  ``written``: the user wrote the
    address itself, so it may be private.
    """
    address = embedded(untrusted_address)
    if address in set(own):
        return "is an address of this domain"
    if any(address in network for network in networks):
        return "is in the network of the clients"
    if any(address in network for network in NO_HOST):
        return "is not the address of one host"
    if not written and not is_public(address):
        return "is private, which an answer from outside cannot be"
    return None


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)
