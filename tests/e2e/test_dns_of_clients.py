# SPDX-License-Identifier: GPL-2.0-or-later
"""The DNS of clients: the NetVM's resolvers of the moment, whatever rules say."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller import namespaces
from tests.e2e.machine import (
    FORBIDDEN4,
    HTTPS,
    VIRTUAL4,
    VIRTUAL6,
    WEB4,
    Machine,
    until,
)

pytestmark = pytest.mark.kernel

NAME = "www.example.com"
SECOND = "192.0.2.54"
LAN = "192.0.2.0/24"


@contextmanager
def second_resolver(machine: Machine) -> Iterator[None]:
    """Have another resolver in the LAN, which says that www is elsewhere."""
    with namespaces.inside(machine.internet.net):
        subprocess.run(["ip", "addr", "add", f"{SECOND}/32", "dev", "lan"], check=True)
        command = [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"),
            *("--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root"),
            *("--pid-file=", f"--listen-address={SECOND}"),
            f"--address=/{NAME}/{FORBIDDEN4}",
        ]
        process = subprocess.Popen(command)
    try:
        until(lambda: machine.answers("sys-net", NAME, SECOND))
        yield
    finally:
        process.kill()
        process.wait()


def write_resolv_conf(machine: Machine, text: str) -> None:
    """Write the resolv.conf of the NetVM, as those who configure its uplink do."""
    path = machine.runtime / "resolv" / "sys-net" / "resolv.conf"
    fresh = path.with_name("resolv.conf.new")
    fresh.write_text(text)
    fresh.replace(path)


@pytest.mark.parametrize("server", [VIRTUAL4, VIRTUAL6, "10.139.1.2"])
def test_every_virtual_resolver_answers(home: Machine, server: str) -> None:
    assert home.answers("work", NAME, server) == {WEB4}
    assert home.answers("personal", NAME, server) == {WEB4}


def test_names_over_tcp_are_answered_too(home: Machine) -> None:
    assert home.reaches("work", VIRTUAL4, 53)
    assert home.reaches("work", VIRTUAL6, 53)


def test_blocking_the_lan_does_not_kill_names(home: Machine) -> None:
    """Also where the resolver itself is in the network that is blocked."""
    for network in ("10.0.0.0/8", LAN, "fd00::/8", "2001:db8:1::/64"):
        version = "dst6" if ":" in network else "dst4"
        rule = ("drop", f"{version}={network}")
        home.does("firewall", "personal", "add", *rule, "--before", "1")
    assert home.answers("personal", NAME) == {WEB4}
    assert home.answers("personal", NAME, VIRTUAL6) == {WEB4}
    assert home.tries("personal", "dns", "192.0.2.53", 53) == "refused"


def test_a_domain_that_may_not_ask_is_refused(home: Machine) -> None:
    home.does(
        "firewall", "personal", "add", "--before", "0", "drop", "specialtarget=dns"
    )
    assert home.tries("personal", "dns", VIRTUAL4, 53) == "refused"
    assert home.answers("work", NAME) == {WEB4}


def test_a_netvm_that_changes_its_resolver_takes_its_clients_along(
    home: Machine,
) -> None:
    with second_resolver(home):
        write_resolv_conf(home, f"search x\n\tnameserver\t{SECOND} # new\n")
        try:
            assert until(lambda: home.answers("work", NAME) == {FORBIDDEN4})
            assert home.answers("untrusted", NAME) == {FORBIDDEN4}
            # Rules follow as well, for the name means something else now.
            assert until(lambda: home.reaches("work", FORBIDDEN4, HTTPS))
        finally:
            home.does("restart", "sys-net")
    assert home.answers("work", NAME) == {WEB4}


def test_a_broken_resolv_conf_takes_nothing_but_names(home: Machine) -> None:
    stream = home.stream("personal")
    write_resolv_conf(home, "nameserver\nnameserver fe80::1%eth0\nnameserver x\n")
    try:
        until(lambda: not home.answers("work", NAME))
        assert stream.lives()
        assert home.reaches("personal", WEB4)
    finally:
        home.does("restart", "sys-net")
    assert home.answers("work", NAME) == {WEB4}


def test_no_name_is_asked_outside_of_the_domain(home: Machine) -> None:
    """The host's own resolv.conf and daemons are out of sight."""
    Path("/etc/resolv.conf").write_text("nameserver 203.0.113.1\n")
    done = home.run("work", "cat", "/etc/resolv.conf", "/etc/nsswitch.conf")
    assert "203.0.113.1" not in done.out
    assert "nameserver 10.139.1.1" in done.out
    assert "hosts: files dns" in done.out.replace("\t", " ")
    assert os.access("/etc/resolv.conf", os.R_OK)
    assert home.run("work", "getent", "ahostsv4", NAME).out.split()[0] == WEB4
