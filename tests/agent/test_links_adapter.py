# SPDX-License-Identifier: GPL-2.0-or-later
"""Links are known as they are, and vifs, uplinks and routing are put in place."""

import errno
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest

from agent.links import LinkTable
from agent.netlink import ROUTE, Netlink
from agent.ports import Link, NetlinkError
from agent.rtnetlink import (
    End,
    add_veth,
    delete_link,
    delete_neighbour,
    replace_proxy,
    set_link,
)
from agent.ways import PEER_MAC
from controller import namespaces
from rules.facts import Client, Facts, Tunnel, Uplink
from rules.flows import BY_RULES
from rules.model import Address
from rules.routing import CLIENTS, UPSTREAM, Routing, routing
from tests.lab.pinging import answered

Shell = Callable[[str], str]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("net")]

DEADLINE = 20.0  # seconds; only a failing test waits that long
MAC = "00:16:3e:5e:6c:00"
IP, IP6 = IPv4Address("10.137.0.5"), IPv6Address("fd09::5")
GATEWAY, GATEWAY6 = IPv4Address("10.138.0.1"), IPv6Address("fd09::1")
NO_ROUTING = Routing(frozenset(), {})


@pytest.fixture
def links() -> Iterator[LinkTable]:
    with closing(LinkTable()) as made:
        yield made


@pytest.fixture
def vif(other_net: Path, links: LinkTable) -> Client:
    """Give a vif that is down; its client, in the other namespace, is set up."""
    ip("link add vif3.0 address fe:ff:ff:ff:ff:ff type veth peer name eth0")
    ip(f"link set eth0 address {MAC} netns {other_net}")
    with namespaces.inside(other_net):
        ip("link set lo up")
        ip(f"address add {IP}/32 dev eth0")
        ip(f"address add {IP6}/128 dev eth0 nodad")
        ip("link set eth0 up")
        for gateway in (GATEWAY, GATEWAY6):
            ip(f"route add {gateway} dev eth0")
            ip(f"neighbour add {gateway} dev eth0 lladdr {PEER_MAC} nud permanent")
    until(links, lambda: links.by_name("vif3.0") is not None)
    return Client("vif3.0", present(links, "vif3.0").index, MAC, IP, IP6)


def ip(command: str) -> str:
    argv = ["ip", *command.split()]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout


def lines(command: str) -> list[str]:
    return [" ".join(line.split()) for line in ip(command).splitlines()]


def until(links: LinkTable, condition: Callable[[], bool]) -> None:
    """Follow the kernel until ``condition`` holds."""
    deadline = time.monotonic() + DEADLINE
    links.handle()
    while not condition():
        left = deadline - time.monotonic()
        assert select.select([links], [], [], max(left, 0))[0], "no event came"
        links.handle()


def present(links: LinkTable, name: str) -> Link:
    link = links.by_name(name)
    assert link is not None
    return link


def reaches(net: Path, address: Address) -> bool:
    with namespaces.inside(net):
        return answered(str(address))


# --- what is known


def test_what_was_there_before_is_known() -> None:
    ip("link add before address 02:00:00:00:00:01 group 7 type veth")

    with closing(LinkTable()) as links:
        link = present(links, "before")

    index = socket.if_nametoindex("before")
    assert link == Link(index, "before", "02:00:00:00:00:01", group=7, up=False)


def test_every_change_is_followed(links: LinkTable) -> None:
    ip("link add near type veth peer far")
    until(links, lambda: links.by_name("near") is not None)
    ip("link set near up")
    until(links, lambda: present(links, "near").up)
    ip("link set near group 2 address 02:00:00:00:00:02")
    until(links, lambda: present(links, "near").group == 2)
    assert present(links, "near").mac == "02:00:00:00:00:02"
    ip("link set near down")
    ip("link set near name other")
    until(links, lambda: links.by_name("other") is not None)
    assert links.by_name("near") is None
    assert not present(links, "other").up
    ip("link delete other")
    until(links, lambda: links.by_name("other") is None)


def test_a_link_that_leaves_a_bridge_is_still_there(links: LinkTable) -> None:
    ip("link add lan type bridge")
    ip("link add near master lan type veth")
    ip("link set near nomaster")
    ip("link add last type veth")
    until(links, lambda: links.by_name("last") is not None)

    assert links.by_name("near") is not None


def test_after_lost_events_everything_is_read_again(links: LinkTable) -> None:
    links._events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ip("link add gone type veth")
    links.handle()
    ip("link delete gone")
    for number in range(50):
        ip(f"link add a{number} type veth")

    assert links.handle()

    assert links.by_name("gone") is None
    assert links.by_name("a49") is not None


@pytest.mark.parametrize(
    "change",
    [
        "address add 192.0.2.5/24 dev up0",
        "address add 2001:db8::5/64 dev up0 nodad",
        "route add default dev up0",
        "-6 route add default via fe80::1 dev up0",
        "rule add priority 5 lookup main",
        "-6 rule add priority 5 lookup main",
    ],
)
def test_what_others_change_wakes_us_up(links: LinkTable, change: str) -> None:
    ip("link add up0 type veth")
    ip("link set up0 up")
    links.handle()

    ip(change)

    assert select.select([links], [], [], DEADLINE)[0]
    assert links.handle()


def test_addresses_and_next_hops_are_those_of_one_interface(links: LinkTable) -> None:
    for name, n in (("up0", 5), ("up1", 6)):
        ip(f"link add {name} type veth peer {name}-peer")
        ip(f"link set {name} addrgenmode none up")
        ip(f"address add 192.0.{n}.5/24 dev {name}")
        ip(f"address add 2001:db8:{n}::5/64 dev {name} nodad")
        ip(f"route add default via 192.0.{n}.2 dev {name} metric 20{n}")
        ip(f"-6 route add default via 2001:db8:{n}::1 dev {name} metric 30{n}")
    ip("route add default via 192.0.5.1 dev up0 metric 100")
    ip("route add 198.51.100.0/24 via 192.0.5.9 dev up0")
    index = socket.if_nametoindex("up0")

    assert links.addresses(index) == {
        (IPv4Address("192.0.5.5"), 24),
        (IPv6Address("2001:db8:5::5"), 64),
    }
    assert links.gateways(index) == (
        IPv4Address("192.0.5.1"),
        IPv4Address("192.0.5.2"),
        IPv6Address("2001:db8:5::1"),
    )


# --- what is put in place


def test_an_attached_client_reaches_its_gateways(
    links: LinkTable, vif: Client, other_net: Path
) -> None:
    links.route(routing(frozenset(), Facts(clients=(vif,))))
    with namespaces.inside(other_net):
        assert not answered(str(GATEWAY), within=0)

    links.attach(vif, (GATEWAY, GATEWAY6))

    until(links, lambda: present(links, vif.vif).up)
    assert present(links, vif.vif).group == 2
    assert reaches(other_net, GATEWAY)
    assert reaches(other_net, GATEWAY6)
    assert lines("neighbour show nud permanent dev vif3.0") == [
        f"{IP} lladdr {MAC} PERMANENT",
        f"{IP6} lladdr {MAC} PERMANENT",
    ]


def test_the_routes_of_a_vif_come_with_it_whatever_comes_first(
    links: LinkTable, vif: Client
) -> None:
    wanted = routing(frozenset(), Facts(clients=(vif,)))
    links.route(wanted)
    assert in_table(CLIENTS) == []

    links.attach(vif, (GATEWAY,))
    links.route(wanted)

    assert in_table(CLIENTS) == [
        f"{IP} dev vif3.0 proto static scope link metric 32750",
        f"{IP6} dev vif3.0 proto static metric 32750 pref medium",
    ]


def test_a_link_that_went_down_and_up_between_two_looks_has_fallen(
    links: LinkTable, vif: Client
) -> None:
    links.attach(vif, (GATEWAY,))
    links.handle()
    before = present(links, "vif3.0").falls

    ip("link set vif3.0 down")
    ip("link set vif3.0 up")
    links.handle()

    assert present(links, "vif3.0").falls == before + 1


def test_attaching_again_changes_nothing(links: LinkTable, vif: Client) -> None:
    def configured() -> tuple[list[str], str, str]:
        # Number, name and address; whether the link has a carrier by now is not ours.
        lines = ip("-o address show").splitlines()
        addresses = [" ".join(line.split()[:4]) for line in lines]
        return addresses, ip("neighbour show nud permanent"), ip("rule show")

    links.attach(vif, (GATEWAY, GATEWAY6))
    before = configured()

    links.attach(vif, (GATEWAY, GATEWAY6))

    assert configured() == before


def test_a_client_without_ipv6_gets_none(links: LinkTable, vif: Client) -> None:
    links.attach(replace(vif, ip6=None), (GATEWAY, GATEWAY6))

    assert ip("-6 address show dev vif3.0") == ""
    assert ip("-4 address show dev vif3.0") != ""


def test_a_vif_that_is_gone_is_an_error_in_words(links: LinkTable) -> None:
    with pytest.raises(NetlinkError, match="link 999 is gone") as error:
        links.attach(Client("vif9.0", 999, MAC, IP), ())

    assert error.value.errno == errno.ENODEV


def test_routing_becomes_exactly_what_is_wanted(links: LinkTable, vif: Client) -> None:
    links.attach(vif, (GATEWAY,))
    ip("link add eth0 type veth")
    ip("link set eth0 up")
    until(links, lambda: links.by_name("eth0") is not None)
    index = present(links, "eth0").index
    uplink = Uplink("eth0", index, gateways=(IPv4Address("10.138.9.9"),))
    links.connect(uplink, pinned=False)
    ip(f"route add 192.0.2.0/24 dev eth0 table {CLIENTS}")
    ip(f"-6 route add 2001:db8::/64 dev vif3.0 table {UPSTREAM}")
    ip(f"route add unreachable 192.0.2.7 table {UPSTREAM}")
    ip(f"-6 route add unreachable 2001:db8::7 table {UPSTREAM}")
    ip("rule add priority 50 from 192.0.2.1 fwmark 7 lookup main")

    links.route(routing(frozenset({BY_RULES}), Facts((vif,), (uplink,))))

    assert lines("-4 rule show") == [
        "0: from all lookup local",
        "90: from all lookup 10137",
        "100: from all iif lo lookup main",
        "101: from all iif lo unreachable",
        "110: from all iif eth0 unreachable",
        "120: from all lookup 10139",
        "121: from all unreachable",
        "32766: from all lookup main",
        "32767: from all lookup default",
    ]
    assert lines("-6 rule show") == lines("-4 rule show")[:-1]
    assert in_table(UPSTREAM) == [
        "default via 10.138.9.9 dev eth0 proto static metric 1 onlink"
    ]
    assert len(in_table(CLIENTS)) == 2

    links.route(routing(frozenset(), Facts()))

    assert in_table(UPSTREAM) + in_table(CLIENTS) == []


def test_routing_is_repaired_whatever_happened_to_it(
    links: LinkTable, vif: Client
) -> None:
    wanted = routing(frozenset(), Facts(clients=(vif,)))
    links.attach(vif, (GATEWAY,))
    links.route(wanted)
    good = in_table(CLIENTS), lines("-4 rule show"), lines("-6 rule show")
    ip("link set vif3.0 down")
    ip("link set vif3.0 up")
    ip("-4 rule delete priority 121")
    ip("-6 rule delete priority 120")
    assert in_table(CLIENTS) == []
    until(links, lambda: present(links, "vif3.0").up)

    links.route(wanted)

    assert (in_table(CLIENTS), lines("-4 rule show"), lines("-6 rule show")) == good


def test_routes_come_back_that_went_with_the_last_address_of_a_link(
    links: LinkTable, vif: Client
) -> None:
    """As when a DHCP client ends a lease; the kernel says nothing of its routes."""
    wanted = routing(frozenset(), Facts(clients=(vif,)))
    links.attach(vif, (GATEWAY,))
    links.route(wanted)
    links.route(wanted)  # now it is known that they are there
    good = in_table(CLIENTS)
    ip(f"address delete {GATEWAY}/32 dev vif3.0")
    assert in_table(CLIENTS) == [line for line in good if ":" in line]
    ip(f"address add {GATEWAY}/32 dev vif3.0")

    links.route(wanted)

    assert in_table(CLIENTS) == good


def test_an_agent_that_starts_again_takes_over_the_routing(vif: Client) -> None:
    other = replace(vif, ip=IPv4Address("10.137.0.6"))
    with closing(LinkTable()) as before:
        before.attach(vif, (GATEWAY,))
        before.route(routing(frozenset(), Facts(clients=(vif,))))

    with closing(LinkTable()) as after:
        after.route(routing(frozenset(), Facts(clients=(other,))))

    assert [line.split()[0] for line in in_table(CLIENTS)] == [str(other.ip), str(IP6)]
    with closing(LinkTable()) as last:
        last.route(NO_ROUTING)
    assert "10137" not in ip("rule show")


@pytest.mark.parametrize("pinned", [True, False])
def test_an_uplink_is_configured_by_its_facts_alone(
    links: LinkTable, other_net: Path, *, pinned: bool
) -> None:
    ip(f"link add eth0 type veth peer vif1.0 address {PEER_MAC} netns {other_net}")
    ip("address add 192.0.2.99/24 dev eth0")
    with namespaces.inside(other_net):
        ip(f"address add {GATEWAY}/32 dev vif1.0")
        ip(f"address add {GATEWAY6}/128 dev vif1.0 nodad")
        ip("link set vif1.0 up")
        ip(f"route add {IP} dev vif1.0")
        ip(f"route add {IP6} dev vif1.0")
    until(links, lambda: links.by_name("eth0") is not None)
    index = present(links, "eth0").index
    networks = frozenset({ip_network("10.137.0.0/24")})
    facts = Uplink("eth0", index, frozenset({IP, IP6}), networks, (GATEWAY, GATEWAY6))

    links.connect(facts, pinned=pinned)

    assert links.addresses(index) == {(IP, 32), (IP6, 128)}
    assert links.gateways(index) == (GATEWAY, GATEWAY6)
    assert present(links, "eth0").group == 1
    assert ("PERMANENT" in ip("neighbour show dev eth0 nud permanent")) is pinned
    assert "10.137.0.0/24 dev eth0" in ip("route show")
    here = Path("/proc/thread-self/ns/net")
    assert reaches(here, GATEWAY)
    assert reaches(here, GATEWAY6)


def test_a_tunnel_that_gets_another_address_keeps_its_routes(links: LinkTable) -> None:
    """With a link's last address its routes go, and no event tells of that."""
    ip("link add tun9 type veth")
    until(links, lambda: links.by_name("tun9") is not None)
    everywhere = frozenset({ip_network("0.0.0.0/0")})
    index = present(links, "tun9").index
    first = Tunnel(
        "tun9", index, frozenset({IPv4Address("10.8.0.2")}), everywhere, 1400
    )
    links.tunnel(first, ())
    ip(f"route add 198.51.100.0/24 dev tun9 table {UPSTREAM}")

    links.tunnel(replace(first, own=frozenset({IPv4Address("10.8.0.3")})), ())

    assert links.addresses(index) == {(IPv4Address("10.8.0.3"), 32)}
    kept = [line.split()[0] for line in lines(f"route show table {UPSTREAM}")]
    assert kept == ["198.51.100.0/24"]


def test_nothing_is_reached_by_a_tunnel_that_rests(links: LinkTable) -> None:
    """Neither its own address nor its resolver is in anybody's way then."""
    ip("link add tun9 type veth")
    until(links, lambda: links.by_name("tun9") is not None)
    index = present(links, "tun9").index
    own, resolver = IPv4Address("203.0.113.3"), IPv4Address("203.0.113.53")
    everywhere = frozenset({ip_network("0.0.0.0/0")})
    tunnel = Tunnel("tun9", index, frozenset({own}), everywhere, 1400)
    links.tunnel(tunnel, (resolver,))
    assert "dev tun9" in ip(f"route get {resolver}")
    assert "local" in ip(f"route get {own}")

    links.rest(tunnel)
    assert not lines("route show table main")
    assert not [x for x in lines("route show table local") if "203.0.113" in x]

    links.tunnel(tunnel, (resolver,))
    assert "local" in ip(f"route get {own}")
    ip("link delete tun9")
    until(links, lambda: links.by_name("tun9") is None)
    links.rest(tunnel)


def test_an_uplink_of_somebody_else_keeps_its_addresses(links: LinkTable) -> None:
    ip("link add eth0 type veth")
    ip("address add 192.0.2.99/24 dev eth0")
    until(links, lambda: links.by_name("eth0") is not None)
    index = present(links, "eth0").index

    links.adopt(Uplink("eth0", index))

    assert links.addresses(index) == {(IPv4Address("192.0.2.99"), 24)}
    assert present(links, "eth0").group == 1


def test_no_root_is_needed(vif: Client, unprivileged: Shell, other_net: Path) -> None:
    unprivileged(f"""
from ipaddress import *
from agent.links import LinkTable
from rules.facts import Client, Facts
from rules.routing import routing
vif = {vif!r}
links = LinkTable()
links.attach(vif, ({GATEWAY!r}, {GATEWAY6!r}))
links.route(routing(frozenset(), Facts(clients=(vif,))))
""")

    assert reaches(other_net, GATEWAY)
    assert len(in_table(CLIENTS)) == 2


# --- single requests, as the controller makes them


def test_a_pair_is_born_in_two_namespaces(other_net: Path, net: Path) -> None:
    with net.open() as here, other_net.open() as there, Netlink(ROUTE) as kernel:
        near = End("vif1.0", here.fileno(), PEER_MAC, group=7)
        kernel.do(add_veth(near, End("eth0", there.fileno(), MAC)))

    shown = ip("link show vif1.0")
    assert PEER_MAC in shown
    assert "group 7" in shown
    with namespaces.inside(other_net):
        assert MAC in ip("link show eth0")


def test_a_link_is_changed_moved_and_deleted(other_net: Path) -> None:
    ip("link add near type veth peer far")
    index = socket.if_nametoindex("near")
    with other_net.open() as there, Netlink(ROUTE) as kernel:
        kernel.do(set_link(index, name="other", mac=MAC, mtu=1400, group=3, up=True))
        shown = ip("link show other")
        assert all(word in shown for word in (MAC, "mtu 1400", "group 3", "UP"))
        kernel.do(set_link(index, namespace=there.fileno()))
        assert "other@" not in ip("link show")
        last = socket.if_nametoindex("far")
        kernel.do(delete_link(last), delete_link(last))
    assert "far@" not in ip("link show")


def test_proxied_neighbours_come_and_go() -> None:
    ip("link add near type veth")
    index = socket.if_nametoindex("near")
    with Netlink(ROUTE) as kernel:
        kernel.do(replace_proxy(index, IP6), replace_proxy(index, IP6))
        assert str(IP6) in ip("-6 neighbour show proxy")
        kernel.do(delete_neighbour(index, IP6, proxy=True))
        assert ip("-6 neighbour show proxy") == ""


def test_a_refusal_says_what_was_asked_and_the_rest_is_done() -> None:
    ip("link add near type veth")
    index = socket.if_nametoindex("near")
    with Netlink(ROUTE) as kernel, pytest.raises(NetlinkError) as error:
        kernel.do(set_link(999, up=True), set_link(index, group=4))

    assert str(error.value).endswith("set link 999 up: No such device")
    assert "group 4" in ip("link show near")


def in_table(number: int) -> list[str]:
    found = []
    for version in ("-4", "-6"):
        argv = ["ip", version, "route", "show", "table", str(number)]
        # It fails for a table that nobody has put a route into yet.
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        found += [" ".join(line.split()) for line in done.stdout.splitlines()]
    return [line.removesuffix(" linkdown") for line in found]
