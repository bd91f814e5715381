# SPDX-License-Identifier: GPL-2.0-or-later
"""What dom0 wrote into this domain's QubesDB, read into values.

Key names are those of Qubes (``qubes/vm/mix/net.py``) and, under ``/ravelin/``,
our own; ``docs/reference/qubesdb.md`` lists them.  dom0 is trusted, but a
mistake there must not stop the agent: what cannot be read is left out and named.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)

from rules.facts import Client
from rules.model import Address
from rules.routing import NEWEST

VIFS = "/ravelin/vif/"
UPLINK = "/ravelin/uplink"
RULES = "/qubes-firewall/"
HANDLED = "/qubes-firewall-handled/"
STATUS = "/ravelin/status"
ERROR = "/ravelin/error/"
PERSONALITY = "/ravelin/personality/"
REPORT = "/ravelin/report/"
TROUBLE = "/ravelin/trouble"
DNS = "/dns/"
CONNECTED = ("/connected-ips", "/connected-ips6")
OF_QUBES = (
    "/qubes-ip",
    "/qubes-netmask",
    "/qubes-gateway",
    "/qubes-ip6",
    "/qubes-netmask6",
    "/qubes-gateway6",
    "/qubes-mac",
    "/qubes-primary-dns",
    "/qubes-secondary-dns",
    "/qubes-netvm-gateway",
    "/qubes-netvm-gateway6",
)
SINGLE = (*OF_QUBES, *CONNECTED, UPLINK)

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
VIF = re.compile(r"vif(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})")
DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The keys outside of the rules, parsed.  ``problems`` are for people.

    ``known`` are the addresses of all clients, ``connected`` and here.
    ``words`` are for the personality, by path below ``/ravelin/personality/``.
    """

    clients: tuple[Client, ...] = ()
    uplinks: tuple[str, ...] = ("eth0",)
    own: tuple[IPv4Interface | IPv6Interface, ...] = ()
    gateways: tuple[Address, ...] = ()
    mac: str | None = None
    resolvers: tuple[Address, ...] = ()
    vif_gateways: tuple[Address, ...] = ()
    connected: frozenset[Address] = frozenset()
    known: frozenset[Address] = field(default=frozenset(), compare=False)
    words: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def settings(untrusted: Mapping[str, bytes]) -> Settings:
    """Parse the keys of a QubesDB; ``untrusted`` maps paths to values."""
    problems: list[str] = []
    vifs = {
        key: _client(key, untrusted[key])
        for key in sorted(untrusted)
        if key.startswith(VIFS)
    }
    values = {key: _text(value) for key, value in untrusted.items() if key not in vifs}

    def addresses(*keys: str) -> tuple[Address, ...]:
        found = (_address(key, values.get(key, ""), problems) for key in keys)
        return tuple(address for address in found if address is not None)

    expected = "mac=xx:xx:xx:xx:xx:xx ip=A.B.C.D [ip6=…] of a vifN.M"
    problems.extend(
        f"{key}: {_text(untrusted[key])[:80]!r}: expected {expected}"
        for key, client in vifs.items()
        if client is None
    )
    names = values.get(UPLINK, "eth0").split()
    uplinks = tuple(dict.fromkeys(name for name in names if DEVICE.fullmatch(name)))
    if len(uplinks) != len(set(names)):
        problems.append(f"{UPLINK}: {values[UPLINK]!r}: expected interface names")
    mac = values.get("/qubes-mac", "")
    if mac and not MAC.fullmatch(mac):
        problems.append(f"/qubes-mac: {mac[:60]!r}: expected xx:xx:xx:xx:xx:xx")
    clients = tuple(client for client in vifs.values() if client is not None)
    connected = _connected(values, problems)
    return Settings(
        clients=clients,
        uplinks=uplinks,
        own=_interfaces(values, problems),
        gateways=addresses("/qubes-gateway", "/qubes-gateway6"),
        mac=mac if MAC.fullmatch(mac) else None,
        resolvers=addresses("/qubes-primary-dns", "/qubes-secondary-dns"),
        vif_gateways=addresses("/qubes-netvm-gateway", "/qubes-netvm-gateway6"),
        connected=connected,
        known=connected.union(a for client in clients for a in client.addresses),
        words={
            key.removeprefix(PERSONALITY): text
            for key, text in values.items()
            if key.startswith(PERSONALITY)
        },
        problems=tuple(problems),
    )


def status(
    generation: int, digest: str, state: str, *, clients: int, waiting: int
) -> bytes:
    """Return the value of ``/ravelin/status``.

    ``clients`` are the vifs in use, ``waiting`` the questions for names in rules
    that nobody has answered yet.
    """
    words = f"generation={generation} hash={digest} state={state}"
    return f"{words} clients={clients} waiting={waiting}".encode()


def said(trouble: str, report: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a personality says of itself, by path."""
    words = {f"{REPORT}{key}": value for key, value in report.items()}
    return words | ({TROUBLE: trouble} if trouble else {})


@lru_cache(maxsize=4096)
def address_of(text: str) -> Address:
    """Return the address; `ValueError` also for one that names an interface."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text!r} is bound to an interface")
    return address


def _text(untrusted_value: bytes) -> str:
    return untrusted_value.decode("ascii", errors="replace").strip()


def _address(key: str, text: str, problems: list[str]) -> Address | None:
    if not text:
        return None
    try:
        return address_of(text)
    except ValueError:
        problems.append(f"{key}: {text[:60]!r}: expected an address")
        return None


def _interfaces(
    values: Mapping[str, str], problems: list[str]
) -> tuple[IPv4Interface | IPv6Interface, ...]:
    found = []
    for key, mask, whole in (
        ("/qubes-ip", "/qubes-netmask", "255.255.255.255"),
        ("/qubes-ip6", "/qubes-netmask6", "128"),
    ):
        address = _address(key, values.get(key, ""), problems)
        if address is None:
            continue
        try:
            found.append(ip_interface(f"{address}/{values.get(mask, whole)}"))
        except ValueError:
            problems.append(f"{mask}: {values[mask][:60]!r}: expected a netmask")
            found.append(ip_interface(address))
    return tuple(found)


def _connected(values: Mapping[str, str], problems: list[str]) -> frozenset[Address]:
    found = (
        _address(key, word, problems)
        for key in CONNECTED
        for word in values.get(key, "").split()
    )
    return frozenset(address for address in found if address is not None)


@lru_cache(maxsize=4096)
def _client(key: str, untrusted: bytes) -> Client | None:
    named = VIF.fullmatch(vif := key.removeprefix(VIFS))
    words = dict(word.split("=", 1) for word in _text(untrusted).split() if "=" in word)
    if (
        named
        and 1 <= int(named[1]) <= NEWEST
        and MAC.fullmatch(words.get("mac", ""))
        and words.keys() <= {"mac", "ip", "ip6"}
    ):
        with suppress(ValueError):
            ip, ip6 = (
                address_of(words[key]) if key in words else None
                for key in ("ip", "ip6")
            )
            if isinstance(ip, IPv4Address) and not isinstance(ip6, IPv4Address):
                return Client(vif, 0, words["mac"], ip, ip6)
    return None
