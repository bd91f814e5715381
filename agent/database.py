# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of this domain's QubesDB, mirrored, and the rule lists that changed.

Every connection starts from nothing: what is read is what there is.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from textwrap import wrap
from types import MappingProxyType

from agent.keys import (
    DNS,
    ERROR,
    HANDLED,
    PERSONALITY,
    REPORT,
    RULES,
    SINGLE,
    STATUS,
    TROUBLE,
    VIFS,
    Settings,
    address_of,
    settings,
)
from agent.programs import NOT_COMMITTED
from agent.qubesdb import Disconnected, ProtocolError, QubesDb, RefusedError
from agent.qubesdb_wire import MAX_DATA, MAX_PATH, WireError
from rules.model import Address, ClientPolicy, family
from rules.parse import parse_list

log = logging.getLogger(__name__)

NOTHING: Mapping[str, str] = MappingProxyType({})

Resolved = Mapping[tuple[Address, str], frozenset[Address]]
Broken = (Disconnected, ProtocolError, RefusedError)


@dataclass(slots=True)
class Database:
    """What dom0 wants, as of the last `refresh`; ``lists`` are those committed."""

    db: QubesDb
    settings: Settings = field(default_factory=Settings)
    lists: dict[Address, ClientPolicy] = field(default_factory=dict)
    _values: dict[str, bytes] = field(default_factory=dict)
    _raw: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _touched: dict[str, set[str] | None] = field(default_factory=dict)
    _told: dict[str, bytes] = field(default_factory=dict)
    _resolved: Resolved | None = None
    _names: dict[str, bytes] = field(default_factory=dict)

    def connect(self) -> Mapping[Address, ClientPolicy]:
        """Connect and read everything; return the list of every address.

        One that had a list and has none any more is among them.
        """
        for path in (*SINGLE, VIFS, PERSONALITY, RULES):
            self.db.watch(path)
        self.db.connect()
        # What an agent before this one wrote is replaced or removed.
        self._told = {
            path: value
            for below in (ERROR, DNS, REPORT, TROUBLE)
            for path, value in self.db.multiread(below).items()
        }
        found = ((path, self.db.read(path)) for path in SINGLE)
        self._values = {path: value for path, value in found if value is not None}
        self._values |= self.db.multiread(VIFS) | self.db.multiread(PERSONALITY)
        self._understand()
        self._touched.clear()
        self._raw = {}
        for path, value in self.db.multiread(RULES).items():
            owner, _, number = path.removeprefix(RULES).partition("/")
            self._raw.setdefault(owner, {})
            if number:
                self._raw[owner][number] = value
        before = self.lists.keys()
        owners = ((owner, _owner(owner)) for owner in self._raw)
        self.lists = {
            address: parse_list(self._raw[owner], family(address))
            for owner, address in owners
            if address is not None
        }
        return dict.fromkeys(before, NOT_COMMITTED) | self.lists

    def refresh(self) -> tuple[bool, Mapping[Address, ClientPolicy]]:
        """Take events; return whether settings changed, and the lists committed."""
        changed = False
        committed: dict[Address, ClientPolicy] = {}
        # To read is to receive more events, which would wake nobody.
        while events := self.db.take_events():
            last = {path: place for place, path in enumerate(events)}
            for place, path in enumerate(events):
                again = last[path] > place
                if path.startswith(RULES):
                    owner, slash, number = path.removeprefix(RULES).partition("/")
                    address = _owner(owner)
                    if slash or not owner:
                        self._touch(owner, number)
                    elif address is not None and not again:
                        # Only the empty write to the address itself commits.
                        committed[address] = self._commit(owner, address)
                elif not again:
                    changed |= self._reread(path)
        if changed:
            self._understand()
            # dom0 waits to be told that it was seen, be it all the same.
            self._told.pop(STATUS, None)
        return changed, committed

    def acknowledge(self, addresses: Iterable[Address]) -> None:
        """Say that the lists of these addresses are enforced (or refused)."""
        for address in addresses:
            path = f"{HANDLED}{address}"
            if address in self.lists:
                count = self.db.read(path) or b""
                number = int(count) if count.isdigit() else 0
                self._write(path, b"%d" % (number + 1))
            else:
                self.db.remove(path)

    def report(
        self,
        status: bytes,
        errors: Mapping[Address, str],
        resolved: Resolved,
        said: Mapping[str, str] = NOTHING,
    ) -> None:
        """Write the status, each client's error, and what names are taken for.

        ``said`` is what the personality reports: path to words.
        """
        if resolved is not self._resolved:
            self._resolved, self._names = resolved, _by_path(resolved)
        wanted = {
            f"{ERROR}{address}": error.encode("ascii", "replace")[:MAX_DATA]
            for address, error in errors.items()
        } | self._names
        for path, words in said.items():
            wanted[path] = words.encode("ascii", "replace")[:MAX_DATA]
        wanted[STATUS] = status
        if wanted.items() == self._told.items():
            return
        for path in self._told.keys() - wanted.keys():
            self.db.remove(path)
            del self._told[path]
        for path, value in wanted.items():
            if self._told.get(path) != value:
                self._write(path, value)
                self._told[path] = value

    def _understand(self) -> None:
        known = self.settings.problems
        self.settings = settings(self._values)
        for problem in self.settings.problems:
            if problem not in known:
                log.warning("%s", problem)

    def _write(self, path: str, value: bytes) -> None:
        try:
            self.db.write(path, value)
        except (RefusedError, WireError) as error:
            log.warning("QubesDB does not take %s", error)

    def _touch(self, owner: str, number: str) -> None:
        """Remember which keys of a list changed: the event does not say to what."""
        if not owner:  # all lists were removed
            self._touched.update(dict.fromkeys(self._raw))
        elif not number:  # the whole list was removed
            self._touched[owner] = None
        elif (touched := self._touched.setdefault(owner, set())) is not None:
            touched.add(number)

    def _commit(self, owner: str, address: Address) -> ClientPolicy:
        """Read what changed of a list since it was committed last."""
        base = f"{RULES}{owner}/"
        touched = self._touched.pop(owner, set())
        known = self._raw.get(owner)
        if touched is None or known is None or len(touched) > len(known):
            found = self.db.multiread(base)
            known = {key.removeprefix(base): v for key, v in found.items()}
        else:
            for number in touched:
                value = self.db.read(base + number)
                if value is None:
                    known.pop(number, None)
                else:
                    known[number] = value
        if not known and self.db.read(f"{RULES}{owner}") is None:
            self._raw.pop(owner, None)
            self.lists.pop(address, None)
            return NOT_COMMITTED
        self._raw[owner] = known
        self.lists[address] = parse_list(known, family(address))
        return self.lists[address]

    def _reread(self, path: str) -> bool:
        before = dict(self._values) if path.endswith("/") else None
        if before is not None:
            for key in [key for key in self._values if key.startswith(path)]:
                del self._values[key]
            self._values |= self.db.multiread(path)
            return before != self._values
        value = self.db.read(path)
        if value == self._values.get(path):
            return False
        if value is None:
            del self._values[path]
        else:
            self._values[path] = value
        return True


def _owner(text: str) -> Address | None:
    with suppress(ValueError):
        return address_of(text)
    return None


def _by_path(resolved: Resolved) -> dict[str, bytes]:
    """Return what the names of each client are taken for, by path.

    What is too long for a path or for a value is several values below a digest
    of the name, each with the name first.
    """
    found = {}
    for (client, host), addresses in resolved.items():
        path, words = f"{DNS}{client}/{host}", " ".join(sorted(map(str, addresses)))
        if len(path) <= MAX_PATH and len(words) <= MAX_DATA:
            found[path] = words.encode()
            continue
        digest = blake2b(host.encode(), digest_size=6).hexdigest()
        for number, part in enumerate(wrap(words, MAX_DATA - len(host) - 1)):
            found[f"{DNS}{client}/@{digest}.{number}"] = f"{host} {part}".encode()
    return found
