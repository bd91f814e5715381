# SPDX-License-Identifier: GPL-2.0-or-later
"""``uplink = "host"``: a NetVM that shares the connection of this machine.

A cable leads from the NetVM's eth0 to ``rvN-DOMAIN`` here.  Its addresses are
10.139.254.2N (ours) and 10.139.254.2N+1, outside of every other plan, each
known to the other end for good, so there is nothing to ask by ARP.  The NetVM
reaches what lies behind the interfaces of our default routes, and not this
machine itself.

Forwarding is per interface in IPv4: it is switched on for those with a default
route, and `controller.platforms.host_rules` drops all that this newly allows.
In IPv6 it is one switch, which also ends router advertisements being heard
(Documentation/networking/ip-sysctl.rst, accept_ra), so the NetVM has IPv6 only
where the host forwards it by its own will.

Below the runtime directory ``uplink/N-DOMAIN`` is there for each NetVM, and
``forwarding/INTERFACE`` for each interface that did not forward before we came.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import if_nametoindex

from agent.ports import FirewallError
from controller import cables
from controller.addresses import MAC
from controller.platforms import host_network
from controller.platforms.client_side import ETH0, configure, sysctls
from controller.platforms.host_rules import REMOVE, Exits, Shared, script
from controller.ports import VIF_MAC, Pair, PlatformError, WayOut
from rules.model import Family, family

BASE4 = IPv4Address("10.139.254.0")
BASE6 = IPv6Address("fd09:24ef:4179::a8b:fe00")
CABLES = 128
NAME_LENGTH = 15  # linux/if.h: IFNAMSIZ - 1

NO_RESOLVER = "this machine has no resolver that a NetVM could ask, only local ones"

OF_OUR_END = {
    "ipv4/conf/{}/forwarding": "1",
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/arp_ignore": "8",  # tell nobody which addresses we have
    "ipv6/conf/{}/accept_ra": "0",
    "ipv6/conf/{}/addr_gen_mode": "1",
}


class HostUplink:
    """Shares the connection of the namespace we are in, which is the host's.

    ``load`` applies nft text there as one transaction (`agent.ports.Firewall`).
    """

    def __init__(self, runtime: Path, load: Callable[[str], None]) -> None:
        self._cables = runtime / "uplink"
        self._forwarding = runtime / "forwarding"
        self._load = load

    def attach(self, domain: str, net: Path) -> WayOut:
        """Give a NetVM its uplink; done again, it follows our default routes."""
        for directory in (self._cables, self._forwarding):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self._number(domain)
        name, pairs = _name(number, domain), _pairs(number)
        cables.lay(name, mac=VIF_MAC, far=ETH0, far_mac=MAC, net=net)
        self.refresh()
        ours = "0" if _host_forwards(Family.IPV6) else "1"
        settings = OF_OUR_END | {"ipv6/conf/{}/disable_ipv6": ours}
        sysctls("", {key.format(name): value for key, value in settings.items()})
        cables.up(name)
        ends = [Pair(pair.gateway, pair.own) for pair in pairs]
        cables.connect(name, ends, MAC, by_default=False)
        configure(net, pairs)
        return _way_out(pairs)

    def refresh(self) -> None:
        """Follow the default routes of the host as they are now."""
        ways = {version: host_network.default_interfaces(version) for version in Family}
        wanted = self._wanted(ways[Family.IPV4])
        self._restore(self._enabled() - wanted)
        for name in wanted:
            (self._forwarding / name).touch()
        indexes = {
            version: frozenset(if_nametoindex(name) for name in names)
            for version, names in ways.items()
        }
        shared = [_shared(number, name) for name, number in self._numbers().items()]
        self._apply(script(shared, Exits(indexes, wanted)))
        for name in wanted:  # only now, for from now on it would be used
            _switch(name).write_text("1")

    def detach(self, domain: str) -> None:
        """Take a NetVM's uplink away; after the last, all is as it was before."""
        number = self._numbers().get(domain)
        if number is None:
            return
        cables.remove(_name(number, domain))
        others = self._numbers().keys() - {domain}
        if others:
            self._forget(domain, number)
            self.refresh()
        else:
            self._restore(self._enabled())
            self._apply(REMOVE)
            self._forget(domain, number)

    def sweep(self) -> None:
        """Take every uplink away that anybody gave below this runtime directory."""
        for domain in self._numbers():
            self.detach(domain)

    def _apply(self, rules: str) -> None:
        try:
            self._load(rules)
        except FirewallError as error:
            raise PlatformError(f"this machine's nftables: {error}") from error

    def _numbers(self) -> dict[str, int]:
        records = (name.partition("-") for name in _in(self._cables))
        return {domain: int(number) for number, _, domain in records}

    def _forget(self, domain: str, number: int) -> None:
        (self._cables / f"{number}-{domain}").unlink()

    def _enabled(self) -> frozenset[str]:
        return _in(self._forwarding)

    def _number(self, domain: str) -> int:
        known = self._numbers()
        if domain not in known:
            free = (n for n in range(CABLES) if n not in known.values())
            known[domain] = next(free, CABLES)
            if known[domain] == CABLES:
                raise PlatformError(f"host: {CABLES} NetVMs share the connection")
            (self._cables / f"{known[domain]}-{domain}").touch()
        return known[domain]

    def _wanted(self, ways: frozenset[str]) -> frozenset[str]:
        """Return where forwarding is on, or has to be, only because of us."""
        if _host_forwards(Family.IPV4):
            return frozenset()
        still_off = {name for name in ways if _switch(name).read_text() == "0\n"}
        return frozenset(still_off | (self._enabled() & ways))

    def _restore(self, names: frozenset[str]) -> None:
        for name in names:
            # If the host forwards by now, that is its own will.
            if _switch(name).exists() and not _host_forwards(Family.IPV4):
                _switch(name).write_text("0")
            (self._forwarding / name).unlink()


def _name(number: int, domain: str) -> str:
    return f"rv{number}-{domain}"[:NAME_LENGTH]


def _pairs(number: int) -> tuple[Pair, ...]:
    """Return the addresses of a NetVM's end and of ours, as the NetVM sees them."""
    v4 = Pair(BASE4 + 2 * number + 1, BASE4 + 2 * number)
    if not _host_forwards(Family.IPV6):
        return (v4,)
    return (v4, Pair(BASE6 + 2 * number + 1, BASE6 + 2 * number))


def _shared(number: int, domain: str) -> Shared:
    return Shared(_name(number, domain), tuple(p.own for p in _pairs(number)))


def _way_out(pairs: tuple[Pair, ...]) -> WayOut:
    families = {family(pair.own) for pair in pairs}
    found = [str(x) for x in host_network.resolvers() if family(x) in families]
    return WayOut(ETH0, tuple(found), () if found else (NO_RESOLVER,))


def _switch(interface: str) -> Path:
    return Path(f"/proc/sys/net/ipv4/conf/{interface}/forwarding")


def _host_forwards(version: Family) -> bool:
    name = "ipv4/ip_forward" if version is Family.IPV4 else "ipv6/conf/all/forwarding"
    path = Path("/proc/sys/net", name)
    return path.exists() and path.read_text() == "1\n"


def _in(directory: Path) -> frozenset[str]:
    if not directory.is_dir():
        return frozenset()
    return frozenset(path.name for path in directory.iterdir())
