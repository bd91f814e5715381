# SPDX-License-Identifier: GPL-2.0-or-later
"""The resolvers follow the real systemd-resolved, NetworkManager and resolv.conf.

Nothing here polls: each change is seen because a descriptor became readable.
"""

import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import dbus.bus
import dbus.connection
import pytest
from dbus.lowlevel import HANDLER_RESULT_HANDLED, MethodReturnMessage
from dbus.mainloop.glib import DBusGMainLoop

from agent.personality import Dns
from netvm import resolved
from netvm.bus import Bus
from netvm.dns_sources import PROPERTIES, DnsSources
from tests.lab.dns_room import Room, dns_room, wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with dns_room(tmp_path) as room:
        room.resolv_conf.write_text("nameserver 198.51.100.1\n")
        yield room


@pytest.fixture
def bus(room: Room) -> Iterator[Bus]:
    bus = Bus(PROPERTIES, room.address)
    yield bus
    bus.close()


@pytest.fixture
def sources(room: Room, bus: Bus) -> Iterator[DnsSources]:
    sources = DnsSources(bus, room.resolv_conf, room.changes)
    yield sources
    sources.close()


def wait_for(sources: DnsSources, source: str, *servers: str) -> None:
    def reached() -> bool:
        found = sources.resolvers()
        shown = [str(server) for server in (*found.v4, *found.v6)]
        return (found.source, shown) == (source, list(servers))

    try:
        wait_until(reached, sources.watched)
    except AssertionError as error:
        error.add_note(f"there was {sources.resolvers()}")
        raise


class Resolve1:
    """Tells the real systemd-resolved which servers the uplink has."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bus = dbus.bus.BusConnection(room.address)
        self.link = int(room.run("cat", "/sys/class/net/wan/ifindex"))

    def set_servers(self, *servers: str) -> None:
        entries = []
        for server in servers:
            six = ":" in server
            number = socket.AF_INET6 if six else socket.AF_INET
            entries.append((int(number), dbus.ByteArray(ip_address(server).packed)))
        self._bus.call_blocking(
            resolved.SERVERS.service,
            resolved.SERVERS.path,
            resolved.SERVERS.interface,
            "SetLinkDNS",
            "ia(iay)",
            (self.link, entries),
        )


def test_without_a_bus_resolv_conf_is_followed(room: Room, sources: DnsSources) -> None:
    wait_for(sources, "resolv.conf", "198.51.100.1")

    room.resolv_conf.write_text("nameserver 198.51.100.2\nnameserver 127.0.0.53\n")

    wait_for(sources, "resolv.conf", "198.51.100.2")


def test_resolved_is_followed_from_its_start_to_its_end(
    room: Room, bus: Bus, sources: DnsSources
) -> None:
    room.bus()
    daemon = room.resolved()
    wait_until(lambda: bus.value(resolved.SERVERS) is not None, sources.watched)
    resolve1 = Resolve1(room)

    resolve1.set_servers("192.0.2.53", "2001:db8::53")
    wait_for(sources, "systemd-resolved", "192.0.2.53", "2001:db8::53")
    resolve1.set_servers("192.0.2.54")
    wait_for(sources, "systemd-resolved", "192.0.2.54")
    room.end(daemon)
    wait_for(sources, "resolv.conf", "198.51.100.1")


def test_servers_of_a_link_that_is_gone_are_gone(
    room: Room, bus: Bus, sources: DnsSources
) -> None:
    room.resolv_conf.write_text("")
    room.bus()
    room.resolved()
    wait_until(lambda: bus.value(resolved.SERVERS) is not None, sources.watched)
    Resolve1(room).set_servers("192.0.2.53")
    wait_for(sources, "systemd-resolved", "192.0.2.53")

    room.run("ip", "link", "delete", "wan")

    wait_for(sources, "none")


def test_a_bus_that_starts_again_is_joined_again(
    room: Room, bus: Bus, sources: DnsSources
) -> None:
    for number in (1, 2):
        daemons = [room.bus(), room.resolved()]
        wait_until(lambda: bus.value(resolved.SERVERS) is not None, sources.watched)
        Resolve1(room).set_servers(f"192.0.2.{number}")
        wait_for(sources, "systemd-resolved", f"192.0.2.{number}")
        for daemon in daemons:
            room.end(daemon)
        wait_for(sources, "resolv.conf", "198.51.100.1")


def test_a_service_that_hangs_keeps_nobody_waiting(
    room: Room, bus: Bus, sources: DnsSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netvm.bus.ANSWER", 0.3)
    monkeypatch.setattr("netvm.bus.AGAIN", 0.3)
    room.bus()
    daemon = room.resolved()
    wait_until(lambda: bus.value(resolved.SERVERS) is not None, sources.watched)
    resolve1 = Resolve1(room)
    resolve1.set_servers("192.0.2.53")
    wait_for(sources, "systemd-resolved", "192.0.2.53")

    daemon.send_signal(signal.SIGSTOP)
    bus.refresh()
    wait_for(sources, "resolv.conf", "198.51.100.1")
    daemon.send_signal(signal.SIGCONT)
    wait_for(sources, "systemd-resolved", "192.0.2.53")


def test_networkmanager_is_followed(room: Room, sources: DnsSources) -> None:
    ethernet = ["type", "ethernet", "ifname", "wan", "con-name", "home"]
    ipv4 = ["ipv4.method", "manual", "ipv4.addresses", "192.0.2.1/24"]
    ipv6 = ["ipv6.method", "manual", "ipv6.addresses", "2001:db8::1/64"]
    room.bus()
    daemon = room.network_manager()
    room.wait_for_name("org.freedesktop.NetworkManager")

    room.nmcli("connection", "add", *ethernet, *ipv4, *ipv6, "autoconnect", "no")
    room.nmcli("connection", "modify", "home", "ipv4.dns", "192.0.2.53 192.0.2.54")
    room.nmcli("connection", "modify", "home", "ipv6.dns", "2001:db8::53")
    room.nmcli("connection", "up", "home")
    wait_for(sources, "NetworkManager", "192.0.2.53", "192.0.2.54", "2001:db8::53")
    room.nmcli("connection", "modify", "home", "ipv4.dns", "192.0.2.99")
    room.nmcli("device", "reapply", "wan")
    wait_for(sources, "NetworkManager", "192.0.2.99", "2001:db8::53")
    room.nmcli("connection", "down", "home")
    wait_for(sources, "resolv.conf", "198.51.100.1")
    room.end(daemon)


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        pytest.param("i", 7, id="a number"),
        pytest.param("s", "text", id="text"),
        pytest.param("as", ["192.0.2.1"], id="a list of text"),
        pytest.param("v", dbus.ByteArray(b"\x00\xff"), id="bytes in a variant"),
        pytest.param("a{sv}", {"servers": 1}, id="a dictionary"),
        pytest.param("a(iiayqs)", [(0, 2, dbus.ByteArray(b"ab"), 0, "")], id="2 bytes"),
        pytest.param("", None, id="no value at all"),
    ],
)
def test_a_service_that_talks_nonsense_is_passed_over(
    room: Room, bus: Bus, sources: DnsSources, signature: str, value: object
) -> None:
    """The service is ours: its replies are dispatched by the handling of the bus."""
    room.bus()
    asked: list[str] = []

    def answer(connection: dbus.connection.Connection, message: object) -> int:
        assert isinstance(message, dbus.lowlevel.Message)
        if message.get_member() != "Get":
            return int(dbus.lowlevel.HANDLER_RESULT_NOT_YET_HANDLED)
        reply = MethodReturnMessage(message)
        if signature:
            reply.append(value, signature=signature)
        connection.send_message(reply)
        asked.append(signature)
        return int(HANDLER_RESULT_HANDLED)

    room.wait_for_name("org.freedesktop.DBus")
    service = dbus.bus.BusConnection(room.address, mainloop=DBusGMainLoop())
    service.add_message_filter(answer)
    service.request_name(resolved.SERVERS.service)

    def watched() -> Mapping[int, Callable[[], None]]:
        return {**sources.watched(), service.get_unix_fd(): bus.handle}

    wait_until(lambda: asked, watched)
    bus.refresh()
    wait_until(lambda: len(asked) > 1, watched)  # so the first answer was taken

    assert sources.resolvers().source == "resolv.conf"
    service.close()


def test_what_dom0_gives_goes_first_even_a_virtual_server(sources: DnsSources) -> None:
    upstream = (IPv4Address("10.139.1.1"), IPv4Address("10.139.1.2"))

    assert sources.dns(upstream) == Dns(
        {server: server for server in upstream}, upstream
    )
    assert sources.dns(()).own == (IPv4Address("198.51.100.1"),)
