# SPDX-License-Identifier: GPL-2.0-or-later
"""What OpenVPN tells on its management interface, as values.

Named ``untrusted_`` is what a server can have written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Hold:
    """The daemon waits, before the first connection and before each other."""


@dataclass(frozen=True, slots=True)
class Remote:
    """The daemon asks where to connect to by a protocol (IANA number)."""

    proto: int


@dataclass(frozen=True, slots=True)
class State:
    """What the daemon does, in its words; ``detail`` is why it began anew."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """The daemon asks for something secret: ``what`` is mostly ``Auth``.

    ``login``: a user name and a password, and ``challenge`` a question of the
    server that only a person can answer.
    """

    what: str
    login: bool
    challenge: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server (or a key) did not take what was needed, and may say why."""

    what: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Up:
    """The tunnel's device is open; ``untrusted_variables`` hold what was pushed."""

    untrusted_variables: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Down:
    """The tunnel's device was closed."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """What came from the server and went to it, in bytes since the start."""

    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Log:
    """A line of the daemon's log; ``flags`` are of ``FNWDI``."""

    flags: str
    untrusted_text: str


@dataclass(frozen=True, slots=True)
class Fatal:
    """Why the daemon ends."""

    untrusted_text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A command was not taken."""

    untrusted_text: str


@dataclass(frozen=True, slots=True)
class Other:
    """What needs no answer: greetings, successes, and kinds of tomorrow."""


Event = (Hold | Remote | State | Need | Rejected | Up | Down | Bytes | Log | Fatal) | (
    Refused | Other
)
