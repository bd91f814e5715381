# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts are what dom0 wrote, as far as the kernel has it."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from agent.from_dom0 import FromDom0
from agent.keys import Settings
from agent.machine import plain
from agent.personality import Dns, Personality
from agent.surroundings import facts
from firewallvm.states import FIREWALLVM
from rules.facts import Client, Facts, Uplink
from rules.model import Address
from tests.agent.fakes import FakeLinks

MAC = "00:16:3e:5e:6c:00"
A = Client("vif1.0", 0, MAC, ip_address("10.137.0.5"))  # type: ignore[arg-type]
B = Client("vif2.0", 0, MAC, ip_address("10.138.0.7"))  # type: ignore[arg-type]
PERSONALITY = Personality(plain(FIREWALLVM), FromDom0(), frozenset({"10.137.0.0/16"}))
NO_DNS = Dns({})


@pytest.fixture
def links() -> FakeLinks:
    made = FakeLinks()
    made.appear("eth0", 2)
    return made


def see(settings: Settings, links: FakeLinks, dns: Dns = NO_DNS) -> Facts:
    return facts(settings, links, dns, PERSONALITY)


def test_a_client_counts_from_the_moment_its_vif_exists(links: FakeLinks) -> None:
    settings = Settings(clients=(A, B))
    assert see(settings, links).clients == ()

    links.appear("vif2.0", 12)
    (client,) = see(settings, links).clients
    assert (client.vif, client.index) == ("vif2.0", 12)

    links.appear("vif2.0", 19)
    assert [client.index for client in see(settings, links).clients] == [19]
    links.vanish("vif2.0")
    assert see(settings, links).clients == ()


def test_a_vif_that_dom0_did_not_write_is_no_client(links: FakeLinks) -> None:
    links.appear("vif9.0", 19)

    assert see(Settings(), links).clients == ()


def test_an_uplink_counts_from_the_moment_its_device_exists(links: FakeLinks) -> None:
    settings = Settings(uplinks=("eth1", "eth0"))
    assert [uplink.name for uplink in see(settings, links).uplinks] == ["eth0"]

    links.appear("eth1", 3)
    assert [u.index for u in see(settings, links).uplinks] == [3, 2]


def test_what_dom0_configures_is_as_dom0_wrote_it(links: FakeLinks) -> None:
    """Whatever the device has now."""
    links.own[2] = frozenset({(ip_address("169.254.0.1"), 16)})
    links.ways[2] = (ip_address("169.254.0.2"),)
    own = (ip_interface("10.137.0.9/24"), ip_interface("fd09:24ef:4179::a89:9/128"))
    gateways = (ip_address("10.137.0.1"),)

    found = see(Settings(own=own, gateways=gateways), links)

    assert found.configured
    assert found.uplinks == (
        Uplink(
            name="eth0",
            index=2,
            own=frozenset(interface.ip for interface in own),
            networks=frozenset({ip_network("10.137.0.0/24")}),
            gateways=gateways,
        ),
    )


def test_a_host_address_has_no_network_on_its_link(links: FakeLinks) -> None:
    found = see(Settings(own=(ip_interface("10.137.0.9/32"),)), links)

    assert found.uplinks[0].networks == frozenset()


def learned(links: FakeLinks, *own: str) -> Uplink:
    links.own[2] = frozenset(
        (i.ip, i.network.prefixlen) for i in map(ip_interface, own)
    )
    found = see(Settings(), links)
    assert not found.configured
    return found.uplinks[0]


def test_what_somebody_else_configures_is_as_the_kernel_has_it(
    links: FakeLinks,
) -> None:
    links.ways[2] = (ip_address("192.168.1.1"),)

    assert learned(links, "192.168.1.7/24") == Uplink(
        name="eth0",
        index=2,
        own=frozenset({ip_address("192.168.1.7")}),
        networks=frozenset({ip_network("192.168.1.0/24")}),
        gateways=(ip_address("192.168.1.1"),),
    )


OWN: dict[str, tuple[tuple[str, ...], set[Address]]] = {
    "nothing yet": ((), set()),
    "IPv4 alone": (("192.168.1.7/24",), {ip_address("192.168.1.7")}),
    "IPv6, which asks whether its address is taken": (
        ("2001:db8::7/64",),
        {ip_address("2001:db8::7"), ip_address("::")},
    ),
}


@pytest.mark.parametrize(("own", "wanted"), OWN.values(), ids=OWN)
def test_an_uplink_sends_from_its_own_addresses(
    links: FakeLinks, own: tuple[str, ...], wanted: set[Address]
) -> None:
    assert learned(links, *own).own == wanted


def test_the_rest_comes_from_where_it_is_known(links: FakeLinks) -> None:
    real = ip_address("203.0.113.53")
    dns = Dns({ip_address("10.139.1.1"): real}, (real,))
    settings = Settings(connected=frozenset({A.ip}))

    found = see(settings, links, dns)

    assert found.dns == dns.virtual
    assert found.resolvers == {real}
    assert found.connected == {A.ip}
    assert found.internal == {"10.137.0.0/16"}


def test_the_same_world_gives_the_same_facts(links: FakeLinks) -> None:
    links.appear("vif1.0", 11)
    settings = Settings(clients=(A, B), own=(ip_interface("10.137.0.9/32"),))

    assert see(settings, links) == see(settings, links)
