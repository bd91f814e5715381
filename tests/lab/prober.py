# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbered, marked packets at a high rate, and what became of each.

`Flood` sends one way at a fixed rate and counts at the other end what came.
`Flow` keeps one connection (TCP, UDP or ping) alive, a message every 10 ms,
and counts the echoes.  Every end is a process of its own, so neither the test
nor its Python holds a packet back: it runs from ``with`` to its end.
"""

import errno
import json
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

from controller import namespaces
from tests.lab import ends
from tests.lab.ends import Kind

PATIENCE = 30.0  # seconds for an end to report

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the numbered packets; times are in seconds.

    ``refused`` are those that the sender's own kernel would not take.
    ``longest_gap`` is the longest time in which none arrived, from the first
    sent to the last.  ``broken`` is the errno name by which a flow ended.
    """

    sent: int
    refused: int
    received: int
    duplicates: int
    longest_gap: float
    seconds: float
    broken: str

    @property
    def lost(self) -> int:
        """How many of those sent never arrived."""
        return self.sent - self.received

    @property
    def rate(self) -> float:
        """Packets sent per second."""
        return self.sent / self.seconds


class End:
    """A process of `tests.lab.ends` in a namespace, from `start` to `stop`."""

    def __init__(self, net: Path, *words: str) -> None:
        self._net, self._words = net, words

    def start(self) -> None:
        """Return when the end is ready; RuntimeError if it cannot be."""
        argv = [sys.executable, "-I", ends.__file__, *self._words]
        pipe = subprocess.PIPE
        self._process = namespaces.spawn(argv, net=self._net, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self._process.communicate()
            raise RuntimeError(f"{' '.join(self._words)}: cannot start")

    def stop(self) -> dict[str, float]:
        """End the process and return its report."""
        report, _ = self._process.communicate(timeout=PATIENCE)
        return dict(json.loads(report))


class Flood:
    """UDP one way from ``client`` to ``target``, ``rate`` packets a second.

    ``listen`` is where they arrive, if that is not where they are sent.
    """

    result: Result

    def __init__(
        self,
        client: Path,
        target: Path,
        address: Address,
        port: int,
        *,
        rate: int = 5000,
        listen: Address | None = None,
    ) -> None:
        self._counter = End(target, "count", str(listen or address), str(port))
        self._sender = End(client, "flood", str(address), str(port), str(rate))

    def __enter__(self) -> Self:
        self._counter.start()
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        sent = self._sender.stop()
        self.result = result(sent, self._counter.stop())


class Flow:
    """One long-lived exchange of ``client`` with an echo server."""

    result: Result

    def __init__(
        self, client: Path, kind: Kind, address: Address, port: int = 7
    ) -> None:
        self._end = End(client, "flow", kind, str(address), str(port))

    def __enter__(self) -> Self:
        self._end.start()
        return self

    def __exit__(self, *_: object) -> None:
        report = self._end.stop()
        self.result = result(report, report)


def result(sender: dict[str, float], receiver: dict[str, float]) -> Result:
    """Put the reports of both ends together; their clock is the same."""
    begin, end = sender["begin"], sender["end"]
    gap = end - begin
    if receiver["received"]:
        outer = receiver["first"] - begin, end - receiver["last"]
        gap = max(receiver["gap"], *outer)
    return Result(
        sent=int(sender["sent"]),
        refused=int(sender["refused"]),
        received=int(receiver["received"]),
        duplicates=int(receiver["duplicates"]),
        longest_gap=gap,
        seconds=end - begin,
        broken=errno.errorcode.get(int(sender["broken"]), ""),
    )
