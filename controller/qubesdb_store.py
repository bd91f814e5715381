# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys and values of one domain's QubesDB, as Qubes would hold them.

Which paths and data are valid, and what a prefix means, is that of Qubes OS
(qubes-core-qubesdb, ``daemon/db-cmds.c`` and ``daemon/db-core.c``).
"""

from bisect import bisect_left

from agent.qubesdb_wire import check_entry


class Store:
    """The keys of one domain, in order; a lookup costs what it returns."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._keys: list[str] = []

    def read(self, path: str) -> bytes | None:
        """Return a value, None if there is none."""
        return self._values.get(path)

    def write(self, path: str, data: bytes) -> None:
        """Store 0 to 3071 bytes without a NUL, or raise `WireError`."""
        check_entry(path, data)
        if path not in self._values:
            self._keys.insert(bisect_left(self._keys, path), path)
        self._values[path] = data

    def remove(self, path: str) -> bool:
        """Remove a key, or all below a path that ends with a slash; False if none."""
        start, stop = self._range(path)
        if not path.endswith("/"):
            stop = start + (path in self._values)
        for key in self._keys[start:stop]:
            del self._values[key]
        del self._keys[start:stop]
        return start < stop

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that start with these characters, sorted by byte."""
        start, stop = self._range(prefix)
        return self._keys[start:stop]

    def count(self, prefix: str) -> int:
        """Return how many keys start with these characters."""
        start, stop = self._range(prefix)
        return stop - start

    def _range(self, prefix: str) -> tuple[int, int]:
        # DEL sorts behind every character a path can have.
        start = bisect_left(self._keys, prefix)
        return start, bisect_left(self._keys, prefix + "\x7f", start)
