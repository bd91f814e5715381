# SPDX-License-Identifier: GPL-2.0-or-later
"""What tor says, as values (control-spec, 4 and 5).

Addresses of relays are in `CircuitsSeen` and `RelaysSeen` alone, and in no message.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rules.model import Address
from torvm.listeners import Listener

NO_ENTRY = "wants a user and a password"
NO_WAY = "does not get us any further"


@dataclass(frozen=True, slots=True)
class Ready:
    """What tor says of itself; ``progress`` is in %.

    ``memory`` is what the kernel says that it takes, in bytes; 0 if it does not say.
    """

    version: str
    progress: int
    circuits: bool
    listening: frozenset[Listener]
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Listening:
    """Where tor listens now."""

    places: frozenset[Listener]


@dataclass(frozen=True, slots=True)
class Live:
    """Whether anything comes back from the network at all."""

    live: bool


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How far tor is; ``reason`` is a word of control-spec if it is stuck."""

    progress: int
    summary: str
    reason: str = ""
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class ByProxy:
    """tor did not get through what stands before it; ``why`` is in our words."""

    why: str


@dataclass(frozen=True, slots=True)
class Established:
    """Whether tor has circuits that clients can use."""

    circuits: bool


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock here is ``ahead`` seconds before the one of the network.

    Negative: it is behind.  None: it jumped, or tor does not say how far.
    """

    ahead: int | None


@dataclass(frozen=True, slots=True)
class Stream:
    """A client's connection or question.

    ``source`` is only said of new ones; ``circuit`` is empty before it has one.
    """

    number: str
    status: str
    circuit: str
    source: Address | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said of it."""
        return self.status in ("CLOSED", "FAILED")


@dataclass(frozen=True, slots=True)
class StreamsLost:
    """Something was said of streams that is not known, because nobody could read it."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A relay of a circuit: its fingerprint, and the name it gives itself."""

    fingerprint: str
    untrusted_nickname: str


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit.  ``key`` is the same for circuits that carry one stream together.

    Since 0.4.8 tor may spread a stream over two circuits (conflux), so those
    are compared by their CONFLUX_ID.
    """

    number: str
    status: str
    key: str
    purpose: str = ""
    path: tuple[Hop, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said of it."""
        return self.status in ("CLOSED", "FAILED")


@dataclass(frozen=True, slots=True)
class Consensus:
    """There is a new list of relays."""


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """Options changed, by us or by somebody else: their names in lower case."""

    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class Done:
    """tor did what was asked; ``what`` names the question."""

    what: str


@dataclass(frozen=True, slots=True)
class Refused:
    """tor did not do what was asked, with its words, which hold no address."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class CircuitsSeen:
    """Every circuit there is."""

    circuits: tuple[Circuit, ...]


@dataclass(frozen=True, slots=True)
class RelaysSeen:
    """Where the relays listen that a client may connect to.

    ``built_in`` are the directories that tor knows without any list.
    """

    built_in: frozenset[tuple[Address, int]]
    listed: frozenset[tuple[Address, int]]


@dataclass(frozen=True, slots=True)
class CountriesSeen:
    """The country (two letters) and the address of relays, by fingerprint."""

    countries: Mapping[str, str]
    addresses: Mapping[str, Address]


Said = (
    Ready
    | Listening
    | Live
    | Bootstrap
    | ByProxy
    | Established
    | Clock
    | Stream
    | StreamsLost
    | Circuit
    | Consensus
    | Reconfigured
    | Done
    | Refused
    | CircuitsSeen
    | RelaysSeen
    | CountriesSeen
)
