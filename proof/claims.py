# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be claimed of domains, and what a proof comes to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from proof.world import Hop, Packet, World
from rules.ground import Ground
from rules.model import AddressRange, Ports

Lists = Mapping[int, Ground]
"""A client's list for each IP version, 4 and 6."""


@dataclass(frozen=True, slots=True)
class NoMoreThanList:
    """What the client sends passes its provider only if its list accepts it.

    Then it goes on by an interface that leads to where is known.  To destinations
    in ``never`` it does not pass at all.
    """

    client: str
    lists: Lists = field(hash=False)
    never: tuple[AddressRange, ...] = ()

    def __str__(self) -> str:
        return f"{self.client} reaches no more than its list accepts"


@dataclass(frozen=True, slots=True)
class NoLessThanList:
    """What the list accepts leaves its provider, but for destinations in ``apart``."""

    client: str
    lists: Lists = field(hash=False)
    apart: tuple[AddressRange, ...] = ()

    def __str__(self) -> str:
        return f"{self.client} reaches all that its list accepts"


@dataclass(frozen=True, slots=True)
class NothingOld:
    """No flow runs that the list does not accept, for its answers would pass."""

    client: str
    lists: Lists = field(hash=False)
    apart: tuple[AddressRange, ...] = ()

    def __str__(self) -> str:
        return f"no flow of {self.client} runs that its list does not accept"


@dataclass(frozen=True, slots=True)
class NoSpoof:
    """Only the client's own addresses pass from its vif, and from no other."""

    client: str

    def __str__(self) -> str:
        return f"{self.client} sends as itself only, and nobody else as {self.client}"


@dataclass(frozen=True, slots=True)
class NoTransit:
    """Nothing passes a domain between two interfaces that lead to no client."""

    domain: str

    def __str__(self) -> str:
        return f"nothing passes {self.domain} from one uplink to another"


@dataclass(frozen=True, slots=True)
class NotOpened:
    """No flow is opened to the client through an interface that leads to no client."""

    client: str

    def __str__(self) -> str:
        return f"nobody outside opens a flow to {self.client}"


@dataclass(frozen=True, slots=True)
class Apart:
    """The client opens no flow to another client of its provider but to ``allowed``."""

    client: str
    allowed: frozenset[str] = frozenset()

    def __str__(self) -> str:
        but = f" but {', '.join(sorted(self.allowed))}" if self.allowed else ""
        return f"{self.client} reaches no other domain{but}"


@dataclass(frozen=True, slots=True)
class Alone:
    """A domain that has no netvm has no way to anywhere."""

    domain: str

    def __str__(self) -> str:
        return f"{self.domain} reaches nothing"


@dataclass(frozen=True, slots=True)
class OnlyThrough:
    """What the client sends leaves the machine only as ``domain`` carries it.

    For any routing table of the domain.
    """

    client: str
    domain: str

    def __str__(self) -> str:
        return f"nothing of {self.client} leaves but through {self.domain}"


@dataclass(frozen=True, slots=True)
class OwnOf:
    """What processes of a domain send out in the clear is sent by these users only.

    For any routing table.  What the kernel itself sends has no user: no part of it.
    """

    domain: str
    users: frozenset[int] = frozenset()

    def __str__(self) -> str:
        users = ", ".join(map(str, sorted(self.users))) or "nobody"
        return f"of the users of {self.domain} only {users} send out in the clear"


class Expect(Enum):
    """What a user expects."""

    REACH = "reach"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Asserted:
    """What the user says of new flows of ``client`` to these destinations.

    ``to`` empty, ``protocols`` or ``ports`` None: all.  ``pings``: echo requests
    alone.  ``expect``: a domain's name means only through it.
    """

    client: str
    to: tuple[AddressRange, ...] = ()
    protocols: frozenset[int] | None = None
    ports: Ports | None = None
    expect: Expect | str = Expect.BLOCKED
    pings: bool = False

    def __str__(self) -> str:
        to = ", ".join(map(str, self.to)) or "anywhere"
        match self.expect:
            case Expect(value=word):
                return f"{self.client} to {to}: {word}"
            case str(name):
                return f"{self.client} to {to}: only through {name}"


def concerns(claim: "Claim", version: int) -> bool:
    """Return whether a claim can be about packets of an IP version at all."""
    match claim:
        case Asserted(_, to):
            return not to or any(network.version == version for network in to)
        case _:
            return True


Claim = (
    NoMoreThanList
    | NoLessThanList
    | NothingOld
    | NoSpoof
    | NoTransit
    | NotOpened
    | Apart
    | Alone
    | OnlyThrough
    | OwnOf
    | Asserted
)


class Status(Enum):
    """What became of a claim, for every packet of one IP version."""

    PROVED = "proved"
    REFUTED = "refuted"
    POSSIBLE = "possible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a claim for one IP version.

    ``packet`` is a witness of the proof (None: it is about no packet at all), or
    the counterexample, which enters ``domain`` by ``came_by``; ``hops`` is its
    way.  ``notes`` are the assumptions of a proof, the doubts of what is possible,
    or why nothing is known.  ``generations`` are those of nf_tables that it holds
    for, by domain.
    """

    claim: Claim
    version: int
    status: Status
    packet: Packet | None = None
    domain: str = ""
    came_by: str = ""
    hops: tuple[Hop, ...] = ()
    notes: tuple[str, ...] = ()
    generations: Mapping[str, int] = field(default_factory=dict)


def implied(
    world: World,
    lists: Mapping[str, Lists],
    apart: tuple[AddressRange, ...] = (),
    alone: tuple[str, ...] = (),
    never: tuple[AddressRange, ...] = (),
) -> Iterator[Claim]:
    """Yield what a world should keep without being asked.

    ``lists`` are by client; ``apart`` are destinations that no list decides;
    ``never`` are those that none of them reaches through a provider; ``alone``
    are the domains without a netvm.
    """
    for name, place in world.places.items():
        yield NoTransit(name)
        for client in place.clients.values():
            yield NoSpoof(client.name)
            yield NotOpened(client.name)
            yield Apart(client.name)
            if client.name in lists:
                yield NoMoreThanList(client.name, lists[client.name], never)
                yield NoLessThanList(client.name, lists[client.name], apart)
            carrier = world.carrier(name)
            if carrier is not None:
                yield OnlyThrough(client.name, carrier)
    for name in alone:
        yield Alone(name)
