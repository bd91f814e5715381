# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemons of personalities: where they and their agents meet, and who they are.

Below the runtime directory, and seen in the domain below ``/run/ravelin``:

* ``berth/DOMAIN/``: the sockets that launchers and daemons come to, the agent's, and
  the file of hosts(5) that a daemon has in place of a resolver;
* ``daemon/DOMAIN/NAME/``: what a daemon makes for its agent, the daemon's, and
  of the agent's group;
* ``forgotten/DOMAIN/NAME/``: the state of a daemon that is to forget it.

The state of one that is not is kept in ``domains/DOMAIN/NAME/`` of the state
directory.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.berth import BERTHS, CARRIERS, hosts_of
from agent.berth import DAEMONS as MEETINGS
from controller.confine import Confinement, launch, rights_of_a_daemon
from controller.platforms.processes import Agent, open_log
from controller.ports import AgentStart, DaemonStart
from controller.view import View

ROOT = Path(__file__).resolve().parents[2]  # has __main__.py
# Inside; for what is somebody's own home, as /root of Debian, nobody else may enter.
CODE = Path("/run/ravelin/code")
STATE = Path("/run/ravelin/state")  # inside
SECRETS = Path("/run/ravelin/secrets")  # inside
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "STATE_DIRECTORY": str(STATE),
}


@dataclass(frozen=True, slots=True)
class Daemons:
    """The daemons below one runtime directory and one state directory."""

    runtime: Path
    state: Path

    def meet(self, start: AgentStart) -> Mapping[Path, Path]:
        """Make what an agent needs for its daemons; return it as it is let in."""
        if not start.daemons:
            return {}
        berth = self._made(self._berth(start.domain), start.uid, start.uid, 0o750)
        places = {BERTHS: berth}
        for name, uid in start.daemons.items():
            place = self.runtime / "daemon" / start.domain / name
            # The set-gid bit: what the daemon makes there is of the agent's group.
            places[MEETINGS / name] = self._made(place, uid, start.uid, 0o2770)
        return places

    def spawn(self, start: DaemonStart, net: Path, log: Path, argv: list[str]) -> Agent:
        """Start the launcher of a daemon: no rights, a user and a view of its own."""
        place = self.runtime / "daemon" / start.domain / start.name
        let_in = {
            CODE: ROOT,
            BERTHS: self._berth(start.domain),
            MEETINGS / start.name: place,
            STATE: self._state(start),
        }
        hidden = (self.runtime, self.state)
        view = View(
            start.domain,
            resolvers=(),
            hidden=hidden,
            let_in=let_in,
            tun=True,
            hosts=hosts_of(start.name),
        )
        rights = rights_of_a_daemon(start.uid, start.agent)
        with open_log(log) as output:
            confinement = Confinement(net, view, rights)
            pid = launch(confinement, argv, env=ENVIRONMENT, output=output)
        return Agent(pid, os.pidfd_open(pid), None, log)

    def end(self, domain: str) -> None:
        """Remove what a domain had here, but for the state that is kept."""
        for kind in ("berth", "daemon", "forgotten"):
            shutil.rmtree(self.runtime / kind / domain, ignore_errors=True)

    def _berth(self, domain: str) -> Path:
        return self.runtime / "berth" / domain

    def _state(self, start: DaemonStart) -> Path:
        """Return its state directory; users have other numbers each time."""
        kept = self.state / "domains" if start.keeps else self.runtime / "forgotten"
        place = kept / start.domain / start.name
        if not start.keeps:
            shutil.rmtree(place, ignore_errors=True)
        self._made(place, start.uid, start.uid, 0o700)
        # By descriptors: what the last one left running may put a link in the way.
        for _, folders, files, here in os.fwalk(place):
            for name in (*folders, *files):
                with suppress(FileNotFoundError):
                    uid = start.uid
                    os.chown(name, uid, uid, dir_fd=here, follow_symlinks=False)
        return place

    def _made(self, place: Path, uid: int, gid: int, mode: int) -> Path:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(place, uid, gid)
        place.chmod(mode)
        return place


def environment(start: AgentStart) -> Mapping[str, str]:
    """Return what an agent is told of its personality and of its daemons."""
    found: dict[str, str] = {}
    if start.daemons:
        users = " ".join(f"{name}={uid}" for name, uid in start.daemons.items())
        found |= {"RAVELIN_PERSONALITY": start.word, CARRIERS: users}
    if start.secrets:
        found["CREDENTIALS_DIRECTORY"] = str(SECRETS)
    return found
