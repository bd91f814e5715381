# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole chain through this machine's own connection, and through a card.

::

    203.0.113.80 internet [out] -- out [host] -- rv0-sys-net … work
                 host [wire] -- card sys-net … work
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from controller import namespaces
from controller.platforms.processes import LOG_LIMIT
from controller.syscalls import MS_BIND, mount
from tests.e2e.machine import (
    HTTP,
    RUNTIME,
    VIRTUAL4,
    Machine,
    becomes,
    command_line,
    machine,
    shown,
    until,
)

pytestmark = pytest.mark.kernel

POLICY = """
[domains.sys-net]
label = "red"
personality = "netvm"
uplink = "{0}"

[domains.sys-firewall]
label = "green"
personality = "firewall"
netvm = "sys-net"

[domains.work]
label = "blue"
netvm = "sys-firewall"
firewall = ["accept specialtarget=dns", "accept proto=tcp dstports=80"]
"""
NAME, WEB, HOST, DNS, OTHER_DNS = (
    "www.example.org",
    "203.0.113.80",
    "198.51.100.2",
    "198.51.100.53",
    "198.51.100.54",
)
SERVER = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=80)"
LAN = "192.168.77.{}"
#: What the DHCP server of the LAN gives away, the last numbers.
LEASES = range(50, 61)


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


@contextmanager
def running(*argv: str, net: Path | None = None) -> Iterator[None]:
    """Have a server for a while."""
    quiet = subprocess.DEVNULL
    with namespaces.inside(net) if net else nullcontext():
        process = subprocess.Popen(argv, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def dnsmasq(address: str, *words: str) -> tuple[str, ...]:
    return (
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"),
        *("--no-hosts", "--user=root", "--pid-file=", "--bind-interfaces"),
        *(f"--listen-address={address}", "--no-ping", *words),
    )


@pytest.fixture
def shared() -> Iterator[Machine]:
    """A machine with a connection of its own, and names and pages behind it."""
    with machine(POLICY.format("host")) as made:
        internet = Path("/run/netns/internet")
        internet.parent.mkdir()
        namespaces.create(internet)
        try:
            ip("link add out type veth peer name out netns internet")
            with namespaces.inside(internet):
                for address in ("198.51.100.1/24", f"{DNS}/24", f"{OTHER_DNS}/24"):
                    ip(f"addr add {address} dev out")
                ip(f"addr add {WEB}/32 dev lo")
                ip("link set lo up")
                ip("link set out up")
            # Its address would come when it comes.
            Path("/proc/sys/net/ipv6/conf/out/disable_ipv6").write_text("1")
            for words in (
                f"addr add {HOST}/24 dev out",
                "link set out up",
                "route add default via 198.51.100.1",
            ):
                ip(words)
            until(lambda: "state UP" in shown("ip link show out"))
            Path("/etc/resolv.conf").write_text(f"nameserver {DNS}\n")
            names = dnsmasq(DNS, f"--address=/{NAME}/{WEB}")
            others = dnsmasq(OTHER_DNS, f"--address=/{NAME}/192.0.2.99")
            with (
                running(sys.executable, "-c", SERVER, net=internet),
                running(*names, net=internet),
                running(*others, net=internet),
            ):
                yield made
        finally:
            namespaces.remove(internet)


def test_the_chain_shares_the_connection_of_the_machine_and_restores_it(
    shared: Machine,
) -> None:
    before = shared.host()
    shared.up()
    assert until(lambda: shared.reaches("work", WEB, HTTP))
    becomes(lambda: shared.answers("work", NAME), {WEB})
    assert shared.curl_plain("work", f"http://{NAME}/").status == 0
    assert not shared.reaches("work", HOST, 22)
    assert shared.tries("work", "icmp", WEB) == "refused"
    shared.does("down")
    becomes(shared.left, [])
    assert shared.host() == before


def test_after_a_crash_the_machine_is_as_before_too(shared: Machine) -> None:
    before = shared.host()
    shared.up()
    shared.crash()
    shared.does("down")
    becomes(shared.left, [])
    assert shared.host() == before


def test_names_follow_the_machine(shared: Machine) -> None:
    shared.up()
    becomes(lambda: shared.answers("work", NAME), {WEB})
    Path("/etc/resolv.conf").write_text(f"nameserver {OTHER_DNS}\n")
    becomes(lambda: shared.answers("work", NAME), {"192.0.2.99"})


def test_a_machine_that_gets_a_resolver_later_is_no_problem_any_more(
    shared: Machine,
) -> None:
    def problem() -> str:
        return str(shared.status()["sys-net"]["problem"])

    resolv_conf = Path("/etc/resolv.conf")
    before = resolv_conf.read_text()
    resolv_conf.write_text("")
    shared.up()
    assert "no resolver" in problem()

    resolv_conf.write_text(before)
    becomes(problem, "None")
    becomes(lambda: shared.answers("work", NAME), {WEB})
    resolv_conf.write_text("")
    until(lambda: "no resolver" in problem())


def test_names_without_a_resolver_are_not_waited_for(shared: Machine) -> None:
    """There is nobody to ask, and the other rules are in force at once."""
    Path("/etc/resolv.conf").write_text("")
    rules = f'"accept dsthost={NAME} tcp 443", "accept dst4={WEB} tcp 80"'
    text = POLICY.replace('netvm = "sys-firewall"\n', 'netvm = "sys-net"\n')
    lines = [x for x in text.format("host").split("\n") if "firewall = " not in x]
    shared.policy.write_text("\n".join((*lines, f"firewall = [{rules}]\n")))
    shared.up()
    assert shared.reaches("work", WEB)


@pytest.fixture
def with_card() -> Iterator[Machine]:
    """A machine with a card, and a LAN with DHCP behind it."""
    setup = (
        "link add card type veth peer name wire",
        f"addr add {LAN.format(1)}/24 dev wire",
        "link set wire up",
        "link set card up",
    )
    lan = dnsmasq(
        LAN.format(1),
        f"--dhcp-range={LAN.format(LEASES[0])},{LAN.format(LEASES[-1])},2m",
        "--dhcp-leasefile=/run/leases",
        "--log-dhcp",
        "--log-facility=/run/dhcp.log",
        f"--address=/{NAME}/{LAN.format(1)}",
    )
    with (
        machine(POLICY.format("card"), setup) as made,
        running(*lan),
        running(sys.executable, "-c", SERVER),
    ):
        yield made


def test_a_card_gets_its_addresses_by_dhcp_inside_the_netvm(
    with_card: Machine,
) -> None:
    with_card.up()
    assert until(lambda: with_card.reaches("work", LAN.format(1)))
    # The lease's resolver is told after its address.
    becomes(lambda: with_card.answers("work", NAME), {LAN.format(1)})
    leased = with_card.tool("sys-net", "ip", "-br", "-4", "addr", "show", "card")
    assert any(f" {LAN.format(last)}/" in leased for last in LEASES)
    shown = subprocess.check_output(["ip", "link"], text=True)
    assert "card" not in shown.replace("wire@", "")
    assert with_card.tries("work", "udp", LAN.format(1), 4433) == "refused"
    assert not any(row["problem"] for row in with_card.status().values())
    assert VIRTUAL4 in with_card.run("work", "cat", "/etc/resolv.conf").out


def test_a_dhcp_client_that_dies_is_started_again(with_card: Machine) -> None:
    """And gives the card an address again."""
    with_card.up()
    assert until(lambda: with_card.reaches("work", LAN.format(1)))
    (client,) = dhcp_clients(with_card)
    with_card.tool("sys-net", "ip", "addr", "flush", "dev", "card")

    os.kill(client, signal.SIGKILL)

    assert until(lambda: dhcp_clients(with_card) - {client})
    assert until(lambda: with_card.reaches("work", LAN.format(1)))


def test_the_log_of_a_dhcp_client_does_not_grow_without_end(
    with_card: Machine,
) -> None:
    """A server that it does not understand makes it write a line each time."""
    with_card.up()
    log = RUNTIME / "log" / "sys-net.dhcp.log"
    with log.open("ab") as output:
        output.write(b"x" * (LOG_LIMIT + 1))

    until(lambda: log.stat().st_size <= LOG_LIMIT)

    assert dhcp_clients(with_card)


def test_an_apply_that_names_no_card_of_this_machine_stops_nothing(
    with_card: Machine,
) -> None:
    with_card.up()
    assert until(lambda: with_card.reaches("work", LAN.format(1)))

    def running() -> list[object]:
        # A prover may be looking at any domain at any time.
        agents: list[object] = [with_card.agent(x) for x in ("sys-net", "sys-firewall")]
        return [*agents, dhcp_clients(with_card)]

    before = running()
    good = with_card.policy.read_text()
    with_card.policy.write_text(good.replace('"card"', '"cart"'))

    done = with_card.ravelin("apply")

    line = good.split("\n").index('uplink = "card"') + 1
    why = f"policy.toml:{line}: sys-net: uplink: cart: no such interface"
    assert (done.status, why in done.err) == (3, True)
    assert running() == before
    assert with_card.reaches("work", LAN.format(1))
    with_card.policy.write_text(good)
    with_card.does("apply")


def dhcp_clients(machine: Machine) -> set[int]:
    """Return the pids of the DHCP clients in the NetVM."""
    found = machine.processes("sys-net")
    return {pid for pid in found if b"udhcpc" in command_line(pid)}


def test_the_card_comes_back(with_card: Machine) -> None:
    with_card.up()
    until(lambda: with_card.reaches("work", LAN.format(1)))
    with_card.does("down")
    becomes(with_card.left, [])
    shown = subprocess.check_output(["ip", "-br", "link"], text=True)
    assert "card@wire" in shown


def test_the_card_comes_back_after_a_crash_too(with_card: Machine) -> None:
    """Although it is one that the kernel ends with the namespace it is in."""
    with_card.up()
    with_card.crash()
    with_card.does("down")
    becomes(with_card.left, [])
    assert "card@wire" in shown("ip -br link")


def test_a_card_may_have_the_name_of_a_vlan(with_card: Machine) -> None:
    for words in ("card down", "card name card.7", "card.7 up"):
        ip(f"link set {words}")
    with_card.policy.write_text(POLICY.format("card.7"))
    with_card.up()
    until(lambda: with_card.reaches("work", LAN.format(1)))
    with_card.does("down")
    becomes(with_card.left, [])
    assert "card.7@wire" in shown("ip -br link")


def test_the_netvm_tells_the_lan_nothing_but_its_mac(with_card: Machine) -> None:
    with_card.up()
    until(lambda: with_card.reaches("work", LAN.format(1)))
    (lease,) = Path("/run/leases").read_text().splitlines()
    assert lease.split()[3] == "*"  # no host name
    log = Path("/run/dhcp.log").read_text()
    assert "vendor class" not in log
    assert "client provides name" not in log


def test_without_a_dhcp_client_the_user_is_told(with_card: Machine) -> None:
    """And the chain comes up, closed, for whoever configures the card by hand."""
    nothing = Path("/run/nothing")
    nothing.write_text("")
    for name in ("/usr/bin/busybox", "/bin/busybox"):
        if Path(name).exists():
            nothing.chmod(0o644)  # which(1) looks for what can be executed
            mount(str(nothing), name, None, MS_BIND)
            break
    done = with_card.ravelin("up", str(with_card.policy))
    assert done.status == 0
    told = done.err + with_card.does("log")
    assert "no DHCP client" in told
    assert not with_card.reaches("work", LAN.format(1))
