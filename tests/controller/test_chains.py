# SPDX-License-Identifier: GPL-2.0-or-later
"""Personalities are chained by ``netvm`` alone; what cannot work is refused."""

import pytest

from controller.domains import Domain, Domains, DomainsError, LabUplink, Personality

NET = Domain("net", 1, personality=Personality.NETVM, uplink=LabUplink())
KINDS = {
    "firewall": Personality.FIREWALL,
    "tor": Personality.TOR,
    "wireguard": Personality.WIREGUARD,
    "openvpn": Personality.OPENVPN,
}


def chain(*kinds: str) -> Domains:
    """Return a NetVM, and behind it one of each kind, each behind the one before."""
    found = {NET.name: NET}
    before = NET.name
    for number, kind in enumerate(kinds, 2):
        name = f"{kind}{number}"
        domain = Domain(name, number, personality=KINDS[kind], netvm=before)
        found[name], before = domain, name
    return Domains(found)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("wireguard", "tor"), id="Tor over VPN"),
        pytest.param(("openvpn", "tor"), id="Tor over the other VPN"),
        pytest.param(("tor", "openvpn"), id="a VPN over Tor, which TCP makes possible"),
        pytest.param(("wireguard", "openvpn"), id="VPN over VPN"),
        pytest.param(("openvpn", "wireguard"), id="VPN over VPN, the other way round"),
        pytest.param(("wireguard", "wireguard"), id="a VPN over one of its kind"),
        pytest.param(("firewall", "tor", "firewall"), id="firewalls on both sides"),
    ],
)
def test_a_chain_is_what_netvm_says(kinds: tuple[str, ...]) -> None:
    made = chain(*kinds)
    last = list(made)[-1].name

    assert [d.name for d in made.path(last)][-1] == "net"
    assert len(made.path(last)) == len(kinds)


@pytest.mark.parametrize(
    "kinds", [("tor", "wireguard"), ("tor", "firewall", "wireguard")], ids=" ".join
)
def test_what_needs_udp_is_not_behind_what_carries_tcp_alone(
    kinds: tuple[str, ...],
) -> None:
    with pytest.raises(DomainsError) as caught:
        chain(*kinds)

    (problem,) = caught.value.problems
    assert problem.key == "netvm"
    assert problem.text == (
        "netvm: wireguard needs UDP, and tor2 (tor) carries TCP alone, expected "
        f"openvpn over TCP here, or tor2 behind {problem.domain}"
    )
