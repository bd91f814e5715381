# SPDX-License-Identifier: GPL-2.0-or-later
"""nftables through libnftables, in this process.

It imports little on purpose: the guard is loaded with it before anything else
is imported.  A context belongs to the network namespace in which it was made.
"""

import ctypes
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import nftables

from agent.elements import Elements
from agent.generation import Generation
from agent.ports import FirewallError
from rules.objects import Chain, Key, Map, Object, Set
from rules.transaction import Edit

EMPTY: MappingProxyType[str, Object] = MappingProxyType(
    {"chain": Chain(()), "set": Set("", frozenset()), "map": Map("", {})}
)
EXCERPT = 80
"""Characters shown on either side of what is wrong in a line."""

_PLACE = re.compile(r":(\d+):(\d+)-\d+: Error: (.*)")


class Nft:
    """The port `agent.ports.Firewall`."""

    def __init__(self) -> None:
        self._nft = nftables.Nftables()
        self._nft.set_terse_output(val=True)  # of sets and maps no elements
        self._elements = Elements()
        self._generation = Generation()
        self._last = self._generation.read()
        self._touched = False

    def load(self, script: str) -> None:
        """Apply nft text as one transaction, or raise `FirewallError`."""
        with self._noticing():
            self._load(script)

    def put(self, edits: Sequence[Edit]) -> None:
        """Change elements as one transaction, or raise `FirewallError`."""
        with self._noticing():
            self._elements.put(edits)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Notice a transaction of somebody else, be it between ours."""
        before = self._generation.read()
        self._touched |= before != self._last
        try:
            yield
        finally:
            self._last = self._generation.read()
            self._touched |= self._last > before + 1

    def touched(self) -> bool:
        """Whether somebody else changed a ruleset here since this was asked."""
        now = self._generation.read()
        touched, self._touched = self._touched or now != self._last, False
        self._last = now
        return touched

    def _load(self, script: str) -> None:
        code, _, error = self._nft.cmd(script)
        if code:
            raise FirewallError(self._explain(script) or _first(error))

    def names(self, table: str) -> dict[Key, Object]:
        """Return the regular chains, sets and maps of a table, as if empty.

        Neither rules nor elements are read: 5 ms for 1000 chains.
        """
        family, _, name = table.partition(" ")
        return {
            Key(table, found["name"]): empty
            for kind, empty in EMPTY.items()
            for found in self._list(f"list {kind}s {family}", kind)
            if found["table"] == name and "hook" not in found
        }

    def release(self) -> None:
        """Give memory back that large transactions took."""
        ctypes.CDLL(None).malloc_trim(0)

    def _list(self, command: str, kind: str) -> Iterator[dict[str, Any]]:
        self._nft.set_json_output(val=True)
        code, output, error = self._nft.cmd(command)
        self._nft.set_json_output(val=False)
        if code:
            raise FirewallError(f"{command}: {_first(error)}")
        entries = json.loads(output)["nftables"] if output else ()
        return (entry[kind] for entry in entries if kind in entry)

    def _explain(self, script: str) -> str:
        """Return what is wrong and where, "" if it is right at a second look.

        Of a text in memory libnftables shows the first line whichever is wrong;
        of a file it counts the lines.
        """
        with os.fdopen(os.memfd_create("nft"), "w") as file:
            file.write(script)
            file.flush()
            self._nft.set_dry_run(onoff=True)
            _, _, error = self._nft.cmd_from_file(f"/proc/self/fd/{file.fileno()}")
            self._nft.set_dry_run(onoff=False)
        found = _PLACE.search(error)
        if found is None:
            return ""
        line, column = int(found[1]), int(found[2]) - 1
        text = script.splitlines()[line - 1]
        around = text[max(0, column - EXCERPT) : column + EXCERPT]
        return f"line {line}: {found[3][:EXCERPT]}: {around}"


def _first(error: str) -> str:
    # Without a text: so many errors that the answer overran the socket.
    return error.partition("\n")[0][:EXCERPT] or "refused, without a reason"
