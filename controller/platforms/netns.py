# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains as network namespaces of one Linux, which is all that they need.

Everything is found again from files below the runtime directory:

* ``ns/DOMAIN``: the namespace, see `controller.namespaces`;
* ``log/DOMAIN.log``, ``log/DOMAIN.log.1``: what its agent wrote, 1 MiB each;
* ``notify/DOMAIN``: the socket on which its agent says that it is well;
* ``berth/``, ``daemon/`` and ``forgotten/``: see `controller.platforms.daemons`;
* ``resolv/DOMAIN/resolv.conf``: its own, for whoever configures its uplink.

An agent finds itself in a machine as on Qubes: its QubesDB at the usual path,
resolv.conf, and a uid that is nobody else's.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from agent.qubesdb import SOCKET
from controller import cables, namespaces, person
from controller.confine import (
    Confinement,
    launch,
    rights_of_a_person,
    rights_of_an_agent,
    wait,
)
from controller.platforms import client_side, users
from controller.platforms.client_side import ETH0
from controller.platforms.daemons import CODE, ROOT, SECRETS, Daemons, environment
from controller.platforms.processes import Agent, open_log
from controller.ports import VIF_MAC, AgentStart, Command, DaemonStart, Link
from controller.supervise import WATCHDOG
from controller.view import Secrets, View, session

RUNTIME = Path("/run/ravelin")
PYTHON = "/usr/bin/python3"

NOTIFY = Path("/run/ravelin/notify")  # inside
RESOLV = Path("/run/ravelin/resolv")  # inside
RESOLV_CONF = RESOLV / "resolv.conf"

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "NOTIFY_SOCKET": str(NOTIFY),
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "WATCHDOG_USEC": str(int(WATCHDOG * 1_000_000)),
}


class Netns:
    """The platform below one runtime directory; two of them ignore each other."""

    def __init__(self, runtime: Path = RUNTIME, state: Path | None = None) -> None:
        self._runtime = runtime
        self._daemons = Daemons(runtime, runtime / "state" if state is None else state)
        self.before_stop: Callable[[str], None] = lambda _: None
        """Told of a domain that is about to end, to let go of its namespace."""

    def net(self, name: str) -> Path:
        """Return the file of a domain's namespace."""
        return self._runtime / "ns" / name

    def names(self) -> tuple[str, ...]:
        """Return every domain that is there, however it came there."""
        directory = self._runtime / "ns"
        found = directory.iterdir() if directory.is_dir() else ()
        return tuple(sorted(path.name for path in found))

    def exists(self, name: str) -> bool:
        """Whether the domain is there."""
        return _holds(self.net(name))

    def start(self, name: str) -> None:
        """Make the domain, without any network."""
        for directory in ("ns", "log", "notify"):
            (self._runtime / directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        net = self.net(name)
        if not _holds(net):
            namespaces.remove(net)  # what a crash left of an earlier attempt
            namespaces.create(net)
        client_side.prepare(net)

    def stop(self, name: str) -> None:
        """End the domain with all that runs in it and all links to it."""
        net = self.net(name)
        self.before_stop(name)
        if _holds(net):
            namespaces.kill_all(net)
        namespaces.remove(net)
        self._notify(name).unlink(missing_ok=True)
        shutil.rmtree(self.resolv(name), ignore_errors=True)
        self._daemons.end(name)

    def resolv(self, name: str) -> Path:
        """Return the directory of a domain's resolv.conf."""
        return self._runtime / "resolv" / name

    def sweep(self) -> None:
        """End every domain, and nothing but domains."""
        for name in self.names():
            self.stop(name)

    def attach(self, link: Link) -> None:
        """Lay the cable, in place of any the client has; its vif is left down."""
        client = self.net(link.client)
        with namespaces.inside(self.net(link.provider)):
            cables.lay(link.vif, mac=VIF_MAC, far=ETH0, far_mac=link.mac, net=client)
        if link.pairs:
            client_side.configure(client, link.pairs)

    def detach(self, client: str) -> None:
        """Take the client's cable away."""
        if _holds(self.net(client)):
            with namespaces.inside(self.net(client)):
                cables.remove(ETH0)

    def counters(self, name: str) -> Mapping[str, tuple[int, int]]:
        """Return the bytes that each interface of a domain received and sent."""
        if not _holds(self.net(name)):
            return {}
        with namespaces.inside(self.net(name)):
            text = Path("/proc/thread-self/net/dev").read_text()
        # proc_pid_net(5): after the colon, bytes received are first, sent ninth.
        lines = (line.partition(":") for line in text.splitlines()[2:])
        words = ((name.strip(), values.split()) for name, _, values in lines)
        return {name: (int(values[0]), int(values[8])) for name, values in words}

    def unused(self, numbers: Iterable[int]) -> int:
        """Return the first of these that nobody is, neither as user nor as group."""
        return users.unused(numbers)

    def spawn_agent(self, start: AgentStart) -> Agent:
        """Start the agent of a domain that provides network."""
        path, log = self._notify(start.domain), self.log(start.domain)
        path.unlink(missing_ok=True)
        resolv = self.resolv(start.domain)
        resolv.mkdir(mode=0o755, parents=True, exist_ok=True)
        lines = "".join(f"nameserver {each}\n" for each in start.resolvers)
        # Exclusive: a DHCP client may own the directory, and link it elsewhere.
        with suppress(FileExistsError), (resolv / "resolv.conf").open("x") as file:
            file.write(lines)
        inside = {Path(SOCKET).resolve(): start.qubesdb, NOTIFY: path, RESOLV: resolv}
        secrets = {SECRETS: Secrets(start.uid, start.secrets)} if start.secrets else {}
        view = View(
            start.domain,
            hidden=(self._runtime,),
            let_in={CODE: ROOT, **inside, **self._daemons.meet(start)},
            secrets=secrets,
            tun=bool(start.daemons),
            resolv_conf=RESOLV_CONF,
        )
        rights = rights_of_an_agent(start.uid)
        confinement = Confinement(self.net(start.domain), view, rights)
        argv = (PYTHON, "-I", str(CODE), start.personality)
        with ExitStack() as on_failure:
            notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            on_failure.enter_context(notify)
            notify.bind(str(path))
            os.chown(path, start.uid, start.uid)
            with open_log(log) as output:
                env = {**ENVIRONMENT, **environment(start)}
                pid = launch(confinement, argv, env=env, output=output)
            on_failure.pop_all()
        return Agent(pid, os.pidfd_open(pid), notify, log)

    def spawn_daemon(self, start: DaemonStart) -> Agent:
        """Start the launcher of a daemon beside the agent of its domain."""
        argv = [PYTHON, "-I", str(CODE), "launcher", start.name]
        log = self.log(f"{start.domain}.{start.name}")
        return self._daemons.spawn(start, self.net(start.domain), log, argv)

    def run(self, name: str, command: Command) -> int:
        """Run a program in a domain to its end; return its exit code."""
        who = person.someone(command.user, os.environ)
        directory = person.session_directory(who)
        view = View(
            name,
            hidden=(self._runtime,),
            let_in=session(directory),
            owned={directory: who.pw_uid},
        )
        confinement = Confinement(
            self.net(name),
            view,
            rights_of_a_person(who.pw_uid, who.pw_gid),
            own_processes=command.disposable,
        )
        env = person.environment(who, os.environ)
        return wait(launch(confinement, command.argv, env=env))

    def _notify(self, name: str) -> Path:
        return self._runtime / "notify" / name

    def log(self, name: str) -> Path:
        """Return the file that has what a program of a domain wrote."""
        return self._runtime / "log" / f"{name}.log"


def _holds(net: Path) -> bool:
    """Whether a namespace is mounted at the file, as it is not after a crash."""
    return net.exists() and net.stat().st_dev != net.parent.stat().st_dev
