# SPDX-License-Identifier: GPL-2.0-or-later
"""What the controller needs of the place where domains live.

A `Platform` is network namespaces, Xen, KVM or Qubes OS.  Every method may be
repeated: it makes something true, which may be true already.  What is there is
found again from the platform itself, so a controller that crashed can go on.
"""

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

VIF_MAC = "fe:ff:ff:ff:ff:ff"  # of every provider's end, as on Qubes


class PlatformError(OSError):
    """The platform could not do what was asked, and why."""


class UplinkError(OSError):
    """A NetVM cannot have the uplink that its policy asks for, and why."""

    def __init__(self, domain: str, why: str) -> None:
        super().__init__(f"{domain}: uplink: {why}")
        self.domain = domain


@dataclass(frozen=True, slots=True)
class Pair:
    """Addresses of one IP version: the client's own, and its gateway's."""

    own: IPv4Address | IPv6Address
    gateway: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Link:
    """A cable from the ``eth0`` of a client to a vif of its provider.

    The provider's end is left down: its agent ups it when the rules stand.
    ``pairs`` is what to configure in the client, and empty for a client with an
    agent, which reads its addresses from QubesDB.
    """

    client: str
    provider: str
    vif: str
    mac: str
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentStart:
    """An agent to start.

    ``uid`` is its own; ``qubesdb`` the unix socket that serves its domain.
    ``resolvers`` are what its resolv.conf has: the real ones in a NetVM.
    ``word`` is that of the policy file for the personality; ``daemons`` are the
    users of its daemons by name, ``secrets`` files that only it may read.
    """

    domain: str
    personality: str
    uid: int
    qubesdb: Path
    resolvers: tuple[str, ...]
    word: str = ""
    daemons: Mapping[str, int] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DaemonStart:
    """The launcher of a daemon to start, beside the agent that tells it what to be.

    ``uid`` is its own, ``agent`` the agent's; it ``keeps`` its state or not.
    """

    domain: str
    name: str
    uid: int
    agent: int
    keeps: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A program that a person runs in a domain; ``user`` None is who asks.

    A ``disposable`` takes everything it started with it when it ends.
    """

    argv: Sequence[str]
    user: str | None = None
    disposable: bool = False


class Process(Protocol):
    """An agent that was started, until `finish`."""

    @property
    def pidfd(self) -> int:
        """A descriptor that is readable when it has ended."""

    @property
    def notify(self) -> socket.socket | None:
        """A datagram socket with what it says by sd_notify(3), if it says anything."""

    def kill(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""

    def trim_log(self) -> None:
        """Keep its log within bounds."""

    def finish(self) -> str:
        """Let go of a process that ended; return why it ended, for people."""


class Platform(Protocol):
    """A place where domains live."""

    def start(self, name: str) -> None:
        """Make the domain, without any network."""

    def stop(self, name: str) -> None:
        """End the domain with all that runs in it and all links to it."""

    def exists(self, name: str) -> bool:
        """Whether the domain is there."""

    def attach(self, link: Link) -> None:
        """Lay the cable, in place of any the client has."""

    def detach(self, client: str) -> None:
        """Take the client's cable away."""

    def counters(self, name: str) -> Mapping[str, tuple[int, int]]:
        """Return the bytes that each interface of a domain received and sent."""

    def unused(self, numbers: Iterable[int]) -> int:
        """Return the first of these that nobody is, neither as user nor as group."""

    def spawn_agent(self, start: AgentStart) -> Process:
        """Start the agent of a domain that provides network."""

    def spawn_daemon(self, start: DaemonStart) -> Process:
        """Start the launcher of a daemon beside the agent of its domain."""

    def run(self, name: str, command: Command) -> int:
        """Run a program in a domain to its end; return its exit code."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """What a NetVM has as uplink: its interface and the resolvers behind it.

    ``notes`` are what people should know about it.
    """

    interface: str
    resolvers: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Uplink(Protocol):
    """One way for NetVMs to reach the network."""

    def attach(self, domain: str) -> WayOut:
        """Give the domain its uplink; again, it repairs what is not as it should be."""

    def detach(self, domain: str) -> None:
        """Take it back and leave everything as it was before."""
