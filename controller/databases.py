# SPDX-License-Identifier: GPL-2.0-or-later
"""The QubesDB of every domain that has an agent, and what the agents say there."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from selectors import BaseSelector

from controller.keys import FIREWALL, MAX_VALUE, VIF, Contents, Remove, Write, changes
from controller.qubesdb_server import QubesDbServer
from controller.qubesdb_store import Store

HANDLED = "/qubes-firewall-handled/"
ERROR = "/ravelin/error/"
STATUS = "/ravelin/status"
DNS = "/dns/"
REPORT = "/ravelin/report/"
TROUBLE = "/ravelin/trouble"
WORDS = re.compile(
    r"generation=([0-9]{1,12}) hash=([0-9a-f]{16}) state=([a-z]{1,20}) "
    r"clients=([0-9]{1,5}) waiting=([0-9]{1,9})"
)
MAX_TEXT = 300  # characters of an agent's words that are passed on


@dataclass(frozen=True, slots=True)
class Status:
    """What an agent says of itself.

    Loads so far and the hash of what is loaded, its state, the vifs in use, and
    the questions for names in rules that nobody has answered yet.
    """

    generation: int
    digest: str
    state: str
    clients: int
    waiting: int


def status(untrusted_value: bytes) -> Status | None:
    """Read ``/ravelin/status``; None if it is not as we write it."""
    found = WORDS.fullmatch(untrusted_value.decode("ascii", "replace"))
    if found is None:
        return None
    return Status(int(found[1]), found[2], found[3], int(found[4]), int(found[5]))


@dataclass(slots=True)
class _Database:
    store: Store
    server: QubesDbServer
    contents: Contents = field(default_factory=dict)
    clients: frozenset[str] = frozenset()  # addresses that have rules in `contents`
    status: Status | None = None
    errors: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    report: dict[str, str] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    unheard: set[str] = field(default_factory=set)


class Databases:
    """One QubesDB for each domain; sockets are ``<directory>/<domain>.sock``."""

    def __init__(self, selector: BaseSelector, directory: Path) -> None:
        self._selector = selector
        self._directory = directory
        self._open: dict[str, _Database] = {}

    def path(self, name: str) -> Path:
        """Return the socket of a domain's QubesDB."""
        return self._directory / f"{name}.sock"

    def open(self, name: str, uid: int) -> None:
        """Serve an empty QubesDB for the domain whose agent has this uid."""
        self.close(name)
        store = Store()

        def written(path: str, untrusted_value: bytes | None) -> None:
            self._heard(name, path, untrusted_value)

        server = QubesDbServer(
            self._selector, self.path(name), store, written, owner=(uid, uid)
        )
        self._open[name] = _Database(store, server)

    def close(self, name: str) -> None:
        """Stop serving a domain."""
        database = self._open.pop(name, None)
        if database is not None:
            database.server.close()

    def names(self) -> tuple[str, ...]:
        """Return the domains that are served."""
        return tuple(self._open)

    def fill(self, contents: Mapping[str, Contents]) -> None:
        """Make each QubesDB hold this; what is equal already is not written."""
        for name, database in self._open.items():
            wanted = contents.get(name, {})
            for operation in changes(database.contents, wanted):
                match operation:
                    case Write(path, value):
                        database.server.write(path, value)
                        if path.startswith(FIREWALL) and not value:
                            database.unheard.add(path.removeprefix(FIREWALL))
                        if path.startswith(VIF):
                            # What was said of another vif says nothing of it.
                            database.status = None
                    case Remove(path):
                        database.server.remove(path)
            database.contents, database.clients = wanted, _clients(wanted)
            database.unheard &= database.clients

    def status(self, name: str) -> Status | None:
        """Return what the agent said last, None before that."""
        return self._open[name].status if name in self._open else None

    def errors(self, name: str) -> Mapping[str, str]:
        """Return the clients the agent denies everything, and its reason."""
        if name not in self._open:
            return {}
        database = self._open[name]
        # The agent is slower than us to forget a client that is no more.
        known = database.clients
        return {a: why for a, why in database.errors.items() if a in known}

    def resolved(self) -> Iterator[tuple[str, str]]:
        """Yield names and the agents' words for their addresses, untrusted.

        An agent is asked about names in the rules of its own clients alone.
        """
        for database in self._open.values():
            for path, text in database.names.items():
                client, _, host = path.partition("/")
                if client not in database.clients:
                    continue
                if host.startswith("@"):  # it did not fit into the path, or the value
                    host, _, words = text.partition(" ")
                    yield host, words
                else:
                    yield host, text

    def report(self, name: str) -> Mapping[str, str]:
        """Return what the personality reports, untrusted printable words by key."""
        return dict(self._open[name].report) if name in self._open else {}

    def trouble(self, name: str) -> str:
        """Return what keeps the personality from working, in its untrusted words."""
        known = self._open[name].trouble if name in self._open else {}
        return known.get("", "")

    def heard(self, name: str) -> bool:
        """Whether the agent has taken every list that was committed."""
        return name in self._open and not self._open[name].unheard

    def outdated(self, name: str) -> None:
        """Wait for what an agent says next: its uplink is about to be another."""
        if name in self._open:
            self._open[name].status = None

    def silent(self, name: str) -> None:
        """Forget what an agent said that is no more."""
        if name in self._open:
            database = self._open[name]
            database.status = None
            database.errors.clear()
            for known in (database.names, database.report, database.trouble):
                known.clear()
            # The next one does not write again what it finds written.
            for path in (ERROR, DNS, REPORT, TROUBLE):
                database.server.remove(path)

    def _heard(self, name: str, path: str, untrusted_value: bytes | None) -> None:
        database = self._open[name]
        if path == STATUS:
            database.status = status(untrusted_value or b"")
        elif path.startswith(ERROR):
            _note(database.errors, path.removeprefix(ERROR), untrusted_value, MAX_TEXT)
        elif path.startswith(HANDLED) and untrusted_value is not None:
            database.unheard.discard(path.removeprefix(HANDLED))
        elif path.startswith(REPORT):
            _note(database.report, path.removeprefix(REPORT), untrusted_value, MAX_TEXT)
        elif path == TROUBLE:
            _note(database.trouble, "", untrusted_value, MAX_TEXT)
        elif path.startswith(DNS):
            _note(database.names, path.removeprefix(DNS), untrusted_value, MAX_VALUE)


def _note(
    notes: dict[str, str], path: str, untrusted_value: bytes | None, longest: int
) -> None:
    """Write down what an agent wrote, or forget what it removed."""
    if untrusted_value is not None:
        text = untrusted_value.decode("ascii", "replace")[:longest]
        notes[path] = "".join(
            c if c.isascii() and c.isprintable() else "?" for c in text
        )
        return
    below = not path or path.endswith("/")
    for known in tuple(notes):
        if known == path or (below and known.startswith(path)):
            del notes[known]


def _clients(contents: Contents) -> frozenset[str]:
    below = (
        path.removeprefix(FIREWALL) for path in contents if path.startswith(FIREWALL)
    )
    return frozenset(path for path in below if "/" not in path)
