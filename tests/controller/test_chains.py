# SPDX-License-Identifier: GPL-2.0-or-later
"""Personalities are chained by ``netvm`` alone; what cannot work is refused."""

from pathlib import Path

import pytest

from controller.domains import Domain, Domains, DomainsError, LabUplink, Personality
from controller.policy import PolicyError, read

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


POLICY = """[domains.net]
personality = "netvm"
uplink = "lab"

[domains.tor]
personality = "tor"
netvm = "net"

[domains.fw]
personality = "firewall"
netvm = "tor"

[domains.vpn]
personality = "openvpn"
netvm = "{netvm}"
config = "provider.ovpn"
"""
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
PROFILE = f"client\ndev tun\nauth-user-pass\n<ca>\n{PEM}</ca>\n"
BY_UDP, BY_TCP = (f"remote 192.0.2.9 1194 {each}\n" for each in ("udp", "tcp"))


def read_with(folder: Path, profile: str, netvm: str = "tor") -> Domains:
    """Read the policy with a provider's file beside it."""
    provider = folder / "provider.ovpn"
    provider.touch(mode=0o600)
    provider.write_text(profile)
    file = str(folder / "home.toml")
    return read(POLICY.format(netvm=netvm), file=file, qids={}, now=0)


@pytest.mark.parametrize("more", [BY_TCP, BY_UDP + BY_TCP, "up evil\n"])
def test_a_profile_that_may_work_is_taken_behind_tor(tmp_path: Path, more: str) -> None:
    """One that nobody can read is for its agent to refuse, with what is wrong."""
    assert read_with(tmp_path, PROFILE + more).named("vpn").files


@pytest.mark.parametrize("netvm", ["tor", "fw"])
def test_a_profile_over_udp_alone_is_refused_behind_tor_alone(
    tmp_path: Path, netvm: str
) -> None:
    assert read_with(tmp_path, PROFILE + BY_UDP, "net").named("vpn").netvm == "net"

    with pytest.raises(PolicyError) as caught:
        read_with(tmp_path, PROFILE + BY_UDP, netvm)

    assert str(caught.value) == (
        f"{tmp_path}/home.toml:16: vpn: config: provider.ovpn has servers over UDP "
        "alone, and tor carries TCP alone, expected a profile with proto tcp"
    )
