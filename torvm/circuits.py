# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``ravelin tor circuits`` is told: which client uses which circuits.

Countries and the names that relays give themselves are enough to see that a
circuit is another one.  Addresses are only told to who asks for them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rules.facts import Client
from rules.model import Address
from torvm.said import Circuit
from torvm.usage import Usage

REQUEST = "circuits"
ADDRESSES = "addresses"
UNKNOWN = "??"  # what tor says of an address whose country it does not know


def asked(words: Mapping[str, str]) -> "Answer":
    """Read the request of dom0: its number, and a word if addresses are wanted."""
    serial, _, more = words.get(REQUEST, "").partition(" ")
    return Answer(serial, addresses=more == ADDRESSES)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known for a request; ``serial`` is its number."""

    serial: str
    addresses: bool = False
    circuits: tuple[Circuit, ...] = ()
    countries: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Address] = field(default_factory=dict)

    @property
    def relays(self) -> frozenset[str]:
        """The fingerprints of all relays on circuits that are open."""
        return frozenset(h.fingerprint for c in self.circuits for h in c.path)

    def seen(self, circuits: tuple[Circuit, ...]) -> "Answer":
        """Take the circuits there are; those over one hop are tor's own."""
        return replace(self, circuits=tuple(c for c in circuits if len(c.path) > 1))

    def placed(
        self, countries: Mapping[str, str], places: Mapping[str, Address]
    ) -> "Answer":
        """Take where the relays are."""
        return replace(self, countries=countries, places=places)

    def report(self, usage: Usage, clients: Iterable[Client]) -> Mapping[str, str]:
        """Return the relays of each circuit, by the client's address and its number."""
        found = {
            f"circuits/{client.ip}/{number}": relays
            for client in clients
            for number, relays in self._of(usage.of(client))
        }
        return {**found, "circuits-serial": self.serial}

    def _of(self, keys: frozenset[str]) -> Iterator[tuple[str, str]]:
        for circuit in self.circuits:
            if circuit.key in keys:
                hops = (self._hop(hop.fingerprint) for hop in circuit.path)
                yield circuit.number, " ".join(hops)

    def _hop(self, fingerprint: str) -> str:
        country = self.countries.get(fingerprint, UNKNOWN)
        names = (h for c in self.circuits for h in c.path)
        name = next(
            (h.untrusted_nickname for h in names if h.fingerprint == fingerprint), ""
        )
        place = self.places.get(fingerprint) if self.addresses else None
        return f"{country}:{name or fingerprint[:8]}" + (f"={place}" if place else "")
