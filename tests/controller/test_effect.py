# SPDX-License-Identifier: GPL-2.0-or-later
"""What a change of policy comes to is said in packets, and all of it."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from controller.domains import Domains
from controller.effect import effect
from controller.policy import read

HOME = (Path(__file__).parents[2] / "examples" / "home.toml").read_text()
DNS = '  "accept specialtarget=dns",\n'
INTRANET = '  "accept dsthost=intranet.example.com proto=tcp dstports=443",\n'
TEN = '  "drop dst4=10.0.0.0/8",\n'
UNTRUSTED = 'label = "red"\nnetvm = "sys-firewall2"\n'
VAULT = 'label = "black"\n'
NAMES = {
    "intranet.example.com": frozenset({ip_address("10.200.0.10")}),
    "www.example.com": frozenset({ip_address("198.51.100.80")}),
}


def domains(text: str) -> Domains:
    return read(text, file="home.toml", qids={}, now=0)


def said(old: str, new: str) -> list[str]:
    assert old in HOME
    pair = domains(HOME), domains(HOME.replace(old, new, 1))
    return [f"{c.sign.value} {c.domain} {c.text}" for c in effect(*pair, NAMES, 0)]


MORE, LESS = "may now also reach", "may no longer reach"
CHANGES = {
    "a rule more": (
        *(INTRANET, '  "accept dst4=10.0.0.0/8 proto=tcp dstports=22",\n' + INTRANET),
        [f"+ work {MORE} 10.0.0.0/8 tcp/22"],
    ),
    "a rule less": (
        *(INTRANET, ""),
        [f"- work {LESS} intranet.example.com tcp/443"],
    ),
    "a name that nobody has asked for yet": (
        *(INTRANET, INTRANET + '  "accept dsthost=new.example.com proto=udp",\n'),
        [f"+ work {MORE} new.example.com udp"],
    ),
    "a rule that is covered already": (
        *(INTRANET, INTRANET + INTRANET.replace("accept", "drop")),
        [],
    ),
    "the order": (DNS + INTRANET, INTRANET + DNS, []),
    "another comment": ("comment=the public site", "comment=the site", []),
    "no names any more": (
        *(DNS, ""),
        [f"- work {LESS} dns tcp/53 and udp/53"],
    ),
    "a netvm for all": (
        *(VAULT, VAULT + 'netvm = "sys-firewall"\n'),
        [f"+ vault {MORE} 0.0.0.0/0", f"+ vault {MORE} ::/0"],
    ),
    "a netvm and rules for nothing that is routed": (
        VAULT,
        VAULT + 'netvm = "sys-firewall"\nfirewall = ["accept dst4=10.137.0.0/16"]\n',
        [],
    ),
    "no IPv6": (UNTRUSTED, UNTRUSTED + "ipv6 = false\n", [f"- untrusted {LESS} ::/0"]),
    "an ICMP type": (
        *(UNTRUSTED, UNTRUSTED + 'firewall = ["drop proto=icmp icmptype=3", "accept"]'),
        [
            f"- untrusted {LESS} 0.0.0.0/0 icmp type 3",
            f"- untrusted {LESS} ::/0 icmp type 1-2",
        ],
    ),
    "all but a protocol and a port": (
        UNTRUSTED,
        UNTRUSTED + 'firewall = ["accept proto=tcp dstports=25"]',
        [
            f"- untrusted {LESS} {everywhere} all but tcp and tcp but port 25"
            for everywhere in ("0.0.0.0/0", "::/0")
        ],
    ),
    "a list of its netvm": (
        *('label = "green"\n', 'label = "green"\nfirewall = ["accept proto=tcp"]\n'),
        [
            f"- sys-firewall {LESS} 0.0.0.0/0 all but tcp",
            f"- sys-firewall {LESS} ::/0 all but tcp",
            f"- work {LESS} dns udp/53",
            (
                f"- personal {LESS} all but 10.0.0.0/8, 169.254.0.0/16, "
                "172.16.0.0/12, 192.168.0.0/16 all but tcp"
            ),
            f"- personal {LESS} dns udp/53",
            f"- personal {LESS} all but fc00::/7 all but tcp",
        ],
    ),
}


@pytest.mark.parametrize(("old", "new", "means"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_said_in_packets(old: str, new: str, means: list[str]) -> None:
    assert said(old, new) == means


def test_addresses_within_a_prefix_that_have_a_name_are_set_apart() -> None:
    assert said(TEN, "")[:1] == [f"+ personal {MORE} 10.0.0.0/8 but dns"]


def test_what_is_long_is_cut() -> None:
    rules = "".join(
        f'"accept dst4=192.0.{n}.0/24 proto=tcp dstports={n + 1}",\n' for n in range(20)
    )

    found = said(DNS, DNS + rules)

    assert len(found) == 9
    assert found[-1] == f"+ work {MORE} 12 parts more"
