# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel parameters are written by role, read back, and told when missing."""

from collections.abc import Callable

import pytest

from agent import sysctl
from agent.hardening import VALUES, Role
from agent.ports import NetlinkError

Shell = Callable[[str], str]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("net")]

REDIRECTS = "ipv4/conf/all/accept_redirects"


@pytest.mark.parametrize("role", Role, ids=lambda role: role.name)
def test_the_kernel_keeps_every_value_of_a_role(sh: Shell, role: Role) -> None:
    sh("ip link add vif3.0 type veth")

    missing = sysctl.harden(role, "vif3.0")

    kept = {key: sysctl.read(key.format("vif3.0")) for key in VALUES[role]}
    assert kept == {
        key: None if key.format("vif3.0") in missing else value
        for key, value in VALUES[role].items()
    }
    assert missing == ()  # this kernel has them all


def test_a_dot_in_a_name_does_not_end_it(sh: Shell) -> None:
    sh("ip link add vif3.0 type veth peer vif3.1")
    before = sysctl.read("ipv4/conf/vif3.1/proxy_arp")

    sysctl.harden(Role.VIF, "vif3.0")

    assert (before, sysctl.read("ipv4/conf/vif3.1/proxy_arp")) == (0, 0)
    assert sysctl.read("ipv4/conf/vif3.0/proxy_arp") == 1


def test_interfaces_made_later_are_born_hardened(sh: Shell) -> None:
    sh("ip link add early type veth peer early-peer")
    sysctl.harden(Role.NEW)
    sh("ip link add late type veth peer late-peer")

    assert sysctl.read("ipv6/conf/early/accept_ra") == 1
    assert sysctl.read("ipv6/conf/late/accept_ra") == 0


def test_a_key_that_this_kernel_lacks_is_told_and_not_fatal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"ipv4/no_such_thing": 1, "ipv4/ip_default_ttl": 77}
    monkeypatch.setattr(sysctl, "VALUES", {Role.HOST: values})

    assert sysctl.harden(Role.HOST) == ("ipv4/no_such_thing",)
    assert sysctl.read("ipv4/ip_default_ttl") == 77


def test_a_value_that_another_one_undoes_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"ipv4/ip_forward": 1, "ipv4/conf/all/forwarding": 0}
    monkeypatch.setattr(sysctl, "VALUES", {Role.HOST: values})

    with pytest.raises(NetlinkError, match=r"ipv4/ip_forward: .* does not keep 1"):
        sysctl.harden(Role.HOST)


def test_a_value_that_the_kernel_refuses_is_an_error_in_words() -> None:
    with pytest.raises(NetlinkError, match="ipv4/ip_default_ttl = 4096: Invalid"):
        sysctl.write("ipv4/ip_default_ttl", 4096)


def test_what_a_toggle_of_forwarding_undoes_is_put_back() -> None:
    sysctl.harden(Role.HOST)
    sysctl.write("ipv4/ip_forward", 0)
    undone = sysctl.read(REDIRECTS)

    sysctl.harden(Role.HOST)

    assert (undone, sysctl.read(REDIRECTS)) == (1, 0)


def test_no_root_is_needed(sh: Shell, unprivileged: Shell) -> None:
    sh("ip link add vif3.0 type veth")

    unprivileged(
        "from agent import sysctl; from agent.hardening import Role\n"
        "sysctl.harden(Role.HOST); sysctl.harden(Role.VIF, 'vif3.0')"
    )

    assert sysctl.read("ipv4/conf/vif3.0/proxy_arp") == 1
