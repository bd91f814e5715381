# SPDX-License-Identifier: GPL-2.0-or-later
"""Who uses which circuit, from what tor says of streams and circuits.

It is also the check of what the listeners promise: a circuit that two clients
used is named by `shared`, and there must never be one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rules.facts import Client
from rules.model import Address
from torvm.said import Circuit, Stream, StreamsLost

Whose = Callable[[Address], Client | None]


@dataclass(slots=True)
class Usage:
    """Streams that are open, and for each circuit the clients it ever carried.

    ``missed`` counts how often something was said of streams that is not known.
    """

    missed: int = 0
    _sources: dict[str, Client] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    _users: dict[str, frozenset[Client]] = field(default_factory=dict)

    def take(self, said: Stream | StreamsLost | Circuit, whose: Whose) -> None:
        """Take what is said of any of them."""
        match said:
            case Stream():
                self.stream(said, whose)
            case StreamsLost():
                # That a stream ended may be among what is not known.
                self.missed += 1
                self._sources.clear()
            case Circuit():
                self.circuit(said)

    def stream(self, said: Stream, whose: Whose) -> None:
        """Take what is said of a stream; ``whose`` knows who has an address now."""
        if said.source is not None and (client := whose(said.source)) is not None:
            self._sources[said.number] = client
        client = self._sources.get(said.number)
        if said.circuit in self._keys and client is not None:
            users = self._users.get(said.circuit, frozenset())
            self._users[said.circuit] = users | {client}
        if said.ended:
            self._sources.pop(said.number, None)

    def circuit(self, said: Circuit) -> None:
        """Take what is said of a circuit."""
        if said.ended:
            self._keys.pop(said.number, None)
            self._users.pop(said.number, None)
        else:
            self._keys[said.number] = said.key

    def follow(self, circuits: Iterable[Circuit]) -> None:
        """Take the list of all circuits there are; what is not in it is over."""
        self._keys = {c.number: c.key for c in circuits if not c.ended}
        kept = self._users.keys() & self._keys.keys()
        self._users = {number: self._users[number] for number in kept}

    @property
    def open(self) -> int:
        """How many circuits there are."""
        return len(self._keys)

    def users(self) -> Mapping[str, frozenset[Client]]:
        """Return the clients that a circuit carried, by the circuit's key."""
        found: dict[str, frozenset[Client]] = {}
        for number, users in self._users.items():
            key = self._keys.get(number, number)
            found[key] = found.get(key, frozenset()) | users
        return found

    def of(self, client: Client) -> frozenset[str]:
        """Return the keys of the circuits that carried a client."""
        return frozenset(key for key, users in self.users().items() if client in users)

    def shared(self) -> frozenset[str]:
        """Return the keys of circuits with more than one client: always none."""
        return frozenset(key for key, users in self.users().items() if len(users) > 1)
