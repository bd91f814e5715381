# SPDX-License-Identifier: GPL-2.0-or-later
"""The prover as a process: what it takes never delays the daemon.

It is asked and answers on the socket that is its standard input, each message a
descriptor of a file in memory: a task, pickled by the daemon, and the answer in
JSON.  It ends with the daemon, and whatever it does not understand ends it, which
the daemon takes for no proof.
"""

import json
import os
import pickle
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from controller import namespaces
from controller.admin import Json
from controller.claimed import claims, doubts
from controller.findings import finding, hops, summary, unclaimed
from controller.platforms.netns import Netns
from controller.replays import replay
from controller.scene import world
from controller.syscalls import die_with_parent
from controller.tasks import Task, Verify, Walk
from proof import snapshot
from proof.claims import NothingOld, Status
from proof.netlink import SnapshotError
from proof.snapshot import Snapshot
from proof.verify import Prover
from proof.walk import Walker

NICE = 5  # what enforces comes first
MEMORY = "ravelin"  # name of the files in memory, for people


def main(words: list[str]) -> int:
    """Serve the daemon until it hangs up."""
    parser = ArgumentParser(prog="ravelin prove")
    parser.add_argument("--runtime", type=Path, required=True)
    asked = parser.parse_args(words)
    die_with_parent()
    os.nice(NICE)
    desk = Desk(Netns(asked.runtime))
    with (
        socket.socket(fileno=os.dup(sys.stdin.fileno())) as daemon,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        # A domain that ends takes along every process whose first thread is inside.
        while (task := received(daemon)) is not None:
            answer(daemon, elsewhere.submit(desk.carry_out, task).result())
    return 0


def received(daemon: socket.socket) -> Task | None:
    """Return the next task, None when the daemon has hung up."""
    data, descriptors, _, _ = socket.recv_fds(daemon, 1, 1)
    if not data:
        return None
    with os.fdopen(descriptors[0], "rb") as file:
        task: Task = pickle.load(file)  # noqa: S301 (the daemon's, who started us)
    return task


def answer(daemon: socket.socket, data: Json) -> None:
    """Send an answer."""
    descriptor = os.memfd_create(MEMORY, os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "r+b") as file:
        file.write(json.dumps(data).encode())
        file.seek(0)
        socket.send_fds(daemon, [b"!"], [file.fileno()])


@dataclass(slots=True)
class Desk:
    """Takes the snapshots and has them proved."""

    platform: Netns
    prover: Prover = field(default_factory=Prover)

    def carry_out(self, task: Task) -> Json:
        """Return the answer to a task."""
        match task:
            case Verify():
                return self._verified(task)
            case Walk():
                return self._walked(task)

    def _inside(self, name: str) -> AbstractContextManager[None]:
        return namespaces.inside(self.platform.net(name))

    def _nets(
        self, names: Iterable[str]
    ) -> tuple[Mapping[str, Snapshot], Mapping[str, str]]:
        """Return the snapshots of domains, and why there is none of others."""
        found: dict[str, Snapshot] = {}
        missing: dict[str, str] = {}
        for name in names:
            try:
                with self._inside(name):
                    found[name] = snapshot.here()
            except (OSError, SnapshotError) as error:
                missing[name] = str(error)
        return found, missing

    def _verified(self, task: Verify) -> Json:
        nets, missing = self._nets(d.name for d in task.scene.domains)
        known = world(task.scene, nets)
        # Flows come and go without any event that would have them looked at again.
        asked = [
            each
            for each in claims(task.scene, known, missing)
            if task.afresh or not isinstance(each.claim, NothingOld)
        ]
        words = {each.claim: each.words for each in asked if each.words}
        rows = [unclaimed(*doubt) for doubt in doubts(task.scene, missing)]
        if task.afresh:
            self.prover = Prover()
        for result in self.prover.prove(known, dict.fromkeys(a.claim for a in asked)):
            shown = result.status is Status.REFUTED and task.replay
            seen = replay(result, known, self._inside) if shown else None
            rows.append(finding(result, words.get(result.claim), seen))
        return {
            "results": rows,
            "summary": summary(rows),
            "generations": {
                name: place.net.bytecode.generation
                for name, place in known.places.items()
            },
        }

    def _walked(self, task: Walk) -> Json:
        path = [task.source, *(d.name for d in task.scene.domains.path(task.source))]
        nets, missing = self._nets(path)
        walker = Walker(world(task.scene, nets))
        return {
            "ways": [
                {
                    "destination": str(packet.destination),
                    "hops": hops(walker.walk(task.source, packet)),
                }
                for packet in task.packets
            ],
            "missing": dict(missing),
        }
