# SPDX-License-Identifier: GPL-2.0-or-later
"""What dom0 wrote becomes values; what cannot be read is left out and named."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

import pytest

from agent.keys import Settings, settings, status
from rules.facts import Client

MAC = "00:16:3e:5e:6c:00"
IP, IP6 = IPv4Address("10.137.0.5"), IPv6Address("fd09:24ef:4179::a89:5")
VIF = "/ravelin/vif/vif3.0"
GOOD_VIF = f"mac={MAC} ip={IP}"

READ = {
    "nothing at all": ({}, Settings()),
    "a client": ({VIF: GOOD_VIF}, Settings(clients=(Client("vif3.0", 0, MAC, IP),))),
    "a client of both versions": (
        {VIF: f"{GOOD_VIF} ip6={IP6}"},
        Settings(clients=(Client("vif3.0", 0, MAC, IP, IP6),)),
    ),
    "uplinks of any name": (
        {"/ravelin/uplink": "enp3s0.7 5g _x"},
        Settings(uplinks=("enp3s0.7", "5g", "_x")),
    ),
    "the newest vif": (
        {"/ravelin/vif/vif32752.0": GOOD_VIF},
        Settings(clients=(Client("vif32752.0", 0, MAC, IP),)),
    ),
    "two uplinks": (
        {"/ravelin/uplink": "wlp2s0 eth1"},
        Settings(uplinks=("wlp2s0", "eth1")),
    ),
    "an uplink twice": ({"/ravelin/uplink": "eth1 eth1"}, Settings(uplinks=("eth1",))),
    "no uplink": ({"/ravelin/uplink": ""}, Settings(uplinks=())),
    "an address of its own": (
        {"/qubes-ip": "10.137.0.9"},
        Settings(own=(ip_interface("10.137.0.9/32"),)),
    ),
    "a netmask": (
        {"/qubes-ip": "10.137.0.9", "/qubes-netmask": "255.255.255.0"},
        Settings(own=(ip_interface("10.137.0.9/24"),)),
    ),
    "both versions": (
        {"/qubes-ip": "10.137.0.9", "/qubes-ip6": str(IP6), "/qubes-netmask6": "64"},
        Settings(own=(ip_interface("10.137.0.9/32"), ip_interface(f"{IP6}/64"))),
    ),
    "gateways": (
        {"/qubes-gateway": "10.137.0.1", "/qubes-gateway6": "fe80::1"},
        Settings(gateways=(ip_address("10.137.0.1"), ip_address("fe80::1"))),
    ),
    "gateways of clients": (
        {"/qubes-netvm-gateway": "10.137.0.9"},
        Settings(vif_gateways=(ip_address("10.137.0.9"),)),
    ),
    "resolvers in order": (
        {"/qubes-secondary-dns": "10.139.1.2", "/qubes-primary-dns": "10.139.1.1"},
        Settings(resolvers=(ip_address("10.139.1.1"), ip_address("10.139.1.2"))),
    ),
    "clients that are not here yet": (
        {"/connected-ips": f"{IP} 10.138.0.7", "/connected-ips6": f"{IP6}"},
        Settings(connected=frozenset({IP, ip_address("10.138.0.7"), IP6})),
    ),
    "a MAC address": ({"/qubes-mac": MAC}, Settings(mac=MAC)),
    "space and a newline": (
        {"/qubes-gateway": " 10.137.0.1\n"},
        Settings(gateways=(ip_address("10.137.0.1"),)),
    ),
    "a key of somebody else": ({"/name": "sys-firewall"}, Settings()),
}
WRONG = {
    "a vif without an address": (VIF, f"mac={MAC}"),
    "a vif without a MAC": (VIF, f"ip={IP}"),
    "a MAC in capitals": (VIF, f"mac=00:16:3E:5E:6C:00 ip={IP}"),
    "a word too many": (VIF, f"{GOOD_VIF} ip7={IP}"),
    "IPv6 for IPv4": (VIF, f"mac={MAC} ip={IP6}"),
    "IPv4 for IPv6": (VIF, f"{GOOD_VIF} ip6={IP}"),
    "a client bound to an interface": (VIF, f"{GOOD_VIF} ip6=fe80::1%eth0"),
    "a name that is no vif": ("/ravelin/vif/eth0", GOOD_VIF),
    "serial 0": ("/ravelin/vif/vif0.0", GOOD_VIF),
    "a serial too large": ("/ravelin/vif/vif32753.0", GOOD_VIF),
    "a name with more in it": ('/ravelin/vif/vif1.0"', GOOD_VIF),
    "an uplink that is no name": ("/ravelin/uplink", 'eth0";'),
    "an address that is none": ("/qubes-ip", "10.137.0.256"),
    "a netmask that is none": ("/qubes-netmask", "255.0.255.0"),
    "a gateway bound to an interface": ("/qubes-gateway6", "fe80::1%eth0"),
    "a resolver that is none": ("/qubes-primary-dns", "dns.example"),
    "one of many that is none": ("/connected-ips", f"10.138.0.7 x {IP}"),
    "a MAC that is none": ("/qubes-mac", "00:16"),
    "what is not ASCII": ("/qubes-gateway", "10.137.0.\N{SUPERSCRIPT ONE}"),
}


def encoded(keys: dict[str, str]) -> dict[str, bytes]:
    return {path: value.encode() for path, value in keys.items()}


@pytest.mark.parametrize(("keys", "wanted"), READ.values(), ids=READ)
def test_keys_are_read(keys: dict[str, str], wanted: Settings) -> None:
    assert settings(encoded(keys)) == wanted


@pytest.mark.parametrize(("path", "value"), WRONG.values(), ids=WRONG)
def test_a_wrong_key_is_named_and_spoils_no_other(path: str, value: str) -> None:
    others = {
        "/ravelin/vif/vif9.0": f"mac={MAC} ip=10.138.0.9",
        "/qubes-ip": "10.0.0.1",
    }

    found = settings(encoded({**others, path: value}))

    assert len(found.problems) == 1
    assert path in found.problems[0]
    assert "expected" in found.problems[0]
    assert [client.vif for client in found.clients] == ["vif9.0"]
    if path != "/qubes-ip":
        assert found.own == (ip_interface("10.0.0.1/32"),)


def test_a_problem_is_short_whatever_was_written() -> None:
    found = settings(dict.fromkeys(("/qubes-ip", VIF), b"\xff\x00" * 2000))

    assert all(len(problem) < 600 for problem in found.problems)


def test_the_status_is_words() -> None:
    assert (
        status(7, "00ff00ff00ff00ff", "open", clients=3, waiting=2)
        == b"generation=7 hash=00ff00ff00ff00ff state=open clients=3 waiting=2"
    )
