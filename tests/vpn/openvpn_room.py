# SPDX-License-Identifier: GPL-2.0-or-later
"""A gateway with the real driver, launcher, daemon and rules, without dom0.

``gateway`` has ``eth0`` to ``outside``, where servers run, and a client behind
``vif1.0``.  `Room.until` is the loop of an agent, with the parts of one.
"""

import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from agent.berth import Berth
from agent.capacity import capacity
from agent.conntrack import CtNetlink
from agent.cut import Cutter
from agent.enforce import Enforcer
from agent.links import LinkTable
from agent.machine import Course
from agent.network import Network
from agent.nft import Nft
from agent.programs import Programs
from controller import namespaces
from rules.constant import constant
from rules.facts import Client, Facts, Gateway, Uplink
from rules.model import Action, Policy, Rule
from tests.lab.pinging import answered
from vpn import openvpn_start as start
from vpn.lookup import Lookup
from vpn.openvpn_attempts import Attempts
from vpn.openvpn_choice import Choice
from vpn.openvpn_daemon import Daemon
from vpn.openvpn_door import Door
from vpn.openvpn_driver import OpenVpn
from vpn.openvpn_login import read_login
from vpn.openvpn_profile import parse
from vpn.states import VPN, observe

ROOT = Path(__file__).parents[2]
DAEMON = 65534
HERE, SERVER, OTHER = "203.0.113.2", "203.0.113.1", "203.0.113.3"
CLIENT, GATEWAY = IPv4Address("10.137.0.5"), "10.137.0.9"
MAC, VIF_MAC = "00:16:3e:5e:6c:00", "fe:ff:ff:ff:ff:ff"
BEYOND = "198.51.100.9"  # reached by the servers alone
DEADLINE = 40.0
# The device node that udev(7) opens to everybody, whatever this machine has.
LAUNCH = """
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt
mknod -m 666 /mnt/tun c 10 200
mount --bind /mnt/tun /dev/net/tun
exec setpriv --reuid={uid} --regid={uid} --clear-groups --inh-caps=-all \
  --bounding-set=-all --no-new-privs /usr/bin/python3 -I -c '
import sys
sys.path.insert(0, "{root}")
from pathlib import Path
from agent.launcher import become
become("openvpn", Path("{folder}/berth"), Path("{folder}/daemon"))'
"""
LINKS = f"""
ip -n gateway link add eth0 index 20 type veth peer name wan netns outside
ip -n gateway link add vif1.0 index 22 type veth peer name eth0 netns client
ip -n gateway link set vif1.0 address {VIF_MAC}
ip -n outside addr add {SERVER}/24 dev wan
ip -n outside addr add {OTHER}/24 dev wan
ip -n outside addr add {BEYOND}/32 dev lo
ip -n outside link set lo up
ip -n outside link set wan up
ip -n gateway link set lo up
ip -n client link set eth0 address {MAC}
ip -n client addr add {CLIENT}/32 dev eth0
ip -n client link set eth0 up
ip -n client route add default via {GATEWAY} dev eth0 onlink
"""
NETS = ("gateway", "outside", "client")
FACTS = Facts(
    clients=(Client("vif1.0", 22, MAC, CLIENT),),
    uplinks=(
        Uplink(
            "eth0",
            20,
            frozenset({ip_address(HERE)}),
            frozenset({ip_network("203.0.113.0/24")}),
            (ip_address(SERVER),),
        ),
    ),
    connected=frozenset({CLIENT}),
    configured=True,
    here=frozenset({ip_address(GATEWAY)}),
    kind=Gateway.TUNNEL,
)
ALL = Policy((Rule(Action.ACCEPT),))


@dataclass
class Room:
    """The namespaces and the one agent in them; ``trail`` are its states."""

    folder: Path
    base: Facts = FACTS
    trail: list[str] = field(default_factory=list)
    turns: int = 0
    _launcher: subprocess.Popen[bytes] | None = None

    def net(self, name: str) -> Path:
        return self.folder / name

    def ip(self, line: str) -> None:
        """Run ``ip -n NET …``; a namespace stands for its file elsewhere too."""
        words = line.split()
        rest = [str(self.net(word)) if word in NETS else word for word in words[3:]]
        with namespaces.inside(self.net(words[2])):
            subprocess.run(["ip", *rest], check=True)

    def begin(self, profile: str, login: bytes | None = None) -> None:
        """Start the agent of the gateway, with a profile."""
        parsed = parse(profile.encode())
        if login is not None:
            parsed = replace(parsed, login=read_login(login))
        berths, meeting = self.folder / "berth", self.folder / "daemon"
        for directory in (berths, meeting, meeting / start.NAME):
            directory.mkdir()
            directory.chmod(0o777)
        with namespaces.inside(self.net("gateway")):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            firewall = Nft()
            firewall.load(constant(Gateway.TUNNEL, capacity()))
            self.berth = Berth(start.NAME, berths, meeting)
            self.door = Door(berths / start.SOCKET, self.berth.uid)
            self.daemon = Daemon(self.berth, self.door, parsed)
            choice = Choice(Attempts(start.rotation(parsed)), Lookup())
            self.driver = OpenVpn(parsed, self.daemon, choice)
            self.course = Course(
                VPN, lambda facts: observe(facts, self.driver.progress)
            )
            self.links = LinkTable()
            self.enforcer = Enforcer(firewall, Gateway.TUNNEL)
            self.network = Network(self.links, firewall)
            self.conntrack = CtNetlink()
            self.cutter = Cutter(self.conntrack)
        self.programs = Programs()
        self.programs.keep(frozenset({CLIENT}))
        self.programs.commit(CLIENT, ALL)
        self.apply()

    def apply(self) -> None:
        """Decide and enforce, as the loop of an agent does."""
        with namespaces.inside(self.net("gateway")):
            facts = self.driver.facts(self.base)
            self.course.advance(facts)
            if self.trail[-1:] != [self.course.state]:
                self.trail.append(self.course.state)
            allowed = self.course.allowed
            self.network.guard(facts)
            self.enforcer.enforce(allowed, facts, self.programs)
            self.cutter.cut(allowed, facts, self.programs, ())
            self.network.apply(allowed, facts, tuple(facts.here))
            self.driver.follow(self.course.state, facts)
        self.facts = facts

    def until(self, what: Callable[[], bool], within: float = DEADLINE) -> None:
        """Go on until it is so."""
        end = time.monotonic() + within
        while not what():
            assert time.monotonic() < end, (self.trail, self.driver.trouble())
            self.turn()

    def turn(self) -> None:
        """Wait until there is something to do, and do it, as the loop of an agent."""
        self._keep_a_launcher()
        now = time.monotonic()
        patience = min(self.driver.next_deadline() - now, 0.5)
        sources = [self.driver, self.links]
        ready, _, _ = select.select(sources, [], [], max(0.0, patience))
        due = self.driver.next_deadline() <= time.monotonic()
        self.turns += bool(ready) or due
        with namespaces.inside(self.net("gateway")):
            news = (self.driver in ready or due) and self.driver.handle()
            news |= self.links in ready and self.links.handle()
        if news:
            self.apply()

    def go_on(self, seconds: float) -> None:
        """Go on for a while, whatever comes."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def until_state(self, state: str, within: float = DEADLINE) -> None:
        self.until(lambda: self.course.state == state, within)

    def reaches(self, to: str) -> bool:
        """Whether an echo comes back to the client, of whichever ping."""
        with namespaces.inside(self.net("client")):
            return answered(to)

    def is_cut_off(self, to: str) -> bool:
        """Whether none does, for a second."""
        with namespaces.inside(self.net("client")):
            return not answered(to, within=0)

    def show(self, command: str, net: str = "gateway") -> frozenset[str]:
        """The lines that a command prints."""
        with namespaces.inside(self.net(net)):
            return frozenset(
                subprocess.check_output(command.split(), text=True).splitlines()
            )

    def daemons(self) -> list[int]:
        """The pids of the OpenVPN clients that run."""
        found = namespaces.processes(self.net("gateway"))
        return [pid for pid in found if command(pid).startswith("/usr/sbin/openvpn")]

    def end(self) -> None:
        for name in NETS:
            namespaces.kill_all(self.net(name))
        if self._launcher is not None:
            self._launcher.wait()
        if hasattr(self, "links"):
            for each in (self.links, self.conntrack, self.berth, self.door):
                each.close()
        for name in NETS:
            namespaces.remove(self.net(name))

    def _keep_a_launcher(self) -> None:
        """As the service manager does."""
        if self._launcher is not None and self._launcher.poll() is None:
            return
        script = LAUNCH.format(uid=DAEMON, root=ROOT, folder=self.folder)
        argv = ["unshare", "-m", "sh", "-c", script]
        log = (self.folder / "log").open("ab")
        with log:
            self._launcher = namespaces.spawn(
                argv, net=self.net("gateway"), stdout=log.fileno(), stderr=log.fileno()
            )


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@contextmanager
def room(folder: Path) -> Iterator[Room]:
    """Make the namespaces and their links; nothing runs in them yet."""
    made = Room(folder)
    for name in NETS:
        namespaces.create(made.net(name))
    try:
        for line in LINKS.strip().split("\n"):
            made.ip(line)
        yield made
    finally:
        made.end()
